"""Counts the multiply-accumulates of a graph, and how many of them run in int8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..errors import ExportError
from ..plugins.onnx_functions import inline_functions
from ..runtime.layers import asked_precisions

_COUNTED = ("Conv", "MatMul")
_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def macs(model: onnx.ModelProto, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of each Conv and MatMul node for one frame.

    Args:
        model: N×3×H×W or N×H×W×3 in; sizes that it fixes itself stay as they are.
        height: Of the input, in pixels.
        width: Likewise.

    Returns:
        Node name to count. Those inside a custom op count too, under names of their own.

    Raises:
        ExportError: ONNX's shape inference cannot tell the size of an output.
    """
    model = inline_functions(model)
    shapes = _shapes_at(model, height, width)
    return {
        node.name: _macs(node, shapes)
        for node in model.graph.node
        if node.op_type in _COUNTED and not node.domain
    }


def int8_mac_share(model: onnx.ModelProto) -> float:
    """Share of the Conv and MatMul MACs whose data and weight both come from DequantizeLinear.

    The ratio hardly depends on the picture's size; it is taken at 64×64.

    Raises:
        ExportError: As :func:`macs`.
    """
    model = inline_functions(model)
    precisions = asked_precisions(model)
    counts = macs(model, 64, 64)
    in_int8 = sum(count for name, count in counts.items() if precisions.get(name) == "int8")
    return in_int8 / max(sum(counts.values()), 1)


def shapes_at(model: onnx.ModelProto, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor for one frame; sizes that inference cannot tell are 0.

    Args:
        model: As for :func:`macs`; the insides of custom ops are listed too.
        height: Of the input, in pixels.
        width: Likewise.
    """
    return _shapes_at(inline_functions(model), height, width)


def _shapes_at(model: onnx.ModelProto, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Tensor name to shape; sizes that stay unknown are 0."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # holds the symbols that are about to become numbers
    sizes = iter((height, width))
    for index, dim in enumerate(fixed.graph.input[0].type.tensor_type.shape.dim):
        if not dim.HasField("dim_value"):
            # what is symbolic beyond H and W gets no size, and then inference says so
            dim.dim_value = 1 if index == 0 else next(sizes, 0)
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    while True:
        graph = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
        shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in [*graph.value_info, *graph.input, *graph.output]
        }
        if not _compute_sizes(fixed, shapes):
            return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _compute_sizes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Replace by its result every node that computes integers from known ones.

    ONNX's inference follows sizes through some operators only; a network that cuts its
    picture into windows computes with them through many.

    Returns:
        Whether there was one.
    """
    graph = model.graph
    known: dict[str, NDArray[Any]] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type in _INTEGERS
    }
    left: list[NodeProto] = []
    for node in graph.node:
        shape = shapes.get(node.input[0], ()) if node.op_type == "Shape" else ()
        if not (shape and 0 not in shape) and not all(name in known for name in node.input if name):
            left.append(node)
            continue
        feeds = {name: known[name] for name in node.input if name in known}
        if node.op_type == "Shape":
            feeds = {node.input[0]: np.empty(shape, np.bool_)}
        for name, value in zip(node.output, _evaluate(model, node, feeds), strict=True):
            known[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
    changed = len(left) < len(graph.node)
    del graph.node[:]
    graph.node.extend(left)
    return changed


def _evaluate(
    model: onnx.ModelProto, node: NodeProto, feeds: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    single = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in feeds.items()
        ],
        [helper.make_tensor_value_info(name, 0, None) for name in node.output],
    )
    alone = helper.make_model(single, opset_imports=model.opset_import)
    return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, feeds)]


def _macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    output, weight = shapes.get(node.output[0], ()), shapes.get(node.input[1], ())
    if not output or not weight or 0 in (*output, *weight):
        raise ExportError(f"the shapes at {node.op_type} {node.name} cannot be inferred")
    # Each output value sums over a filter (Conv) or over the inner dimension (MatMul).
    terms = math.prod(weight[1:]) if node.op_type == "Conv" else weight[max(len(weight) - 2, 0)]
    return math.prod(output) * terms
