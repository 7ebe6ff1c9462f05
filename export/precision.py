"""Writes fp16 and bf16 into a graph: tensor types and Casts, so that every target agrees.

The input and output stay float32. A node marked with :data:`KEEP_FP32` in its metadata is
computed in float32 between Casts: that is where the half-precision range does not reach.
"""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, version_converter

from ..errors import ExportError
from ..plugins import DOMAIN
from ..plugins.onnx_functions import attach_functions
from ..spec import Precision

KEEP_FP32 = ("srdeploy.keep", "fp32")
"""Key and value of the node metadata that pins a node to float32."""

BF16_OPSET = 22
"""First opset in which Conv and its like take bfloat16."""

_TYPES: dict[Precision, tuple[int, np.dtype[np.generic]]] = {
    Precision.FP16: (TensorProto.FLOAT16, np.dtype(np.float16)),
    Precision.BF16: (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
# Integer inputs of Resize, Reshape and the like are not floats and pass by themselves;
# these ops take or give float32 by their own definition.
_UNTOUCHED = frozenset({"Cast", "CastLike"})


def lower(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Return the graph with its float32 part computed in fp16 or bf16.

    Args:
        model: Float32 in and out; Q/DQ pairs keep their integers and get scales of the
            lower type, which ``quantise`` made exact before.
        precision: fp16 or bf16; fp32 returns the model itself.

    Raises:
        ExportError: Another precision, or a weight that leaves the range of fp16.
    """
    if precision == Precision.FP32:
        return model
    if precision not in _TYPES:
        raise ExportError(f"a graph cannot be lowered to {precision}", "fp16 and bf16 can")
    if precision == Precision.BF16:
        model = _copy(_with_opset(model, BF16_OPSET))
        # bf16 holds 8 bits: a pixel between 0.5 and 1 would be off by half a code value
        _pin_ends(model)
    return _Lowering(model, precision).run()


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer opset, its nodes' metadata kept (the converter drops it)."""
    if max(o.version for o in model.opset_import if not o.domain) >= opset:
        return model
    bare = _copy(model)
    if any(function.domain != DOMAIN for function in bare.functions):
        raise ExportError("the graph has functions that are not srdeploy's", "inline them first")
    del bare.functions[:]  # the converter leaves them in the old opset
    converted = version_converter.convert_version(bare, opset)
    attach_functions(converted)
    pinned = {node.name for node in model.graph.node if kept_in_fp32(node)}
    for node in converted.graph.node:
        if node.name in pinned:
            pin_to_fp32(node)
    return converted


def _pin_ends(model: onnx.ModelProto) -> None:
    """Pin the layers that touch pixels: up to the first and from the last Conv or MatMul."""
    producers = {out: [node] for node in model.graph.node for out in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    _pin_until_weights(consumers, [v.name for v in model.graph.input], forward=True)
    _pin_until_weights(producers, [v.name for v in model.graph.output], forward=False)
    # A pinned Conv in int8 takes its operands straight from their DequantizeLinear.
    for node in [n for n in model.graph.node if kept_in_fp32(n)]:
        for name in node.input:
            for source in producers.get(name, []):
                if source.op_type == "DequantizeLinear" and not kept_in_fp32(source):
                    pin_to_fp32(source)


def _pin_until_weights(
    neighbours: dict[str, list[NodeProto]], pending: list[str], forward: bool
) -> None:
    """Pin nodes from the tensors ``pending`` on, in one direction, up to a Conv or MatMul."""
    while pending:
        for node in neighbours.get(pending.pop(), []):
            if not kept_in_fp32(node):
                pin_to_fp32(node)
                if node.op_type not in ("Conv", "MatMul", "Gemm"):
                    pending += node.output if forward else node.input


def pin_to_fp32(node: NodeProto) -> None:
    """Have :func:`lower` compute this node in float32."""
    node.metadata_props.add(key=KEEP_FP32[0], value=KEEP_FP32[1])


def kept_in_fp32(node: NodeProto) -> bool:
    """Whether the node is pinned to float32."""
    return any((p.key, p.value) == KEEP_FP32 for p in node.metadata_props)


def pin_touching(
    model: onnx.ModelProto, tensors: Collection[str], nodes: Collection[str] = ()
) -> tuple[str, ...]:
    """Pin, in place, every node that makes or reads one of ``tensors``, and ``nodes``.

    :func:`lower` then never stores these tensors in another type than float32. In int8 a pinned
    Conv keeps its DequantizeLinear nodes beside it, and these all their readers: a Cast between
    the two would take the Conv out of int8.

    Returns:
        Names of the nodes that were not pinned before, in the graph's order.
    """
    before = [kept_in_fp32(node) for node in model.graph.node]
    for node, pinned in zip(model.graph.node, before, strict=True):
        touches = node.name in nodes or not {*node.input, *node.output}.isdisjoint(tensors)
        if touches and not pinned:
            pin_to_fp32(node)
    while _pin_beside_int8(model):
        pass
    after = zip(model.graph.node, before, strict=True)
    return tuple(node.name for node, pinned in after if kept_in_fp32(node) and not pinned)


def _pin_beside_int8(model: onnx.ModelProto) -> bool:
    """Pin each DequantizeLinear with its readers, where one of them is; False if all are."""
    sources = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    pairs = [(sources[i], n) for n in model.graph.node for i in n.input if i in sources]
    single = [(a, b) for a, b in pairs if kept_in_fp32(a) != kept_in_fp32(b)]
    for pair in single:
        for node in pair:
            if not kept_in_fp32(node):
                pin_to_fp32(node)
    return bool(single)


class _Lowering:
    """One conversion: walks the nodes in order and keeps each float tensor's two forms."""

    def __init__(self, model: onnx.ModelProto, precision: Precision) -> None:
        self.model = _copy(model)
        self.elem, self.dtype = _TYPES[precision]
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.initializers = {t.name: t for t in self.model.graph.initializer}
        self.floats |= {n for n, t in self.initializers.items() if t.data_type == TensorProto.FLOAT}
        # Type in which each float tensor exists, and the casts already made of it.
        self.kind: dict[str, int] = dict.fromkeys(self.floats, TensorProto.FLOAT)
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        outputs = {value.name for value in graph.output}
        for original in graph.node:
            self._node(original, outputs)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in graph.initializer if t.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*kept, *self.constants])
        onnx.checker.check_model(self.model, full_check=True)
        return self.model

    def _node(self, original: NodeProto, outputs: set[str]) -> None:
        node = NodeProto()
        node.CopyFrom(original)
        if node.op_type in _UNTOUCHED or not self.floats & {*node.input, *node.output}:
            self.nodes.append(node)
            return
        wanted = TensorProto.FLOAT if kept_in_fp32(node) else self.elem
        for i, name in enumerate(node.input):
            if name in self.floats:
                node.input[i] = self._as(name, wanted)
        self.nodes.append(node)
        for i, name in enumerate(node.output):
            if name not in self.floats:
                continue
            self.kind[name] = wanted
            if name in outputs and wanted != TensorProto.FLOAT:
                node.output[i] = f"{name}/low"
                cast = helper.make_node(
                    "Cast", [f"{name}/low"], [name], name=f"{name}/to_fp32", to=TensorProto.FLOAT
                )
                self.nodes.append(cast)
                self.kind[name] = TensorProto.FLOAT

    def _as(self, name: str, wanted: int) -> str:
        """Name of ``name`` in the type ``wanted``, cast or converted once."""
        if self.kind[name] == wanted:
            return name
        if (name, wanted) not in self.casts:
            made = f"{name}/{TensorProto.DataType.Name(wanted).lower()}"
            self.casts[name, wanted] = made
            if name in self.initializers:
                self._convert_constant(name, made)
            else:
                self.nodes.append(
                    helper.make_node("Cast", [name], [made], name=f"{made}_cast", to=wanted)
                )
        return self.casts[name, wanted]

    def _convert_constant(self, name: str, made: str) -> None:
        values = numpy_helper.to_array(self.initializers[name])
        with np.errstate(over="ignore"):
            low = values.astype(self.dtype)
        if not np.isfinite(low.astype(np.float32)).all():
            raise ExportError(
                f"the weight {name} reaches {np.abs(values).max():.3g}, beyond fp16's 65504",
                "use --bf16, which has the range of fp32",
            )
        self.constants.append(numpy_helper.from_array(low, made))
