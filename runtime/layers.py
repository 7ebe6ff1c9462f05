"""The layers of an engine as they were built, against what the graph asked for.

TensorRT's inspector describes an engine as JSON, where the GPU is here; the builder's log has
the same description as text, GPU or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from ..plugins.onnx_functions import inline_functions
from .model_file import parse_graph

# a type alone, or the format with a type in it
_DATATYPE = re.compile(r"Datatype: ([^,}]*)")

LISTING = "Layers:\n"
"""How the builder's message starts that describes the layers."""

INSPECTED = "[LAYERS] "
"""What stands in a build log before the inspector's JSON, where the builder lists no layers."""

# TensorRT's names of types, in all its spellings, to ours; the narrowest first.
_TYPES = {
    "int8": "int8",
    "half": "fp16",
    "fp16": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float": "fp32",
    "fp32": "fp32",
}
_WIDTH = {"int8": 0, "fp16": 1, "bf16": 1, "fp32": 2}
_ONNX_TYPES = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
}
# Kinds of layers that are generated for what stands between the heavy operations.
_GENERATED = {"kgen", "shape_call", "Reformat", "PointWiseV2", "NoOp"}
HEAVY = ("Conv", "MatMul", "Gemm")


@dataclass(frozen=True)
class BuiltLayer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's, such as ``correlation`` or ``kgen``.
        inputs: Types of what it reads, constants included.
        outputs: Types of what it writes.
        nodes: ONNX nodes that it computes, or parts of them.
        milliseconds: Median time at the optimum size; None where it was not run.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    milliseconds: float | None = None


@dataclass(frozen=True)
class NodePrecision:
    """A convolution or matrix product: the precision asked for, and the one built.

    Attributes:
        node: ONNX name.
        asked: Of its operands in the graph.
        built: Of the layer that computes it; empty where no layer says so.
    """

    node: str
    asked: str
    built: str

    @property
    def differs(self) -> bool:
        """Whether the builder chose otherwise."""
        return bool(self.built) and self.built != self.asked


@dataclass(frozen=True)
class LayerReport:
    """All layers of an engine, and its heavy nodes' precisions.

    Attributes:
        layers: In the order of execution.
        nodes: Convolutions and matrix products.
    """

    layers: tuple[BuiltLayer, ...] = ()
    nodes: tuple[NodePrecision, ...] = ()

    def timed(self, milliseconds: Mapping[str, float]) -> LayerReport:
        """The same with the times of layers by name."""
        layers = (replace(x, milliseconds=milliseconds.get(x.name)) for x in self.layers)
        return replace(self, layers=tuple(layers))


def report(log: str, graph: bytes) -> LayerReport:
    """Compare the layers that a build log describes with the graph that they were built from.

    Empty where the log describes none.
    """
    layers = described(log)
    if not layers:
        return LayerReport()
    asked = asked_precisions(inline_functions(parse_graph(graph)))
    built = {node: _built(node, layers) for node in asked}
    return LayerReport(tuple(layers), tuple(NodePrecision(n, asked[n], built[n]) for n in asked))


def described(log: str) -> tuple[BuiltLayer, ...]:
    """Layers that a build log describes: TensorRT's own listing, or the inspector's JSON."""
    _, found, listing = log.rpartition(f"] {LISTING}")
    if found:
        return from_log(listing)
    inspected = [line for line in log.splitlines() if line.startswith(INSPECTED)]
    return from_inspector(inspected[-1].removeprefix(INSPECTED)) if inspected else ()


def asked_precisions(graph: onnx.ModelProto) -> dict[str, str]:
    """Every convolution and matrix product to the type of its operands."""
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    types |= {t.name: t.data_type for t in graph.graph.initializer}
    makers = {out: n for n in graph.graph.node for out in n.output}

    def is_int8(name: str) -> bool:
        maker = makers.get(name)
        if maker is not None and maker.op_type == "Transpose":  # of a linear layer's weight
            maker = makers.get(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    found = {}
    for node in graph.graph.node:
        if node.op_type in HEAVY:
            if all(is_int8(name) for name in node.input[:2]):
                found[node.name] = "int8"
            else:
                found[node.name] = _ONNX_TYPES.get(types.get(node.input[0], 0), "unknown")
    return found


def _built(node: str, layers: Sequence[BuiltLayer]) -> str:
    """Precision of the layer that computes a node.

    Its epilogue may run in a layer of generated code that names it too: of several layers,
    those of other kinds and of the narrowest operands compute the products.
    """
    naming = [layer for layer in layers if node in layer.nodes]
    computing = [layer for layer in naming if layer.kind not in _GENERATED] or naming
    found = [operands for layer in computing if (operands := _operands(layer))]
    return min(found, key=lambda operands: _WIDTH[operands], default="")


def _operands(layer: BuiltLayer) -> str:
    """The type that a layer's products are in, or nothing where it has none."""
    known = [kind for kind in layer.inputs if kind in _WIDTH]
    if len(known) < 2:
        return ""
    narrow = min(known, key=lambda kind: _WIDTH[kind])
    # one int8 operand among wider ones is being dequantised, not multiplied
    if narrow == "int8" and known.count("int8") < 2:
        wider = [kind for kind in known if kind != "int8"]
        return min(wider, key=lambda kind: _WIDTH[kind])
    return narrow


def from_log(listing: str) -> tuple[BuiltLayer, ...]:
    """Layers of the text that the builder logs, without its first line."""
    lines = listing.split("\n\n", 1)[0].split("\n")
    return tuple(layer for line in lines if (layer := _from_line(line)) is not None)


def _from_line(line: str) -> BuiltLayer | None:
    head = re.match(r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*),", line)
    if head is None:
        return None
    # sections follow each other in this order; a layer without constants may lack theirs
    inputs, _, rest = line.partition("Outputs: [")
    outputs = rest.partition("TacticName:")[0]
    return BuiltLayer(
        head["name"],
        head["kind"],
        tuple(map(_type, _DATATYPE.findall(inputs))),
        tuple(map(_type, _DATATYPE.findall(outputs))),
        _nodes(line),
    )


def from_inspector(document: str) -> tuple[BuiltLayer, ...]:
    """Layers of the JSON that the engine's inspector gives, at detailed verbosity."""
    listed = json.loads(document).get("Layers", [])
    # at lower verbosity they are names alone
    return tuple(_from_json(layer) for layer in listed if isinstance(layer, dict))


def _from_json(layer: Mapping[str, Any]) -> BuiltLayer:
    def types(*sections: str) -> tuple[str, ...]:
        tensors = [t for s in sections for t in layer.get(s) or [] if isinstance(t, dict)]
        return tuple(_type(str(t.get("Datatype") or t.get("Format/Datatype", ""))) for t in tensors)

    # of a convolution that is not fused the weights stand apart
    weights = layer.get("Weights")
    weight = (_type(str(weights.get("Type", ""))),) if isinstance(weights, dict) else ()
    return BuiltLayer(
        str(layer.get("Name", "")),
        str(layer.get("LayerType", "")),
        (*types("Inputs", "Constants"), *weight),
        types("Outputs"),
        _nodes(str(layer.get("Metadata", ""))),
    )


def _nodes(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(re.findall(r"\[ONNX Layer: (.*?)\]", text)))


def _type(spelling: str) -> str:
    """Our name of a type, which stands alone or in a sentence: ``Row major linear FP16``."""
    words = re.findall(r"\w+", spelling.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), words[-1] if words else "")
