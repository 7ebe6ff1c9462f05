"""Writes int8 into a graph: QuantizeLinear and DequantizeLinear around Conv and MatMul.

The scheme is what TensorRT fuses into int8 kernels and every other target takes: symmetric,
zero point 0, one scale per activation tensor, one per output channel of a weight, bias left
in float. Convolutions and linear layers alone read what comes out of DequantizeLinear: the
branches of a residual sum, norms and custom ops stay in float, all of them, so that no sum mixes
int8 with float. A pixel shuffle between two layers moves int8.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; Krishnamoorthi, arXiv:1806.08342, section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from ..errors import ExportError
from ..spec import Precision
from .pair_sums import pair_reach
from .precision import kept_in_fp32

LEVELS = 127
"""Codes on each side of zero: −128 is left out so that a weight's negative has a code too."""

# A scale has 8 bits, as bf16 keeps: then codes are the same whatever type the rest is in.
_SCALE_STEPS = 256
# From here on fp16 keeps 8 bits of a scale too (it is subnormal below 2⁻¹⁴).
_LEAST_SCALE = {Precision.FP16: 2.0**-16}
_LEAST_FLOAT_SCALE = 2.0**-60
# First opset whose Q/DQ take fp16 and bf16 scales.
_HALF_SCALES_OPSET = 19
# Which input is the weight is the same in both; the axis of its output channels is not.
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1}


def quantisable_nodes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the Conv and MatMul nodes that :func:`quantise` takes, in the graph's order.

    Those have a weight that is a constant (for MatMul a matrix, or a transposed one, as PyTorch
    writes its linear layers) and are not pinned to fp32.

    Raises:
        ExportError: Two of them share a name, or one has none.
    """
    names = [node.name for node in _quantisable(model)]
    if len(set(names)) != len(names) or "" in names:
        raise ExportError(
            "the graph's Conv and MatMul nodes must have names of their own",
            "srdeploy export writes them so",
        )
    return tuple(names)


@dataclass(frozen=True)
class Weight:
    """The constant that a node multiplies by.

    Attributes:
        name: Of the initializer.
        axis: Of its output channels, each of which has a scale of its own.
    """

    name: str
    axis: int


def quantisable_weights(model: onnx.ModelProto) -> dict[str, Weight]:
    """The weights of :func:`quantisable_nodes`, by the names of these."""
    turned = _transposed_weights(model)
    return {
        node.name: Weight(turned[node.input[1]], 0)  # a linear layer's: outputs are its rows
        if node.input[1] in turned
        else Weight(node.input[1], _CHANNEL_AXIS[node.op_type])
        for node in _quantisable(model)
    }


def activations(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the tensors whose ranges :func:`quantise` wants, in the graph's order."""
    return tuple(dict.fromkeys(node.input[0] for node in _quantisable(model)))


def quantise(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    skip: Collection[str] = (),
    rest: Precision = Precision.FP32,
    means: Mapping[str, NDArray[np.floating]] | None = None,
    codes: Mapping[str, NDArray[np.int8]] | None = None,
    in_pairs: bool = False,
) -> onnx.ModelProto:
    """Return the graph with Q/DQ around every quantisable node but those in ``skip``.

    Rounding a weight shifts what its convolution gives on average; with ``means`` the bias
    takes that back. Source: Nagel et al., arXiv:1906.04721, section 4.2.

    Args:
        model: Float32; it is not changed.
        ranges: Activation tensor to its (low, high); the larger magnitude counts.
        skip: Names of nodes that stay in float.
        rest: Type that :func:`~srdeploy.export.precision.lower` will give the remainder;
            scales are made exact in it before weights are rounded.
        means: Activation tensor to the mean of each of its channels; a convolution whose
            input stands there has its bias corrected.
        codes: Weight to its codes, for the scales of :func:`weight_scales`; others are
            rounded to the nearest.
        in_pairs: Whether int8 products must fit where they are added in pairs of 16 bits
            (:mod:`.pair_sums`).

    Raises:
        ExportError: A range is missing or not finite, ``skip`` names no quantisable node,
            or the graph's opset has no Q/DQ of type ``rest``.
    """
    unknown = sorted(set(skip) - set(quantisable_nodes(model)))
    if unknown:
        raise ExportError(f"no quantisable node is called {', '.join(unknown)}")
    opset = max(o.version for o in model.opset_import if not o.domain)
    if rest is not Precision.FP32 and opset < _HALF_SCALES_OPSET:
        raise ExportError(
            f"int8 with {rest} needs opset {_HALF_SCALES_OPSET}, the graph has {opset}",
            "export it again with a newer --opset",
        )
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    _Insertion(quantised, ranges, rest, means or {}, codes or {}, in_pairs).run(skip)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _quantisable(model: onnx.ModelProto) -> list[NodeProto]:
    weights = {t.name: t for t in model.graph.initializer}
    turned = _transposed_weights(model)
    return [
        node
        for node in model.graph.node
        if node.op_type in _CHANNEL_AXIS
        and not node.domain
        and not kept_in_fp32(node)
        and node.input[0] not in weights
        and (weight := weights.get(turned.get(node.input[1], node.input[1]))) is not None
        and weight.data_type == onnx.TensorProto.FLOAT
        and (node.op_type == "Conv" or len(weight.dims) == 2)
        and (node.op_type == "MatMul" or node.input[1] not in turned)
    ]


def _transposed_weights(model: onnx.ModelProto) -> dict[str, str]:
    """Outputs of the Transpose nodes that turn a constant matrix for one reader, to its name."""
    weights = {t.name: t for t in model.graph.initializer}
    reads = Counter(name for node in model.graph.node for name in node.input)
    reads.update(value.name for value in model.graph.output)
    return {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose"
        and node.input[0] in weights
        and len(weights[node.input[0]].dims) == 2
        and reads[node.output[0]] == 1
        and [list(a.ints) for a in node.attribute] in ([[1, 0]], [])
    }


@dataclass
class _Insertion:
    """One quantisation in place; each tensor gets its pair once, whoever consumes it."""

    model: onnx.ModelProto
    ranges: Mapping[str, tuple[float, float]]
    rest: Precision
    means: Mapping[str, NDArray[np.floating]]
    codes: Mapping[str, NDArray[np.int8]]
    in_pairs: bool = False
    apart: set[str] = field(default_factory=set)
    read_in_float: set[str] = field(default_factory=set)
    nodes: list[NodeProto] = field(default_factory=list)
    dequantised: dict[str, str] = field(default_factory=dict)

    def run(self, skip: Collection[str]) -> None:
        graph = self.model.graph
        weights = {t.name: t for t in graph.initializer}
        every = _quantisable(self.model)
        self.apart |= {node.input[1] for node in every if adds_apart(node, weights)}
        nodes = [node for node in every if node.name not in set(skip)]
        chosen = {node.name for node in nodes}
        self.read_in_float |= {value.name for value in graph.output} | {
            name
            for node in graph.node
            for index, name in enumerate(node.input)
            if index or node.name not in chosen
        }
        turned = _transposed_weights(self.model)
        wanted = {node.input[1] for node in nodes}
        for node in list(graph.node):
            if node.op_type == "Transpose" and node.output[0] in turned.keys() & wanted:
                # the matrix as it is stored: outputs are its rows
                node.input[0] = self._weight(weights[node.input[0]], 0)
            elif node.op_type in _CHANNEL_AXIS and node.name in chosen:
                if weight := weights.get(node.input[1]):
                    if node.op_type == "Conv" and node.input[0] in self.means:
                        self._correct_bias(node, weights)
                    node.input[1] = self._weight(weight, _CHANNEL_AXIS[node.op_type])
                node.input[0] = self._activation(node.input[0])
            self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        used |= {value.name for value in graph.output}
        kept = [t for t in graph.initializer if t.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(kept)

    def _activation(self, name: str) -> str:
        """Name of the tensor after its Q/DQ pair."""
        pair = f"{name}/int8"
        if pair not in self.dequantised:
            scale = np.array(activation_scale(*self._bounds(name), self.rest), np.float32)
            inputs = [self._constant(scale_name(name), scale)]
            inputs.append(self._constant(f"{pair}/zero", np.zeros((), np.int8)))
            made = f"{pair}/dequantised"
            if shuffle := self._own_shuffle(name):
                self._quantise_before(shuffle, inputs, f"{pair}/quantised")
                self._node("DequantizeLinear", [name, *inputs], made)
            else:
                self._node("QuantizeLinear", [name, *inputs], f"{pair}/quantised")
                self._node("DequantizeLinear", [f"{pair}/quantised", *inputs], made)
            self.dequantised[pair] = made
        return self.dequantised[pair]

    def _own_shuffle(self, name: str) -> NodeProto | None:
        """The DepthToSpace that makes an activation, if int8 layers alone read it."""
        shuffle = next((n for n in self.nodes if name in n.output), None)
        if shuffle is None or shuffle.op_type != "DepthToSpace" or kept_in_fp32(shuffle):
            return None
        return None if name in self.read_in_float else shuffle

    def _quantise_before(self, node: NodeProto, inputs: list[str], output: str) -> None:
        """Quantise what a node moves."""
        self._node("QuantizeLinear", [node.input[0], *inputs], output)
        place = next(i for i, other in enumerate(self.nodes) if other is node)
        self.nodes.insert(place, self.nodes.pop())
        node.input[0] = output

    def _weight(self, weight: onnx.TensorProto, axis: int) -> str:
        """Name of the weight after it went through int8, one scale per index of ``axis``."""
        pair = f"{weight.name}/int8_axis{axis}"
        if pair not in self.dequantised:
            codes, scales = self._rounded(weight, axis)
            inputs = [
                self._constant(f"{pair}/codes", codes),
                self._constant(f"{pair}/scales", scales),
                self._constant(f"{pair}/zeros", np.zeros(scales.shape, np.int8)),
            ]
            self._node("DequantizeLinear", inputs, f"{pair}/dequantised", axis=axis)
            self.dequantised[pair] = f"{pair}/dequantised"
        return self.dequantised[pair]

    def _rounded(
        self, weight: onnx.TensorProto, axis: int
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """A weight's codes, and its scales along ``axis``."""
        values = numpy_helper.to_array(weight)
        in_pairs = self.in_pairs and weight.name not in self.apart
        scales = weight_scales(values, axis, self.rest, in_pairs)
        given = self.codes.get(weight.name)
        # fp16 cannot have the least scales: then the codes that were made for others are void
        if given is not None and np.array_equal(
            scales, weight_scales(values, axis, in_pairs=in_pairs)
        ):
            return given, scales
        others = [i for i in range(values.ndim) if i != axis]
        return nearest_codes(values, np.expand_dims(scales, others)), scales

    def _correct_bias(self, node: NodeProto, weights: Mapping[str, onnx.TensorProto]) -> None:
        """Give a convolution a bias of its own that makes up for its weight's rounding."""
        weight = weights[node.input[1]]
        codes, scales = self._rounded(weight, 0)
        values = numpy_helper.to_array(weight).astype(np.float64)
        lost = values - codes * scales.astype(np.float64).reshape(-1, *[1] * (values.ndim - 1))
        by_channel = lost.reshape(*lost.shape[:2], -1).sum(axis=2)  # outputs×inputs of a group
        groups = len(self.means[node.input[0]]) // lost.shape[1]
        of_group = self.means[node.input[0]].reshape(groups, -1)
        inputs = np.repeat(of_group, len(lost) // groups, axis=0)
        shift = (by_channel * inputs).sum(axis=1)
        if len(node.input) > 2:
            if node.input[2] not in weights:
                return  # a computed bias; none of the networks has one
            bias = numpy_helper.to_array(weights[node.input[2]]) + shift
            del node.input[2]
        else:
            bias = shift
        node.input.append(self._constant(f"{node.name}/int8_bias", bias.astype(np.float32)))

    def _bounds(self, name: str) -> tuple[float, float]:
        if name not in self.ranges:
            raise ExportError(
                f"the tensor {name} has no calibrated range", "calibrate this very graph"
            )
        bounds = self.ranges[name]
        if not np.isfinite(bounds).all():
            raise ExportError(f"the range of {name} is not finite: {bounds}", "calibrate again")
        return bounds

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))


def scale_name(tensor: str) -> str:
    """The initializer that holds the scale of an activation."""
    return f"{tensor}/int8/scale"


def activation_scale(low: float, high: float, rest: Precision = Precision.FP32) -> float:
    """The step of the int8 grid for an activation's range, exact in ``rest``."""
    return float(_scales(np.array(max(abs(low), abs(high))), rest))


def adds_apart(node: NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether CPUs add the products of a node in 32 bits each: a depthwise convolution's."""
    if node.op_type != "Conv":
        return False
    outputs, inputs = weights[node.input[1]].dims[:2]
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return bool(inputs == 1 and groups == outputs)


def weight_scales(
    values: NDArray[np.float32],
    axis: int,
    rest: Precision = Precision.FP32,
    in_pairs: bool = False,
) -> NDArray[np.float32]:
    """One scale for each index of ``axis``, exact in ``rest``.

    Args:
        values: A weight.
        axis: Of its outputs.
        rest: Type that the scales are exact in.
        in_pairs: Whether its codes must fit in pairs (:mod:`.pair_sums`).
    """
    if in_pairs:
        return _scales(pair_reach(values, axis), rest)
    others = tuple(i for i in range(values.ndim) if i != axis)
    return _scales(np.abs(values).max(axis=others), rest)


def _scales(magnitudes: NDArray[np.floating], rest: Precision) -> NDArray[np.float32]:
    """Steps of the int8 grids that reach ``magnitudes``, exact in ``rest``."""
    # What was zero throughout is exact on any grid; 1 keeps clear of every type's limits.
    reached = np.where(magnitudes == 0, 1.0, magnitudes).astype(np.float64)
    least = _LEAST_SCALE.get(rest, _LEAST_FLOAT_SCALE)
    fraction, exponent = np.frexp(np.maximum(reached / LEVELS, least))
    scales: NDArray[np.float32] = np.ldexp(
        np.ceil(fraction * _SCALE_STEPS) / _SCALE_STEPS, exponent
    ).astype(np.float32)
    return scales


def nearest_codes(values: NDArray[np.floating], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest int8 codes, ties to even as ONNX has it."""
    codes: NDArray[np.int8] = np.clip(np.rint(values / scales), -LEVELS, LEVELS).astype(np.int8)
    return codes
