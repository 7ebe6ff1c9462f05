"""Which float tensors a graph stores in the type that it is lowered to, custom ops opened."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from ..plugins.onnx_functions import inline_functions


@dataclass(frozen=True)
class StoredFloats:
    """The float tensors of a graph that would follow its type.

    Attributes:
        plain: The graph of standard operators.
        owners: Each such tensor of ``plain``, in its order, to the node of the graph as it was
            that makes it; of what is inside a custom op that is the custom op's node.
    """

    plain: onnx.ModelProto
    owners: dict[str, str]


def stored_floats(model: onnx.ModelProto) -> StoredFloats:
    """Find the tensors that :func:`~.precision.lower` would store in another type.

    Of the body of a custom op these are the ones that become fp16 when its inputs do; what the
    body casts to float32 stays so whatever the node's type is.

    Args:
        model: Float32; it is not changed.
    """
    plain = inline_functions(model)
    followers = {name for node in model.graph.node for name in node.output if name}
    owners = _owners(model, plain, followers)
    if model.functions:
        followers |= _of_type(_halved(plain), TensorProto.FLOAT16)
    wanted = followers & owners.keys() & _of_type(plain, TensorProto.FLOAT)
    made = [name for node in plain.graph.node for name in node.output]
    return StoredFloats(plain, {name: owners[name] for name in made if name in wanted})


def _of_type(model: onnx.ModelProto, kind: int) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.output]
    return {v.name for v in values if v.type.tensor_type.elem_type == kind}


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with float16 inputs and constants, for type inference alone."""
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            empty = helper.make_tensor(tensor.name, TensorProto.FLOAT16, [0], [])
            empty.dims[:] = tensor.dims
            tensor.CopyFrom(empty)
    return halved


def _owners(model: onnx.ModelProto, plain: onnx.ModelProto, own: set[str]) -> dict[str, str]:
    """Tensor of ``plain`` to the node of ``model``, whose own tensors are ``own``."""
    producers = {name: node for node in plain.graph.node for name in node.output}
    owners: dict[str, str] = {}
    for node in model.graph.node:
        pending = [name for name in node.output if name]
        while pending:
            name = pending.pop()
            owners[name] = node.name
            if name in producers:  # back through the body, to what the graph itself made
                before = [n for n in producers[name].input if n in producers and n not in own]
                pending += [n for n in before if n not in owners]
    return owners
