"""fp16's range: what passes half of it is found at its pixel, and stays in float32."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from srdeploy import data
from srdeploy.calib.calibration_set import Origin, make_calibration_set
from srdeploy.calib.half_range import HALF_RANGE, LargeTensor, large_tensors
from srdeploy.calib.observers import OBSERVERS
from srdeploy.calib.pictures import NamedPicture, as_input
from srdeploy.calib.ranges import collect_ranges
from srdeploy.errors import DatasetError, ExportError
from srdeploy.export.macs import int8_mac_share
from srdeploy.export.passes import run_passes
from srdeploy.export.precision import kept_in_fp32, lower, pin_touching
from srdeploy.export.quantise import activations, quantise
from srdeploy.export.trace import trace
from srdeploy.models.weights.resolve import load
from srdeploy.plugins import DOMAIN, NAMESPACE, VERSION
from srdeploy.plugins.onnx_functions import attach_functions, inline_functions
from srdeploy.runtime.targets.onnxruntime import float_runner, typed_runner
from srdeploy.spec import Precision
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import shrink

SIZE = (24, 40)


@cache
def bundled_crops():
    pictures = [NamedPicture(p.name, p.read()) for p in data.pictures("calibration")]
    made = make_calibration_set(pictures, SIZE, 3, 0)
    return made.crops, made.origins


@cache
def proof(scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A piece of each bundled picture that nothing was chosen on: LR of 45×60, and HR."""
    pairs = []
    for picture in data.pictures("proof"):
        pixels = picture.read()
        top, left = (
            n // 2 - edge * scale // 2 for n, edge in zip(pixels.shape, (45, 60), strict=False)
        )
        hr = pixels[top : top + 45 * scale, left : left + 60 * scale]
        pairs.append((shrink(hr, scale), hr))
    return pairs


def quality(upscale, scale: int) -> float:
    """Mean PSNR-Y in dB of a function uint8 H×W×3 to the same, larger."""
    return float(
        np.mean(
            [
                psnr(cut_border(luma(upscale(lr)), scale), cut_border(luma(hr), scale))
                for lr, hr in proof(scale)
            ]
        )
    )


def pixels_of(run):
    """A float runner as a function of pixels."""

    def upscale(frame):
        out = np.clip(np.nan_to_num(run(as_input(frame[None]))[0]), 0, 1) * np.float32(255)
        return np.rint(out).astype(np.uint8).transpose(1, 2, 0)

    return upscale


def drift(run, model: onnx.ModelProto, scale: int) -> float:
    return quality(pixels_of(run), scale) - quality(pixels_of(float_runner(model)), scale)


def pinned_for(model: onnx.ModelProto, found) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    pinned = onnx.ModelProto()
    pinned.CopyFrom(model)
    return pinned, pin_touching(pinned, {t.tensor for t in found}, {t.node for t in found})


@cache
def scaled(factor: float) -> onnx.ModelProto:
    """The same function as vapsr-tiny-x4, with ``factor`` between the last two convolutions."""
    network, spec = load("vapsr-tiny", 4)
    with torch.no_grad():
        network.upsampler[0].weight.mul_(factor)
        network.upsampler[0].bias.mul_(factor)
        network.upsampler[3].weight.div_(factor)
    model = trace(network, spec)
    run_passes(model, ())
    return model


UPSAMPLER = ("upsampler.0", "upsampler.1/DepthToSpace", "upsampler.2/LeakyRelu", "upsampler.3")


@pytest.mark.parametrize("weights_too", [False, True])
def test_islands_save_a_network_that_fp16_breaks(weights_too: bool) -> None:
    model = scaled(3e5 if weights_too else 7e4)
    if weights_too:
        with pytest.raises(ExportError, match=r"the weight upsampler\.0\..*65504"):
            lower(model, Precision.FP16)
    else:
        plain = typed_runner(lower(model, Precision.FP16))
        assert not np.isfinite(plain(as_input(proof(4)[0][0][None]))).all()
        assert drift(plain, model, 4) < -1
    found = large_tensors(model, *bundled_crops())
    assert {"conv2d_27", "pixel_shuffle", "leaky_relu"} <= {t.tensor for t in found}
    assert "upsampler.0.weight" in {t.tensor for t in found if not t.picture}
    assert [t.magnitude for t in found] == sorted((t.magnitude for t in found), reverse=True)
    pinned, names = pinned_for(model, found)
    assert names == UPSAMPLER
    assert abs(drift(typed_runner(lower(pinned, Precision.FP16)), model, 4)) < 0.01
    assert not any(kept_in_fp32(n) for n in model.graph.node if n.name in UPSAMPLER)


def test_int8_around_islands_stays_int8() -> None:
    """The last convolution reads what fp16 cannot hold; its int8 codes can."""
    model = onnx.ModelProto()
    model.CopyFrom(scaled(1.0))
    for tensor in model.graph.initializer:
        if tensor.name in ("upsampler.0.weight", "upsampler.0.bias", "upsampler.3.bias"):
            values = numpy_helper.to_array(tensor) * np.float32(1e6)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1e-6), "less"))
    model.graph.node[-1].output[0] = "loud"
    model.graph.node.append(helper.make_node("Mul", ["loud", "less"], ["sr"], "shrink"))
    crops, _ = bundled_crops()
    ranges = collect_ranges(model, crops, activations(model), OBSERVERS["percentile"]).bounds
    quantised = quantise(model, ranges, rest=Precision.FP16)
    expected = float_runner(quantised)(as_input(crops[:1]))
    with pytest.raises(ExportError, match="65504"):
        lower(quantised, Precision.FP16)
    found = large_tensors(quantised, *bundled_crops())
    pictures = {t.tensor: bool(t.picture) for t in found}
    assert pictures["upsampler.0.weight/int8_axis0/dequantised"] is False
    assert pictures["leaky_relu/int8/dequantised"] is True
    pinned, names = pinned_for(quantised, found)
    assert {"upsampler.0", "upsampler.3", "shrink"} <= set(names)
    assert "conv_body" not in names
    low = lower(pinned, Precision.FP16)
    assert int8_mac_share(low) == int8_mac_share(quantised) == 1.0
    assert np.abs(typed_runner(low)(as_input(crops[:1])) - expected).max() < 0.05


def network_of(nodes, constants=()) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ("n", 3, "h", "w"))],
        [value("y", TensorProto.FLOAT, ("n", "c", "a", "b"))],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


def test_picture_and_pixel() -> None:
    """One pixel is bright, in the second crop, green; every tensor says where."""
    weight = np.zeros((8, 3, 1, 1), np.float32)
    weight[5, 1] = -40_000
    node = helper.make_node
    model = network_of(
        [
            node("Conv", ["x", "weight"], ["wide"], "conv"),
            node("DepthToSpace", ["wide"], ["large"], "shuffle", blocksize=2, mode="CRD"),
            node("Transpose", ["wide"], ["last"], "turn", perm=[0, 2, 3, 1]),
            node("Flatten", ["wide"], ["flat"], "flatten"),
            node("Neg", ["wide"], ["negative"], "negate"),
            node("Mul", ["large", "small"], ["shrunk"], "shrink"),
            node("Identity", ["shrunk"], ["y"], "end"),
        ],
        constants=[("weight", weight), ("small", np.float32(1e-5)), ("unused", np.float32(9e4))],
    )
    crops = np.zeros((3, 24, 40, 3), np.uint8)
    crops[1, 11, 17] = (0, 255, 0)
    crops[2, 3, 3] = (255, 230, 255)
    origins = [Origin("dark", 0, 0), Origin("bright", 100, 200), Origin("dim", 5, 6)]
    calls = []
    found = large_tensors(model, crops, origins, lambda *call: calls.append(call))
    assert calls[-1] == ("checking fp16's range", 3, 3)
    by_name = {t.tensor: t for t in found}
    assert set(by_name) == {"wide", "large", "last", "flat", "negative", "weight"}
    place = (40_000.0, "bright", 111, 217)
    assert by_name["wide"] == LargeTensor("wide", "conv", *place, 5)
    assert by_name["negative"] == LargeTensor("negative", "negate", *place, 5)
    assert by_name["last"] == LargeTensor("last", "turn", *place, 5)
    assert by_name["large"] == LargeTensor("large", "shuffle", *place, 1)
    assert by_name["flat"] == LargeTensor("flat", "flatten", 40_000.0, "bright")
    assert by_name["weight"] == LargeTensor("weight", "conv", 40_000.0)


@pytest.mark.parametrize(("value", "found"), [(HALF_RANGE, 0), (HALF_RANGE + 1, 1)])
def test_the_limit_is_half_of_the_range(value: float, found: int) -> None:
    node = helper.make_node
    model = network_of(
        [
            node("Mul", ["x", "gain"], ["wide"], "a"),
            node("Sub", ["x", "wide"], ["z"], "b"),
            node("Identity", ["x"], ["y"], "c"),
        ],
        constants=[("gain", np.float32(value))],
    )
    crops = np.full((1, 24, 40, 3), 255, np.uint8)
    names = [t.tensor for t in large_tensors(model, crops, [Origin("white", 0, 0)])]
    assert sorted(names) == ["gain", "wide"] * found


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_what_is_not_finite_is_an_error(op: str) -> None:
    """An infinity, and one NaN among numbers."""
    node = helper.make_node
    model = network_of(
        [
            node("Sub", ["x", "half"], ["shifted"], "shift"),
            node(op, ["x" if op == "Log" else "shifted"], ["wrong"], op),
            node("Identity", ["x"], ["y"], "end"),
        ],
        constants=[("half", np.float32(0.5))],
    )
    crops = np.full((1, 24, 40, 3), 200, np.uint8)
    crops[0, 3, 4] = 0
    with pytest.raises(DatasetError, match="wrong is not finite"):
        large_tensors(model, crops, [Origin("p", 0, 0)])


def test_origins_must_fit() -> None:
    model = network_of([helper.make_node("Identity", ["x"], ["y"], "same")])
    with pytest.raises(DatasetError, match="0 calibration crops"):
        large_tensors(model, np.zeros((0, 24, 40, 3), np.uint8), [])
    with pytest.raises(DatasetError, match="2 calibration crops with 1"):
        large_tensors(model, np.zeros((2, 24, 40, 3), np.uint8), [Origin("p", 0, 0)])


def around(op: str, inputs, outputs, constants, **attributes) -> onnx.ModelProto:
    """A custom op between other nodes, with its body."""
    plugin = {"plugin_namespace": NAMESPACE, "plugin_version": VERSION}
    node = helper.make_node(op, inputs, ["made"], op, domain=DOMAIN, **attributes, **plugin)
    model = network_of([*outputs[0], node, *outputs[1]], constants=constants)
    attach_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_inside_a_custom_op() -> None:
    """OCA's queries and keys fit, their products do not: the op becomes an island."""
    node = helper.make_node
    before = [
        node("Transpose", ["x"], ["v"], "turn", perm=[0, 2, 3, 1]),
        node("Mul", ["v", "gain"], ["q"], "scale"),
    ]
    after = [node("Transpose", ["made"], ["y"], "back", perm=[0, 3, 1, 2])]
    constants = [("gain", np.float32(300)), ("bias", np.zeros((81, 1), np.float32))]
    sizes = {"window": 4, "overlap": 2, "heads": 1}
    model = around("oca", ["q", "q", "v", "bias"], (before, after), constants, **sizes)
    found = large_tensors(model, *bundled_crops())
    assert {t.node for t in found} == {"oca"}
    assert not {"q", "v", "made", "y"} & {t.tensor for t in found}
    crop = as_input(bundled_crops()[0][:1])
    plain = inline_functions(lower(model, Precision.FP16))
    assert not np.isfinite(typed_runner(plain)(crop)).all()
    pinned, names = pinned_for(model, found)
    assert names == ("oca",)
    exact = float_runner(model)(crop)
    saved = typed_runner(inline_functions(lower(pinned, Precision.FP16)))(crop)
    assert np.isfinite(saved).all()
    assert np.mean(np.abs(saved - exact)) < 5e-3


def test_what_a_custom_op_sums_in_float32_is_no_case() -> None:
    """ENLA's sums over all pixels are float32 in its body, whatever the node's type."""
    node = helper.make_node
    before = [node("Mul", ["x", "gain"], ["v"], "scale")]
    after = [node("Mul", ["made", "less"], ["y"], "shrink")]
    constants = [("gain", np.float32(2000)), ("less", np.float32(5e-4))]
    constants.append(("projection", np.eye(8, 3, dtype=np.float32)))
    model = around("enla", ["x", "x", "v", "projection"], (before, after), constants, eps=1e-4)
    assert large_tensors(model, *bundled_crops()) == ()
    written_out = large_tensors(inline_functions(model), *bundled_crops())
    assert {t.row for t in written_out} == {None}
    crop = as_input(bundled_crops()[0][:1])
    exact = float_runner(model)(crop)
    assert np.abs(typed_runner(lower(model, Precision.FP16))(crop) - exact).max() < 5e-3


MEMORY = """
import resource
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from srdeploy.calib.half_range import large_tensors
from srdeploy.calib.calibration_set import Origin

names = ["x", *(f"t{i}" for i in range(60)), "y"]
nodes = [
    helper.make_node("Mul", [a, "gain"], [b], b) for a, b in zip(names, names[1:], strict=False)
]
value = helper.make_tensor_value_info
ends = [[value(n, TensorProto.FLOAT, ["n", 3, "h", "w"])] for n in ("x", "y")]
gain = numpy_helper.from_array(np.float32(GAIN), "gain")
graph = helper.make_graph(nodes, "g", *ends, [gain])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
model.ir_version = 10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = large_tensors(
    model, np.full((1, 1000, 1000, 3), 255, np.uint8), [Origin("p", 0, 0)]
)
print(len(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(("gain", "count"), [(1.0, 0), (1.3, 22)])
def test_memory_does_not_grow_with_the_depth(gain: float, count: int) -> None:
    """Sixty tensors of 11 MiB; nearly all at once were over 600."""
    words = [sys.executable, "-c", MEMORY.replace("GAIN", str(gain))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found, grown = map(int, done.stdout.split())
    assert found == count
    assert grown < 200
