"""Puts the pixels into the graph: uint8 N×H×W×3 in and out, as frames come and go.

Conversion, layout, clamp and rounding then run inside the engine, where they are fused or
at least parallel, and no caller can get the range wrong.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import ExportError


def with_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the engine graph of an exported model.

    Args:
        model: One input and one output, float32 N×3×H×W RGB in [0, 1].

    Returns:
        The same network from ``frames``, uint8 N×H×W×3, to ``upscaled``, uint8
        N×(sH)×(sW)×3, clamped and rounded to the nearest (ties to even).

    Raises:
        ExportError: The model has other inputs or outputs.
    """
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise ExportError(
            f"expected one input and one output, got {len(graph.input)} and {len(graph.output)}"
        )
    source, sink = graph.input[0], graph.output[0]
    for value in (source, sink):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise ExportError(f"expected float32 in and out, '{value.name}' is of another type")
    before = [
        helper.make_node("Cast", ["frames"], ["pixels/float"], "pixels/cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["pixels/float"], ["pixels/planar"], "pixels/to_planar", perm=[0, 3, 1, 2]
        ),
        helper.make_node("Mul", ["pixels/planar", "pixels/1_255"], [source.name], "pixels/unit"),
    ]
    after = [
        helper.make_node("Clip", [sink.name, "pixels/0", "pixels/1"], ["pixels/c"], "pixels/clamp"),
        helper.make_node("Mul", ["pixels/c", "pixels/255"], ["pixels/m"], "pixels/codes"),
        helper.make_node("Round", ["pixels/m"], ["pixels/r"], "pixels/round"),
        helper.make_node(
            "Transpose", ["pixels/r"], ["pixels/i"], "pixels/to_interleaved", perm=[0, 2, 3, 1]
        ),
        helper.make_node(
            "Cast", ["pixels/i"], ["upscaled"], "pixels/to_uint8", to=TensorProto.UINT8
        ),
    ]
    nodes = [*before, *graph.node, *after]
    sizes_in, sizes_out = _sizes(source), _sizes(sink)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    for name, value in (("1_255", 1 / 255), ("255", 255.0), ("0", 0.0), ("1", 1.0)):
        tensor = numpy_helper.from_array(np.array(value, dtype=np.float32), f"pixels/{name}")
        graph.initializer.append(tensor)
    graph.input.append(_frames("frames", sizes_in))
    graph.output.append(_frames("upscaled", sizes_out))
    onnx.checker.check_model(wrapped, full_check=True)
    return wrapped


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    """N, C, H, W as numbers or names."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ExportError(f"'{value.name}' has {len(dims)} dimensions, expected N, 3, H, W")
    return [d.dim_param or d.dim_value for d in dims]


def _frames(name: str, sizes: list[int | str]) -> onnx.ValueInfoProto:
    n, _, h, w = sizes
    return helper.make_tensor_value_info(name, TensorProto.UINT8, [n, h, w, 3])
