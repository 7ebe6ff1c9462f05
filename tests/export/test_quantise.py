"""Q/DQ: structure, arithmetic, what stays in float, MACs, and lowering afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from srdeploy.errors import ExportError
from srdeploy.export.macs import int8_mac_share, macs
from srdeploy.export.passes import run_passes
from srdeploy.export.pixels import with_pixels
from srdeploy.export.precision import lower, pin_to_fp32
from srdeploy.export.quantise import activations, quantisable_nodes, quantise
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.runtime.targets.onnxruntime import float_runner, graph_runner
from srdeploy.spec import Precision

RESTS = (Precision.FP32, Precision.FP16, Precision.BF16)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    made = architecture("vapsr").build(VapSRConfig(4, 12, 2, 16, 2)).eval().requires_grad_(False)
    made.conv_first.weight[0].zero_()
    made.conv_body.weight[1].mul_(1e-6)
    return made


@pytest.fixture(scope="module")
def traced(network) -> onnx.ModelProto:
    model = trace(network, architecture("vapsr").describe(network.config))
    run_passes(model)
    return model


def wide(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    """Ranges of all activations, each another."""
    return {name: (-1.0 - i / 7, 0.5) for i, name in enumerate(activations(model))}


def graph(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: Sequence[int | str] = ("N", 3, "H", "W"),
    opset: int = 20,
) -> onnx.ModelProto:
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def conv(weight: np.ndarray, **attributes) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", **attributes)
    bias = np.linspace(-1, 1, len(weight))
    return graph([node], {"w": weight, "b": bias})


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def by_output(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


@pytest.mark.parametrize("rest", RESTS)
def test_structure(traced, rest) -> None:
    ranges = wide(traced)
    quantised = quantise(traced, ranges, rest=rest)
    made, values = by_output(quantised), constants(quantised)
    originals, old = {n.name: n for n in traced.graph.node}, constants(traced)
    assert quantisable_nodes(traced) == tuple(
        n.name for n in traced.graph.node if n.op_type == "Conv"
    )
    for node in [n for n in quantised.graph.node if n.op_type == "Conv"]:
        before = originals[node.name]
        data, weight = (made[name] for name in node.input[:2])
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert list(node.input[2:]) == list(before.input[2:]), "the bias stays in float"
        source = made[data.input[0]]
        assert source.op_type == "QuantizeLinear"
        assert source.input[0] == before.input[0]
        assert list(source.input[1:]) == list(data.input[1:])
        scale, zero = (values[name] for name in data.input[1:])
        assert scale.shape == zero.shape == ()
        exact = max(map(abs, ranges[before.input[0]])) / 127
        assert exact <= scale <= exact * (1 + 2**-7)
        assert scale == scale.astype(ml_dtypes.bfloat16), "any float type holds it"
        assert zero.dtype == np.int8
        assert zero == 0
        codes, scales, zeros = (values[name] for name in weight.input)
        channels = old[before.input[1]].shape[0]
        assert codes.dtype == zeros.dtype == np.int8
        assert codes.shape == old[before.input[1]].shape
        assert scales.shape == zeros.shape == (channels,)
        assert not zeros.any()
        assert np.abs(codes.astype(int)).max() <= 127
        assert next(a.i for a in weight.attribute if a.name == "axis") == 0
        assert np.array_equal(scales.astype(ml_dtypes.bfloat16), scales)
        if rest is Precision.FP16:
            assert np.array_equal(scales.astype(np.float16), scales)
        error = codes * scales.reshape(-1, 1, 1, 1) - old[before.input[1]]
        # half a step, and what rounding the scale to 8 or 9 bits moves the largest code by
        assert (np.abs(error) <= 0.76 * scales.reshape(-1, 1, 1, 1)).all()
    dequantised = {n.output[0] for n in quantised.graph.node if n.op_type == "DequantizeLinear"}
    takers = {n.op_type for n in quantised.graph.node if dequantised & set(n.input)}
    assert takers == {"Conv"}
    assert int8_mac_share(quantised) == 1.0
    assert traced.graph.initializer[0].data_type == TensorProto.FLOAT, "the original is unchanged"


def step(reach: np.ndarray | float) -> np.ndarray:
    """What 127 codes that reach so far are apart: the next number of 8 bits, as bf16 has."""
    exact = np.asarray(reach, np.float64) / 127
    unit = 2.0 ** (np.floor(np.log2(exact)) - 7)
    return (np.ceil(exact / unit) * unit).astype(np.float32)


def fake(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Through int8 and back, in float64."""
    codes = np.rint(values.astype(np.float32) / scale.astype(np.float32))
    return np.clip(codes, -128, 127).astype(np.float64) * scale


def convolved(x: np.ndarray, w: np.ndarray, b: np.ndarray, groups: int) -> np.ndarray:
    """A padded convolution by the definition, in float64."""
    out, per_group, kh, kw = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (kh // 2,) * 2, (kw // 2,) * 2))
    n, _, h, width = x.shape
    y = np.zeros((n, out, h, width)) + b.reshape(-1, 1, 1)
    for o in range(out):
        first = o // (out // groups) * per_group
        for i, dy, dx in np.ndindex(per_group, kh, kw):
            y[:, o] += w[o, i, dy, dx] * padded[:, first + i, dy : dy + h, dx : dx + width]
    return y


@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.sampled_from([1, 3]), st.booleans())
def test_a_quantised_conv_is_a_fake_quantised_one(seed, edge, groups, saturate) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (6, 3 // groups, edge, edge)) * rng.uniform(0.01, 3, (6, 1, 1, 1))
    weight = weight.astype(np.float32)
    model = conv(weight, group=groups, pads=[edge // 2] * 4)
    reach = 0.5 if saturate else 2.0
    x = rng.uniform(-2, 2, (2, 3, 7, 5)).astype(np.float32)
    run = graph_runner(quantise(model, {"x": (-0.1, reach)}))
    scales = step(np.abs(weight).max(axis=(1, 2, 3), keepdims=True))
    expected = convolved(fake(x, step(reach)), fake(weight, scales), np.linspace(-1, 1, 6), groups)
    assert np.allclose(run({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_a_quantised_matmul_has_a_scale_per_column() -> None:
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (4, 3)) * [0.01, 1, 50]).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    model = graph([node], {"w": weight}, ("N", 5, 4))
    quantised = quantise(model, {"x": (-1, 1)})
    x = rng.uniform(-1, 1, (2, 5, 4)).astype(np.float32)
    scales = step(np.abs(weight).max(axis=0, keepdims=True))
    expected = fake(x, step(1.0)) @ fake(weight, scales)
    assert np.allclose(graph_runner(quantised)({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)
    assert macs(model, 64, 64) == {"product": 5 * 4 * 3}
    assert int8_mac_share(quantised) == 1.0


def test_what_is_shared_is_quantised_once() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Conv", ["x", "w"], ["b"], name="second"),
        helper.make_node("Conv", ["x", "w"], ["c"], name="third"),
        helper.make_node("Sum", ["a", "b", "c", "x"], ["y"], name="sum"),
    ]
    model = graph(nodes, {"w": np.random.default_rng(0).normal(0, 1, (3, 3, 1, 1))})
    quantised = quantise(model, {"x": (-1, 1)}, skip=["third"])
    kinds = [n.op_type for n in quantised.graph.node]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("DequantizeLinear") == 2
    left = {n.name: list(n.input) for n in quantised.graph.node}
    assert left["third"] == ["x", "w"]
    assert left["sum"][-1] == "x"
    assert left["first"] == left["second"]
    assert int8_mac_share(quantised) == pytest.approx(2 / 3)


def test_skipped_nodes_stay_as_they_are(traced) -> None:
    nodes = quantisable_nodes(traced)
    skip = set(nodes[::3])
    quantised = quantise(traced, wide(traced), skip)
    before, after = ({n.name: n for n in m.graph.node} for m in (traced, quantised))
    for name in nodes:
        assert (before[name] == after[name]) == (name in skip)
    counts = macs(traced, 64, 64)
    expected = sum(counts[n] for n in nodes if n not in skip) / sum(counts.values())
    assert int8_mac_share(quantised) == pytest.approx(expected)
    everything = quantise(traced, {}, nodes)
    assert everything == traced
    assert int8_mac_share(everything) == 0.0


def test_what_is_not_quantisable() -> None:
    weights = {"w": np.ones((3, 3, 1, 1)), "m": np.ones((2, 4, 4)), "k": np.ones((4, 4))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="pinned"),
        helper.make_node("Conv", ["x", "a"], ["b"], name="computed weight"),
        helper.make_node("MatMul", ["x", "m"], ["c"], name="stacked weight"),
        helper.make_node("MatMul", ["k", "x"], ["d"], name="constant data"),
        helper.make_node("MatMul", ["x", "k"], ["y"], name="fine"),
    ]
    pin_to_fp32(nodes[0])
    assert quantisable_nodes(graph(nodes, weights)) == ("fine",)


def test_nameless_nodes_are_refused() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], [out]) for out in ("a", "y")]
    model = graph(nodes, {"w": np.ones((3, 3, 1, 1))})
    with pytest.raises(ExportError, match="names of their own"):
        quantise(model, {"x": (-1, 1)})


def test_wrong_arguments_are_refused(traced) -> None:
    ranges = wide(traced)
    with pytest.raises(ExportError, match="nobody"):
        quantise(traced, ranges, ["nobody"])
    last = activations(traced)[-1]
    with pytest.raises(ExportError, match=f"{last} has no calibrated range"):
        quantise(traced, {k: v for k, v in ranges.items() if k != last})
    for wrong in ((-1.0, float("inf")), (float("nan"), 1.0), (-1.0, float("nan"))):
        with pytest.raises(ExportError, match="not finite"):
            quantise(traced, ranges | {last: wrong})


def test_old_opsets_cannot_hold_half_scales() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = graph([node], {"w": np.ones((3, 3, 1, 1))}, opset=18)
    assert int8_mac_share(quantise(model, {"x": (-1, 1)})) == 1.0
    with pytest.raises(ExportError, match="opset 19, the graph has 18"):
        quantise(model, {"x": (-1, 1)}, rest=Precision.FP16)


@pytest.mark.parametrize("rest", [Precision.FP16, Precision.BF16])
def test_lowering_keeps_every_code_and_scale(traced, rest) -> None:
    quantised = quantise(traced, wide(traced), ["upsampler.3", "conv_first"], rest)
    lowered = lower(quantised, rest)
    onnx.checker.check_model(lowered, full_check=True)
    old, new = constants(quantised), constants(lowered)
    kind = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}[rest]
    types = {t.name: t.data_type for t in lowered.graph.initializer}
    before, after = ({n.name: n for n in m.graph.node} for m in (quantised, lowered))
    pairs = [name for name, node in before.items() if node.op_type == "DequantizeLinear"]
    assert len(pairs) == 2 * (len(quantisable_nodes(traced)) - 2)
    for name in pairs:
        (codes, scale), (low_codes, low_scale) = (list(m[name].input[:2]) for m in (before, after))
        if codes in old:
            assert np.array_equal(old[codes], new[low_codes])
        assert types[low_scale] == kind
        assert np.array_equal(old[scale], new[low_scale].astype(np.float32))
        assert (old[scale] > 0).all()
    assert int8_mac_share(lowered) == int8_mac_share(quantised)


@pytest.mark.parametrize("rest", RESTS)
def test_lowering_leaves_nothing_between_codes_and_conv(traced, rest) -> None:
    """No cast comes between Q/DQ and a layer, also where that layer stays in fp32."""
    assert int8_mac_share(lower(quantise(traced, wide(traced), rest=rest), rest)) == 1.0


def test_fp16_runs_after_lowering(traced) -> None:
    ranges = dict.fromkeys(activations(traced), (-3.0, 3.0))
    quantised = quantise(traced, ranges, rest=Precision.FP16)
    x = np.random.default_rng(0).random((1, 3, 20, 17), dtype=np.float32)
    expected = graph_runner(quantised)({"lr": x})["sr"]
    got = float_runner(lower(quantised, Precision.FP16))(x)
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    assert np.abs(got - expected).mean() < 0.1 * expected.std()


def test_macs_are_those_of_the_modules(network, traced) -> None:
    counted: dict[str, int] = {}

    def count(name):
        def hook(module, inputs, output):
            counted[name] = output.numel() * module.weight[0].numel()

        return hook

    hooks = [
        module.register_forward_hook(count(name))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    network(torch.zeros(1, 3, 18, 26))
    for hook in hooks:
        hook.remove()
    assert macs(traced, 18, 26) == counted
    engine = with_pixels(lower(quantise(traced, wide(traced), rest=Precision.FP16), Precision.FP16))
    assert macs(engine, 18, 26) == counted
    assert int8_mac_share(engine) == 1.0


def test_a_static_graph_keeps_its_own_size() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = graph([node], {"w": np.ones((4, 3, 1, 1))}, (1, 3, 10, 20))
    assert macs(model, 64, 64) == {"conv": 10 * 20 * 4 * 3}


def test_unknown_shapes_are_said() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["z"]),
        helper.make_node("Cast", ["z"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["k", "f"], ["y"], name="product"),
    ]
    with pytest.raises(ExportError, match="MatMul product cannot be inferred"):
        macs(graph(nodes, {"k": np.ones((2, 4))}), 64, 64)


@pytest.mark.parametrize(
    ("variant", "billions"),
    [("vapsr-s-x4", 8.99), pytest.param("vapsr-x4", 19.52, marks=pytest.mark.slow)],
)
def test_published_macs_for_a_720p_output(variant, billions) -> None:
    family = architecture("vapsr")
    config = next(v.config for v in family.variants if v.name == variant)
    model = trace(family.build(config), family.describe(config))
    assert round(sum(macs(model, 180, 320).values()) / 1e9, 2) == billions


def test_linear_layers_are_quantised_by_their_outputs() -> None:
    """PyTorch writes x·Wᵀ: W as it is stored goes through int8, one scale a row, then turns."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 4)
    weight = linear.weight.detach().numpy()
    weight[2] *= 50  # a scale of its own, so that the others keep their codes
    nodes = [
        helper.make_node("Transpose", ["linear.weight"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"], "linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight.copy(), "linear.weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    assert quantisable_nodes(model) == ("linear",)
    x = np.random.default_rng(0).uniform(-1, 1, (50, 6)).astype(np.float32)
    quantised = quantise(model, {"x": (-1.0, 1.0)})
    got = graph_runner(quantised)({"x": x})["y"]
    exact = x @ weight.T
    assert (np.abs(got - exact).max(axis=0) < 0.02 * np.abs(exact).max(axis=0)).all()
    scales = next(t for t in quantised.graph.initializer if t.name.endswith("/scales"))
    assert list(scales.dims) == [4]
    assert [n.op_type for n in quantised.graph.node][-2:] == ["DequantizeLinear", "MatMul"]
    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    shared.graph.output.append(
        helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, [6, 4])
    )
    assert quantisable_nodes(shared) == ()  # somebody else reads the turned weight


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_a_pixel_shuffle_between_two_layers_moves_int8(mode) -> None:
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("DepthToSpace", ["a"], ["b"], "shuffle", blocksize=2, mode=mode),
        helper.make_node("Conv", ["b", "w2"], ["y"], "second"),
    ]
    weights = {"w1": rng.normal(size=(8, 3, 1, 1)), "w2": rng.normal(size=(3, 2, 1, 1))}
    model = graph(nodes, weights)
    x = rng.normal(size=(1, 3, 6, 7)).astype(np.float32)
    ranges = {"x": (-3.0, 3.0), "b": (-9.0, 9.0)}
    quantised = quantise(model, ranges)
    made = by_output(quantised)
    assert made[made["b"].input[0]].op_type == "QuantizeLinear"
    assert made[made[made["b"].input[0]].input[0]].name == "first"
    assert int8_mac_share(quantised) == 1
    nodes[1].output[0] = "c"  # with another op between, Q/DQ stand before the layer
    nodes.insert(2, helper.make_node("Identity", ["c"], ["b"], "between"))
    plain = quantise(graph(nodes, weights), ranges)
    assert by_output(plain)[by_output(plain)["c"].input[0]].name == "first"
    got, expected = (graph_runner(m)({"x": x})["y"] for m in (quantised, plain))
    assert np.array_equal(got, expected)
    left = quantise(model, ranges, ["second"])
    assert by_output(left)["b"].input[0] == "a"
