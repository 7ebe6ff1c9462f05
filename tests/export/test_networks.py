"""Every network through the exporter: golden values, any size, fp16, and back to PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import numpy_helper
from srdeploy import data
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.half_range import large_tensors
from srdeploy.calib.pictures import NamedPicture, as_input
from srdeploy.errors import BuildError, EngineError
from srdeploy.export.passes import run_passes
from srdeploy.export.pixels import with_pixels
from srdeploy.export.precision import kept_in_fp32, lower, pin_touching
from srdeploy.export.quantise import activations, quantise
from srdeploy.export.trace import trace
from srdeploy.export.verify import TOLERANCE, verify
from srdeploy.models import all_variants
from srdeploy.models.weights.checkpoint import network_from_arrays
from srdeploy.models.weights.resolve import load, random_network
from srdeploy.plugins.onnx_functions import inline_functions
from srdeploy.runtime.targets import open_target, tensorrt_rtx
from srdeploy.runtime.targets.onnxruntime import float_runner, typed_runner
from srdeploy.spec import BuildConfig, Manifest, Precision, ShapeRange
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import shrink
from srdeploy.validate.torch_session import TorchSession

_TRACED: dict[str, onnx.ModelProto] = {}


@pytest.fixture
def exported(traced) -> onnx.ModelProto:
    """The golden network as ONNX, traced once."""
    if traced.name not in _TRACED:
        model = trace(traced.network, traced.spec)
        run_passes(model, ())
        _TRACED[traced.name] = model
    return _TRACED[traced.name]


def test_golden_values_in_onnx_runtime(traced, exported) -> None:
    run = float_runner(exported)
    for lr, expected in traced.pairs:
        got = run(lr.numpy())
        wanted = expected.numpy()
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() / (wanted.max() - wanted.min()) < 2e-5


def test_any_size(traced, exported) -> None:
    """Strips of the least height and width, odd and prime sizes, whole windows, batches."""
    m = traced.spec.minimum_size
    edges = [(m, m), (m, m + 1), (m + 1, m), (m, 41), (37, m), (m, 64), (64, m)]
    middle = [(11, 13), (13, 17), (16, 16), (17, 23), (19, 19), (23, 16), (24, 31), (29, 37)]
    larger = [(31, 32), (33, 33), (40, 48), (43, 29), (47, 53), (64, 64), (59, 61)]
    sizes = [(h, w) for h, w in (*edges, *middle, *larger) if min(h, w) >= m]
    assert len(set(sizes)) >= 20
    batched = [(n, h, w) for i, (h, w) in enumerate(sizes) for n in ([1, 3] if i % 3 == 0 else [1])]
    errors = verify(exported, traced.network, batched, TOLERANCE)
    assert len(errors) == len(set(batched))


def test_golden_values_in_openvino(traced, exported) -> None:
    """What its target compiles: the bodies of the custom ops written into the graph."""
    core = openvino.Core()
    model = core.read_model(inline_functions(exported).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for lr, expected in traced.pairs:
        got, wanted = np.array(compiled(lr.numpy())[0]), expected.numpy()
        assert np.abs(got - wanted).max() / (wanted.max() - wanted.min()) < 2e-5


def test_openvino_agrees(traced, exported) -> None:
    """Where windows are padded as where they are not; uint8 in and out."""
    target = open_target("openvino")
    graph = with_pixels(exported).SerializeToString()
    config = BuildConfig("", target.name, target.version(), Precision.FP32)
    manifest = Manifest(config, traced.spec, "", "golden.engine", "")
    reference = TorchSession(traced.network, traced.spec)
    with target.open(target.build(graph, config).content, manifest) as session:
        for height, width in ((32, 48), (29, 37), (traced.spec.minimum_size, 21)):
            frames = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
            difference = session.upscale(frames).astype(int) - reference.upscale(frames)
            assert np.abs(difference).max() <= 1


def test_no_size_is_written_into_the_graph(traced, exported) -> None:
    """What is constant holds no picture's extent: N, H and W stay symbols to the end."""
    value = exported.graph.output[0].type.tensor_type.shape.dim
    assert not any(dim.HasField("dim_value") for dim in (value[0], value[2], value[3]))
    assert not [n for n in exported.graph.node if n.op_type in ("SplitToSequence", "SequenceAt")]


def test_the_network_comes_back_from_the_file(traced, exported) -> None:
    arrays = {t.name: numpy_helper.to_array(t) for t in exported.graph.initializer}
    network, digest = network_from_arrays(traced.spec, arrays)
    assert digest == traced.spec.weights_sha256
    lr, _ = traced.pairs[0]
    with torch.inference_mode():
        assert torch.equal(network(lr), traced.network(lr))


CUSTOM = {"hat": "oca", "enlcn": "enla"}
ATTENTIONS = {"OverlapAttention", "LinearAttention"}


def test_each_attention_is_one_node(traced, exported) -> None:
    """As many custom nodes as the network has attentions, named after them; none inlined."""
    kinds = [node.op_type for node in exported.graph.node if node.domain]
    modules = [m for m in traced.network.modules() if type(m).__name__ in ATTENTIONS]
    assert kinds == [CUSTOM.get(traced.family.name)] * len(modules)
    plain = inline_functions(exported)
    assert not plain.functions
    assert not [node for node in plain.graph.node if node.domain]
    assert [o.domain for o in plain.opset_import] == [""]
    lr, _ = traced.pairs[0]
    assert np.abs(float_runner(plain)(lr.numpy()) - float_runner(exported)(lr.numpy())).max() < 1e-5


def test_below_the_least_size_is_an_error(traced) -> None:
    m = traced.spec.minimum_size
    session = TorchSession(traced.network, traced.spec)
    assert session.upscale(np.zeros((1, m, m, 3), np.uint8)).shape[1] == m * traced.spec.scale
    for height, width in ((m - 1, m), (m, m - 1)):
        frames = np.zeros((1, height, width, 3), np.uint8)
        with pytest.raises(EngineError, match=f"at least {m}|not be empty"):
            session.upscale(frames)


def test_static_export_is_smaller_and_equal(traced, exported) -> None:
    static = trace(traced.network, traced.spec, size=(24, 32))
    assert len(static.graph.node) <= len(exported.graph.node)
    assert "Shape" not in {node.op_type for node in static.graph.node}
    x = np.random.default_rng(0).random((1, 3, 24, 32), dtype=np.float32)
    assert np.abs(float_runner(static)(x) - float_runner(exported)(x)).max() < 1e-5


TINY = [v for _, v in all_variants() if v.tiny]


@cache
def tiny(name: str):
    """A bundled trained network, its spec, and its ONNX."""
    variant = next(v for v in TINY if v.name == name)
    network, spec = load(variant.model, variant.scale)
    model = trace(network, spec)
    run_passes(model, ())
    return network, spec, model


@cache
def picture() -> np.ndarray:
    """A real photograph, 1×3×60×80 on [0, 1]."""
    whole = next(p for p in data.pictures("proof") if p.name.startswith("china")).read()
    small = shrink(whole[60:360, 100:500], 5)
    return np.ascontiguousarray(small.transpose(2, 0, 1)[None], np.float32) / 255


@pytest.mark.parametrize("variant", TINY, ids=lambda v: v.name)
def test_fp16_is_as_good_as_pytorch_s(variant) -> None:
    """Every tensor stored in its type; against float64, beside plain PyTorch in fp16."""
    network, _, model = tiny(variant.name)
    x = torch.from_numpy(picture())
    with torch.inference_mode():
        exact = copy.deepcopy(network).double()(x.double()).numpy()
        plain = copy.deepcopy(network).half()(x.half()).float().numpy()
    ours = typed_runner(lower(model, Precision.FP16))(picture())
    error = float(np.sqrt(np.mean((ours - exact) ** 2)))
    plain_error = float(np.sqrt(np.mean((plain - exact) ** 2)))
    assert np.isfinite(ours).all()
    assert error < 5e-3
    if variant.name.startswith("han"):  # its layer attention overflows
        assert not np.isfinite(plain).all()
    else:
        assert error <= 2 * plain_error


@cache
def proof(scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A piece of each bundled picture that nothing was chosen on: LR of 32×40, and HR."""
    pairs = []
    for bundled in data.pictures("proof"):
        pixels = bundled.read()
        top, left = (pixels.shape[0] - 32 * scale) // 2, (pixels.shape[1] - 40 * scale) // 2
        hr = pixels[top : top + 32 * scale, left : left + 40 * scale]
        pairs.append((shrink(hr, scale), hr))
    return pairs


def mean_psnr(upscale: Callable[[np.ndarray], np.ndarray], scale: int) -> float:
    """Over :func:`proof`, of a function from uint8 1×H×W×3 to the same, larger."""
    values = [
        psnr(cut_border(luma(upscale(lr[None])[0]), scale), cut_border(luma(hr), scale))
        for lr, hr in proof(scale)
    ]
    return float(np.mean(values))


def pixels_of(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A runner of planes on [0, 1] as one of pixels."""

    def upscale(frames: np.ndarray) -> np.ndarray:
        codes = np.clip(run(as_input(frames)), 0, 1) * np.float32(255)
        return np.rint(codes).astype(np.uint8).transpose(0, 2, 3, 1)

    return upscale


@pytest.mark.parametrize("variant", TINY, ids=lambda v: v.name)
def test_drift_of_fp16_and_bf16(variant) -> None:
    """Within 0.01 and 0.03 dB of float32; fp16 with every tensor stored in its type."""
    _, spec, model = tiny(variant.name)
    scale = spec.scale
    exact = mean_psnr(pixels_of(float_runner(model)), scale)
    fp16 = mean_psnr(pixels_of(typed_runner(lower(model, Precision.FP16))), scale)
    target = open_target("openvino")
    graph = with_pixels(lower(model, Precision.BF16)).SerializeToString()
    config = BuildConfig("", target.name, target.version(), Precision.BF16, Precision.BF16)
    manifest = Manifest(config, spec, "", "tiny.engine", "")
    with target.open(target.build(graph, config).content, manifest) as session:
        bf16 = mean_psnr(session.upscale, scale)
    assert 0 < abs(fp16 - exact) <= 0.01
    assert 0 < abs(bf16 - exact) <= 0.03


@pytest.mark.parametrize("variant", TINY, ids=lambda v: v.name)
def test_what_passes_half_of_fp16_s_range(variant) -> None:
    """Nothing but HAN's layer attention, which its spec keeps in float32 already."""
    _, _, model = tiny(variant.name)
    bundled = [NamedPicture(p.name, p.read()) for p in data.pictures("calibration")]
    made = make_calibration_set(bundled, (24, 40), 2, 0)
    found = large_tensors(model, made.crops, made.origins)
    attention = {"la/MatMul", "la/ReduceMax", "la/Sub"}
    assert {t.node for t in found} == (attention if variant.name.startswith("han") else set())
    assert all(t.row is None and t.picture for t in found)
    pinned = onnx.ModelProto()
    pinned.CopyFrom(model)
    assert pin_touching(pinned, {t.tensor for t in found}, {t.node for t in found}) == ()
    assert pinned == model


def test_without_its_islands_han_overflows_as_pytorch_does() -> None:
    _, _, model = tiny("han-tiny-x4")
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    assert any(kept_in_fp32(node) for node in bare.graph.node)
    for node in bare.graph.node:
        del node.metadata_props[:]
    assert not np.isfinite(typed_runner(lower(bare, Precision.FP16))(picture())).all()


DYNAMIC, STATIC = ShapeRange((16, 16), (64, 64), (256, 256)), ShapeRange.static(48, 64)


@pytest.mark.parametrize("shapes", [DYNAMIC, STATIC], ids=["dynamic", "static"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("variant", TINY, ids=lambda v: v.name)
def test_tensorrt_rtx_builds(variant, precision: Precision, shapes: ShapeRange) -> None:
    """Built for every capability that has the kernels, each layer as asked; not executed."""
    _, _, model = tiny(variant.name)
    rest = Precision.FP16 if precision is Precision.INT8 else precision
    if precision is Precision.INT8:  # Q/DQ with fp16 around them, pixel shuffles in int8 included
        model = quantise(model, dict.fromkeys(activations(model), (-1.0, 1.0)), rest=rest)
    target = open_target("tensorrt-rtx")
    graph = with_pixels(lower(model, rest)).SerializeToString()
    # each capability takes as long again: which are chosen is tested below
    capabilities = ("8.9",) if shapes.is_static else ("8.6", "12.0")
    config = BuildConfig("", target.name, target.version(), precision, rest, (shapes,))
    built = target.build(graph, replace(config, capabilities=capabilities))
    assert built.device.endswith(", ".join(capabilities))
    tensorrt_rtx.check_header(built.content)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert size / 4 < len(built.content) < 2 * size * built.device.count(".") + (32 << 20)
    heavy = built.layers.nodes
    assert len(heavy) == sum(n.op_type in ("Conv", "MatMul", "Gemm") for n in plain_nodes(graph))
    assert {node.asked for node in heavy} >= {"int8" if precision is Precision.INT8 else rest}
    # the exceptions see one pixel: a layer of a channel attention behind its pooling
    differing = [node.node for node in heavy if node.differs]
    assert all("conv_du" in name or "attention.3" in name for name in differing), differing
    assert any("another precision" in note for note in built.notes) == bool(differing)
    assert "[VERBOSE]" in built.log


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("variant", TINY, ids=lambda v: v.name)
def test_capabilities_that_tensorrt_rtx_builds_for(variant, precision: Precision) -> None:
    """All but 7.5 where the library has no kernel for it, or builds int8 in fp16."""
    _, _, model = tiny(variant.name)
    rest = Precision.FP16 if precision is Precision.INT8 else precision
    graph = with_pixels(lower(model, rest)).SerializeToString()
    config = BuildConfig("", "tensorrt-rtx", "", precision, rest)
    chosen, notes = tensorrt_rtx.choose_capabilities(config, graph)
    needs_ampere = (
        precision is Precision.INT8
        or variant.name.startswith(("han", "enlcn"))
        or (variant.name.startswith("hat") and precision is Precision.FP32)
    )
    assert ("7.5" in chosen) == (not needs_ampere)
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(chosen)
    assert bool(notes) == needs_ampere
    if needs_ampere:
        with pytest.raises(BuildError, match=r"7\.5 left out"):
            tensorrt_rtx.choose_capabilities(replace(config, capabilities=("7.5", "8.9")), graph)


def plain_nodes(graph: bytes) -> Sequence[onnx.NodeProto]:
    """Nodes of a graph, local functions written in."""
    return inline_functions(onnx.load_model_from_string(graph)).graph.node


@pytest.mark.slow
@pytest.mark.parametrize("model", ["han", "enlcn", "hat"])
def test_full_size_networks_export_and_run(model: str) -> None:
    """x4 with random weights: traced, checked, compared with PyTorch at 64×64."""
    network, spec = random_network(model, 4)
    exported = trace(network, spec)
    run_passes(exported, ())
    assert set(verify(exported, network, [(1, 64, 64)])) == {(1, 64, 64)}


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("han-tiny-x4", {"MatMul", "Softmax", "ReduceMax", "Sub"}),
        ("enlcn-tiny-x4", {"ReduceL2", "Clip"}),
        ("hat-tiny-x4", {"Softmax"}),
    ],
)
def test_what_stays_in_fp32(name: str, kinds: set[str]) -> None:
    """The layer attention, the norms and the softmax; the convolutions do not.

    What the custom ops keep by themselves is tested in tests/plugins/test_onnx.py.
    """
    _, spec, model = tiny(name)
    kept = {node.op_type for node in model.graph.node if kept_in_fp32(node)}
    assert kinds <= kept
    assert "Conv" not in kept
    assert spec.fp32_nodes


def test_only_layers_read_int8(exported) -> None:
    """Residual sums, norms and custom ops see float on every side."""
    quantised = quantise(exported, dict.fromkeys(activations(exported), (-1.0, 1.0)))
    dequantised = {n.output[0] for n in quantised.graph.node if n.op_type == "DequantizeLinear"}
    weights = {
        n.output[0]
        for n in quantised.graph.node
        if n.op_type == "Transpose" and n.input[0] in dequantised
    }
    for node in quantised.graph.node:
        if dequantised & set(node.input):
            assert node.op_type in {"Conv", "MatMul"} or node.output[0] in weights, node.name
        if "int8/quantised" in " ".join(node.input):
            assert node.op_type in {"DequantizeLinear", "DepthToSpace"}
    both = [n for n in quantised.graph.node if n.op_type in {"Conv", "MatMul"}]
    for node in both:  # a layer is int8 with both operands or with none
        read = [name in dequantised | weights for name in node.input[:2]]
        assert all(read) or not any(read)
