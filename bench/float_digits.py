"""Floats through an engine whose frames are bytes: each value as four digits to the base 256.

An engine takes and gives uint8 pixels, which hide an error below half a code value. Here the graph
reads each value from a square of 2×2 bytes and writes its result the same way, with more than the
24 bits of a float32, so that the engine is compared with float tensors on the path that frames
take: the same session, lanes and copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..runtime.session import Frames

DIGITS, BASE = 4, 256
LARGEST_INPUT = 2.0
"""Inputs are on [0, 2): golden ones reach 1 itself."""


def with_digits(model: onnx.ModelProto, low: float, high: float) -> onnx.ModelProto:
    """The engine graph of an exported model, floats in and out as digits.

    Args:
        model: One input and one output, float32 N×3×H×W; an fp16 or int8 one is float32 at its
            ends too.
        low: Least value that an output can have; what is lower becomes this.
        high: Largest, likewise.

    Returns:
        The same network from ``frames``, uint8 N×2H×2W×3, to ``upscaled``, uint8 N×2sH×2sW×3.
    """
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    source, sink = graph.input[0].name, graph.output[0].name
    nodes = [*_reading(source), *graph.node, *_writing(sink)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    constants = {
        "base": np.float32(BASE),
        "per_base": np.float32(1 / BASE),
        "largest": np.float32(LARGEST_INPUT),
        "low": np.float32(low),
        "per_span": np.float32(1 / (high - low)),
        "0": np.float32(0),
        "below_1": np.float32(1 - 2**-24),
        "each": np.full(DIGITS, 3, np.int64),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"digits/{name}"))
    for values, name in ((graph.input, "frames"), (graph.output, "upscaled")):
        dims: list[str | int | None] = ["n", f"{name}/height", f"{name}/width", 3]
        values.append(helper.make_tensor_value_info(name, TensorProto.UINT8, dims))
    onnx.checker.check_model(wrapped, full_check=True)
    return wrapped


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/node", **attributes)


def _reading(source: str) -> list[NodeProto]:
    """From bytes to the network's input, the lowest digit first."""
    digits = [f"digits/in{place}" for place in range(DIGITS)]
    nodes = [
        _node("Cast", ["frames"], ["digits/float"], to=TensorProto.FLOAT),
        _node("Transpose", ["digits/float"], ["digits/planar"], perm=[0, 3, 1, 2]),
        _node("SpaceToDepth", ["digits/planar"], ["digits/deep"], blocksize=2),
        _node("Split", ["digits/deep", "digits/each"], digits, axis=1),
    ]
    value = digits[-1]
    for place in reversed(range(DIGITS)):
        scaled = f"digits/scaled{place}"
        nodes.append(_node("Mul", [value, "digits/per_base"], [scaled]))
        value = scaled
        if place:
            value = f"digits/sum{place}"
            nodes.append(_node("Add", [scaled, digits[place - 1]], [value]))
    return [*nodes, _node("Mul", [value, "digits/largest"], [source])]


def _writing(sink: str) -> list[NodeProto]:
    """From the network's output to bytes, the highest digit first."""
    nodes = [
        _node("Sub", [sink, "digits/low"], ["digits/above"]),
        _node("Mul", ["digits/above", "digits/per_span"], ["digits/share"]),
        _node("Clip", ["digits/share", "digits/0", "digits/below_1"], ["digits/rest0"]),
    ]
    for place in range(DIGITS):
        rest, up, digit = f"digits/rest{place}", f"digits/up{place}", f"digits/out{place}"
        nodes.append(_node("Mul", [rest, "digits/base"], [up]))
        nodes.append(_node("Floor", [up], [digit]))
        if place + 1 < DIGITS:
            nodes.append(_node("Sub", [up, digit], [f"digits/rest{place + 1}"]))
    digits = [f"digits/out{place}" for place in range(DIGITS)]
    return [
        *nodes,
        _node("Concat", digits, ["digits/all"], axis=1),
        _node("DepthToSpace", ["digits/all"], ["digits/flat"], blocksize=2),
        _node("Transpose", ["digits/flat"], ["digits/interleaved"], perm=[0, 2, 3, 1]),
        _node("Cast", ["digits/interleaved"], ["upscaled"], to=TensorProto.UINT8),
    ]


def to_digits(values: NDArray[np.float32]) -> Frames:
    """Inputs N×3×H×W on [0, 2) as frames N×2H×2W×3."""
    n, _, height, width = values.shape
    codes = np.floor(values.astype(np.float64) / LARGEST_INPUT * float(BASE) ** DIGITS)
    codes = codes.astype(np.uint64).transpose(0, 2, 3, 1)
    frames = np.empty((n, 2 * height, 2 * width, 3), np.uint8)
    for place in range(DIGITS):
        digit = (codes >> np.uint64(8 * (DIGITS - 1 - place))) & np.uint64(BASE - 1)
        frames[:, place // 2 :: 2, place % 2 :: 2] = digit
    return frames


def from_digits(frames: Frames, low: float, high: float) -> NDArray[np.float64]:
    """Outputs N×3×sH×sW of frames N×2sH×2sW×3."""
    share = np.zeros((frames.shape[0], frames.shape[1] // 2, frames.shape[2] // 2, 3))
    for place in range(DIGITS):
        share += frames[:, place // 2 :: 2, place % 2 :: 2] * float(BASE) ** -(place + 1)
    values: NDArray[np.float64] = (low + share * (high - low)).transpose(0, 3, 1, 2)
    return values
