"""Export: dynamic sizes, names, metadata, equality with PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from srdeploy.errors import ExportError, ModelFileError
from srdeploy.export.passes import open_pass, pass_names, run_passes
from srdeploy.export.passes.channel_layernorm import run as rewrite_layernorm
from srdeploy.export.pixels import with_pixels
from srdeploy.export.precision import kept_in_fp32, lower
from srdeploy.export.trace import trace
from srdeploy.export.verify import default_sizes, verify
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import describe, network_from_arrays
from srdeploy.runtime.model_file import read_model, spec_of
from srdeploy.runtime.targets.onnxruntime import float_runner
from srdeploy.spec import ModelSpec, Precision


def tiny(scale: int = 4) -> tuple[torch.nn.Module, ModelSpec]:
    """A small VapSR with features of the size that trained ones have."""
    torch.manual_seed(scale)
    family = architecture("vapsr")
    config = VapSRConfig(scale, 8, 2, 12, 2)
    network = family.build(config).eval().requires_grad_(False)
    for name, tensor in network.named_parameters():
        if "pixel_norm" in name:
            tensor.uniform_(-1, 1)
    return network, describe(family, config, network, "test")


@pytest.fixture(scope="module", params=[2, 3, 4])
def traced(request) -> tuple[onnx.ModelProto, torch.nn.Module, ModelSpec]:
    network, spec = tiny(request.param)
    return trace(network, spec), network, spec


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def test_contract_of_the_file(traced) -> None:
    model, _, spec = traced
    (source,), (sink,) = model.graph.input, model.graph.output
    for value in (source, sink):
        tensor = value.type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.FLOAT
        dims = tensor.shape.dim
        assert dims[1].dim_value == 3
        assert all(dims[i].dim_param for i in (0, 2, 3)), "N, H and W must be dynamic"
    assert [o.version for o in model.opset_import if not o.domain] == [20]
    assert spec_of(model, "model") == spec
    text = str(model)
    assert "site-packages" not in text, "paths of the exporting machine"
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "body.0.proj_1" in names


def test_equal_to_pytorch_at_many_sizes(traced) -> None:
    model, network, spec = traced
    assert len(default_sizes(spec)) >= 6
    rewritten = copy(model)
    run_passes(rewritten)
    for graph in (model, rewritten):
        errors = verify(graph, network, default_sizes(spec))
        assert max(errors.values()) < 1e-5


@settings(max_examples=25)
@given(n=st.integers(1, 3), h=st.integers(1, 37), w=st.integers(1, 37))
def test_any_size(n: int, h: int, w: int) -> None:
    network, run = any_size_case()
    frames = np.random.default_rng(h * 64 + w).random((n, 3, h, w), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(frames)).numpy()
    assert np.abs(run(frames) - expected).max() < 1e-5


_cases: list = []


def any_size_case():
    if not _cases:
        network, spec = tiny()
        model = trace(network, spec)
        run_passes(model)
        _cases.append((network, float_runner(model)))
    return _cases[0]


def test_layernorm_pass_changes_nothing(traced) -> None:
    """The same function before and after, at sizes of every kind, and no transpose left."""
    model, _, _ = traced
    rewritten = copy(model)
    report = rewrite_layernorm(rewritten)
    assert len(report.rewritten) == 2
    assert not report.refused
    kinds = [node.op_type for node in rewritten.graph.node]
    assert "Transpose" not in kinds
    assert "LayerNormalization" not in kinds
    before, after = float_runner(model), float_runner(rewritten)
    rng = np.random.default_rng(0)
    for shape in [(1, 3, 1, 1), (2, 3, 5, 7), (1, 3, 33, 12)]:
        x = rng.random(shape, dtype=np.float32)
        assert np.abs(before(x) - after(x)).max() < 2e-6


def test_layernorm_pass_keeps_tensor_names(traced) -> None:
    """The network can be rebuilt from the rewritten file, to the last bit."""
    model, network, spec = traced
    rewritten = copy(model)
    run_passes(rewritten)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in rewritten.graph.initializer}
    rebuilt, digest = network_from_arrays(spec, arrays)
    assert digest == spec.weights_sha256
    for name, tensor in network.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], tensor)


def test_equal_tensors_keep_their_names() -> None:
    """An untrained network is full of them: zero biases, gains of 0.1."""
    torch.manual_seed(0)
    family = architecture("vapsr")
    config = VapSRConfig(4, 8, 3, 8)
    network = family.build(config).eval().requires_grad_(False)
    spec = describe(family, config, network, "random")
    model = trace(network, spec)
    assert len(run_passes(model)["channel-layernorm"].rewritten) == 3
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert network_from_arrays(spec, arrays)[1] == spec.weights_sha256


def test_pass_off_switch_and_unknown_pass(traced) -> None:
    model, _, _ = traced
    untouched = copy(model)
    assert run_passes(untouched, without=pass_names()) == {}
    assert untouched == model
    with pytest.raises(ExportError, match="no graph pass"):
        run_passes(untouched, without=["nonsense"])
    assert open_pass("channel-layernorm").run is rewrite_layernorm


def layernorm_graph(**changes) -> onnx.ModelProto:
    """Transpose, LayerNormalization, Transpose, with one thing made different."""
    perm = changes.get("perm", [0, 2, 3, 1])
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], "t", perm=perm),
        onnx.helper.make_node(
            "LayerNormalization", ["t", "s", "b"], ["n"], "norm", axis=changes.get("axis", -1)
        ),
        onnx.helper.make_node("Transpose", ["n"], ["y"], "u", perm=[0, 3, 1, 2]),
    ]
    outputs = ["y"]
    if changes.get("second_use"):
        nodes.append(onnx.helper.make_node("Relu", ["n"], ["z"], "r"))
        outputs.append("z")
    value = onnx.helper.make_tensor_value_info
    size = 4
    weights = [onnx.numpy_helper.from_array(np.ones(size, np.float32), n) for n in "sb"]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", 1, [1, size, size, size])],
        [value(o, 1, [1, size, size, size]) for o in outputs],
        weights,
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"perm": [0, 1, 3, 2]}, "no transpose to channels-last"),
        ({"axis": 2}, "axis 2"),
        ({"second_use": True}, "alone"),
    ],
)
def test_layernorm_pass_says_why_it_refuses(changes, reason: str) -> None:
    model = layernorm_graph(**changes)
    before = copy(model)
    report = rewrite_layernorm(model)
    assert report.rewritten == []
    assert reason in report.refused["norm"]
    assert [n.op_type for n in model.graph.node] == [n.op_type for n in before.graph.node]


def test_verify_catches_a_difference(traced) -> None:
    model, network, spec = traced
    broken = copy(model)
    for tensor in broken.graph.initializer:
        if tensor.name == "conv_first.bias":
            values = onnx.numpy_helper.to_array(tensor) + 0.01
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ExportError, match="differs from PyTorch"):
        verify(broken, network, default_sizes(spec))


def test_static_export(traced) -> None:
    _, network, spec = traced
    model = trace(network, spec, size=(9, 14))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 3, 9, 14]
    verify(model, network, [(1, 9, 14)])


@pytest.mark.parametrize("opset", [17, 24])
def test_opset_out_of_range(opset: int, traced) -> None:
    _, network, spec = traced
    with pytest.raises(ExportError, match="opset"):
        trace(network, spec, opset=opset)


def test_fp16_stays_close_and_keeps_variance_in_fp32(traced) -> None:
    model, network, _ = traced
    rewritten = copy(model)
    run_passes(rewritten)
    low = lower(rewritten, Precision.FP16)
    kinds = {t.name: t.data_type for t in low.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds.values()
    assert [n for n in low.graph.node if kept_in_fp32(n)], "the squares must stay fp32"
    x = np.random.default_rng(0).random((1, 3, 21, 18), dtype=np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    got = float_runner(low)(x)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() < 5e-3


def test_bf16_graph_is_typed(traced) -> None:
    model, _, _ = traced
    low = lower(model, Precision.BF16)
    inferred = onnx.shape_inference.infer_shapes(low, strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    by_name = {n.name: n for n in low.graph.node}
    assert kinds[by_name["body.0.proj_1"].output[0]] == onnx.TensorProto.BFLOAT16
    # the layers that touch pixels stay float32
    assert kinds[by_name["conv_first"].output[0]] == onnx.TensorProto.FLOAT
    assert low.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_weights_beyond_fp16_are_refused(traced) -> None:
    model, _, _ = traced
    broken = copy(model)
    for tensor in broken.graph.initializer:
        if tensor.name == "body.1.proj_2.bias":
            values = onnx.numpy_helper.to_array(tensor) + 1e5
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ExportError, match=r"body\.1\.proj_2\.bias.*65504"):
        lower(broken, Precision.FP16)


def test_pixels_round_and_clamp() -> None:
    """An identity network returns every code value, and values beyond are clamped."""
    value = onnx.helper.make_tensor_value_info
    one = onnx.numpy_helper.from_array(np.array(1.5, np.float32), "gain")
    half = onnx.numpy_helper.from_array(np.array(-0.25, np.float32), "shift")
    for gain_nodes, expect in (
        ([onnx.helper.make_node("Identity", ["x"], ["y"], "i")], lambda c: c),
        (
            [
                onnx.helper.make_node("Mul", ["x", "gain"], ["m"], "m"),
                onnx.helper.make_node("Add", ["m", "shift"], ["y"], "a"),
            ],
            lambda c: np.rint(np.clip(c / np.float32(255) * 1.5 - 0.25, 0, 1) * 255),
        ),
    ):
        shape = ["N", 3, "H", "W"]
        graph = onnx.helper.make_graph(
            gain_nodes, "g", [value("x", 1, shape)], [value("y", 1, shape)], [one, half]
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        )
        engine = with_pixels(model)
        import onnxruntime as ort

        session = ort.InferenceSession(engine.SerializeToString())
        codes = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
        got = session.run(None, {"frames": codes})[0]
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - expect(codes.astype(np.float32))).max() <= (
            0 if len(gain_nodes) == 1 else 1
        )


def test_model_files_from_strangers(traced, tmp_path) -> None:
    model, _, spec = traced
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_model(path)[1] == spec
    foreign = copy(model)
    del foreign.metadata_props[:]
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(ModelFileError, match="not made by srdeploy"):
        read_model(path)
    for content in (b"", b"plain text", model.SerializeToString()[:-500]):
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            read_model(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path / "absent.onnx")
