"""Equalisation: the channels of an int8 activation brought to one size, exactly.

One range serves all channels of an activation, so that one large channel leaves few codes to
the others. Dividing each channel by a number and multiplying the weights that read it changes
nothing in float and evens the channels out. The division needs no operator where what makes
the activation is linear in constants: it goes into the weights of the convolution or norm
before, through activations that commute with it, such as ReLU, and into one factor of a
product. Where another layer reads the activation too, the division can only be a node of its
own before the layer, which costs a pass over the activation unless the target fuses it.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv:1906.04721, section 4.1; the balance between activation and weight from
Xiao et al., "SmoothQuant", arXiv:2211.10438, equation 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from ..export.quantise import quantisable_nodes

# How much of the unevenness goes from the activation into the weights. VapSR-S on tuning
# windows, all layers int8: 0.25 −0.246, 0.5 −0.159, 0.75 −0.140, 1 −0.140 dB.
BALANCE = 1.0
# The same for a factor that stands as a node of its own. VapSR-S, all layers but two in int8,
# Set5 and Set14: none −0.121 −0.082, 0.5 −0.085 −0.064, 0.75 −0.127 −0.076, 1 −0.116 −0.085 dB.
OWN_BALANCE = 0.5
# A channel that is nearly silent on the calibration set may not be so elsewhere.
LARGEST_FACTOR = 100.0

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Equalisation:
    """What was done.

    Attributes:
        factors: Quantisable node to what each of its input's channels was divided by.
        refused: Node to the reason why its input was left.
    """

    factors: dict[str, Array]
    refused: dict[str, str]


class _Refused(Exception):
    """The division cannot go any further back; says why."""


def equalise(
    model: onnx.ModelProto,
    maxima: Mapping[str, Array],
    own: Collection[str] = (),
    balance: float = BALANCE,
) -> Equalisation:
    """Even out the input channels of every quantisable Conv, in place.

    Args:
        model: Float32, after the graph passes; its weights change, its results do not.
        maxima: Largest magnitude of each channel of each activation, on calibration pictures.
        own: Nodes before which a Mul may stand, where nothing else takes the division.
        balance: 0 leaves activations as they are, 1 makes their channels equal.
    """
    graph = _Graph(model)
    wanted = set(quantisable_nodes(model))
    factors: dict[str, Array] = {}
    refused: dict[str, str] = {}
    for node in model.graph.node:
        if node.name not in wanted or node.op_type != "Conv":
            continue
        try:
            chosen = _factors(node, graph, maxima[node.input[0]], balance)
            edits = graph.divided(node.input[0], node, chosen)
            edits.append(graph.edit(node, 1, _for_weight(graph.constant(node, 1), chosen)))
        except _Refused as exc:
            refused[node.name] = str(exc)
            if node.name in own:
                with suppress(_Refused):  # of a layer that sees nothing
                    factors[node.name] = graph.divide_before(node, maxima[node.input[0]])
            continue
        for name, by in edits:
            graph.multiply(name, by)
        factors[node.name] = chosen
    graph.insert()
    return Equalisation(factors, refused)


def own_input(node: str) -> str:
    """The activation that a node reads after a division of its own."""
    return f"{node}/equalised"


def _factors(node: NodeProto, graph: _Graph, maxima: Array, balance: float) -> Array:
    """What to divide each input channel by; of geometric mean 1."""
    weight = np.abs(graph.constant(node, 1))
    groups = len(maxima) // weight.shape[1]
    by_group = weight.reshape(groups, -1, *weight.shape[1:])
    of_weight = by_group.max(axis=(1, *range(3, by_group.ndim))).reshape(-1)
    if by_group.shape[1] == weight.shape[1] == 1:
        balance = 1.0  # depthwise: each channel's weight has a range of its own
    seen = (maxima > 0) & (of_weight > 0)
    if not seen.any():
        raise _Refused("its input or its weight is zero")
    factors = np.ones(len(maxima), np.float32)
    factors[seen] = maxima[seen] ** balance / of_weight[seen] ** (1 - balance)
    factors[seen] /= np.exp(np.log(factors[seen]).mean())
    return np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)


def _for_weight(weight: Array, factors: Array) -> Array:
    """The factors of the input channels in a shape that multiplies a convolution's weight."""
    groups = len(factors) // weight.shape[1]
    by_output = np.repeat(factors.reshape(groups, -1), len(weight) // groups, axis=0)
    return by_output.reshape(*by_output.shape, *[1] * (weight.ndim - 2))


class _Graph:
    """Constants, producers and consumers of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.before: dict[str, NodeProto] = {}
        self.constants = {t.name: t for t in model.graph.initializer}
        self.producers = {out: node for node in model.graph.node for out in node.output}
        self.outputs = {value.name for value in model.graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def constant(self, node: NodeProto, index: int) -> Array:
        """An input of a node that is a constant."""
        return numpy_helper.to_array(self.constants[node.input[index]])

    def edit(self, node: NodeProto, index: int, by: Array) -> tuple[str, Array]:
        """A constant that only this node reads, and what it is multiplied by."""
        name = node.input[index]
        if len(self.readers[name]) > 1:
            raise _Refused(f"{name} is shared")
        return name, by

    def multiply(self, name: str, by: Array) -> None:
        """Multiply a constant."""
        tensor = self.constants[name]
        changed = (numpy_helper.to_array(tensor) * by).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(changed, name))

    def divide_before(self, node: NodeProto, maxima: Array) -> Array:
        """Have a Mul of its own divide a node's input; returns the factors."""
        factors = _factors(node, self, maxima, OWN_BALANCE)
        weight = self.constant(node, 1)
        self.multiply(*self.edit(node, 1, _for_weight(weight, factors)))
        made = own_input(node.name)
        inverse = (1 / factors).reshape(-1, *[1] * (weight.ndim - 2))
        constant = numpy_helper.from_array(inverse, f"{made}/inverse")
        self.model.graph.initializer.append(constant)
        inputs = [node.input[0], constant.name]
        self.before[node.name] = helper.make_node("Mul", inputs, [made], name=made)
        node.input[0] = made
        return factors

    def insert(self) -> None:
        """Put the nodes of :meth:`divide_before` into the graph."""
        graph = self.model.graph
        if not self.before:
            return
        nodes = []
        for node in graph.node:
            nodes += [self.before[node.name], node] if node.name in self.before else [node]
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)

    def divided(self, name: str, reader: NodeProto, factors: Array) -> list[tuple[str, Array]]:
        """The constants to change so that the activation ``name`` (N×C×H×W) is divided.

        Raises:
            _Refused: Another node reads the activation, or what makes it is not linear.
        """
        others = [n.name for n in self.readers.get(name, []) if n is not reader]
        if others or name in self.outputs:
            raise _Refused(f"{', '.join(others) or 'the output'} reads its input too")
        node = self.producers.get(name)
        if node is None:
            raise _Refused("its input is the picture")
        inverse = (1 / factors).astype(np.float32)
        if node.op_type == "Conv":
            ones = [1] * (self.constant(node, 1).ndim - 1)
            edits = [self.edit(node, 1, inverse.reshape(-1, *ones))]
            return edits + ([self.edit(node, 2, inverse)] if len(node.input) > 2 else [])
        if node.op_type in ("Relu", "LeakyRelu"):
            return self.divided(node.input[0], node, factors)
        if node.op_type == "DepthToSpace":
            return self.divided(node.input[0], node, _before_shuffle(node, factors))
        if node.op_type in ("Add", "Mul"):
            return self._through(node, factors)
        raise _Refused(f"{node.op_type} does not commute with a factor")

    def _through(self, node: NodeProto, factors: Array) -> list[tuple[str, Array]]:
        """A sum or a product, of a constant of one number a channel or of two activations."""
        inverse = (1 / factors).astype(np.float32)
        constant = next((i for i, name in enumerate(node.input) if name in self.constants), None)
        if constant is not None:
            shape = (1, *self.constants[node.input[constant]].dims)[-4:]
            if len(self.constants[node.input[constant]].dims) < 3 or shape[-3] != len(factors):
                raise _Refused(f"{node.name} has a constant that is not one number a channel")
            edits = [self.edit(node, constant, inverse.reshape(-1, 1, 1))]
            if node.op_type == "Mul":
                return edits
            return edits + self.divided(node.input[1 - constant], node, factors)
        if node.op_type == "Add":
            raise _Refused(f"{node.name} adds two activations")
        refusals = []
        for name in dict.fromkeys(node.input):
            try:
                return self.divided(name, node, factors)
            except _Refused as exc:
                refusals.append(str(exc))
        raise _Refused("; ".join(refusals))


def _before_shuffle(node: NodeProto, factors: Array) -> Array:
    """The factors of the channels that a DepthToSpace takes."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    squared = int(attributes["blocksize"]) ** 2
    if attributes.get("mode", b"DCR") == b"CRD":
        return np.repeat(factors, squared)
    return np.tile(factors, squared)
