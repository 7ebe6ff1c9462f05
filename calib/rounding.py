"""Adaptive rounding: int8 weights chosen so that a layer's output errs least, not each weight.

Nearest rounding makes each weight's error small and forgets that errors add up. Here the
weights of an output channel are rounded one after the other, and what each loses is taken up
by those that are still to come, as far as their inputs go together on the calibration crops.
Only the covariance of the inputs is needed; means are left to the correction of the bias.

Source: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain
Surgeon", NIPS 1992; for quantisation Frantar et al., "GPTQ", arXiv:2210.17323, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from ..export.pair_sums import fit_pairs
from ..export.quantise import (
    Weight,
    adds_apart,
    nearest_codes,
    quantisable_weights,
    weight_scales,
)
from ..validate.datasets import Picture
from .ranges import Progress, Watcher, watch

# Rows of the covariance's sample for each of its dimensions, and at least.
_ROWS_PER_DIMENSION = 16
_LEAST_ROWS = 4096
# Bytes of covariances that are collected in one run over the crops.
_HELD_AT_ONCE = 512 << 20
# Added to the diagonal, as a share of its mean: inputs that were always zero on the crops
# need not stay so.
_DAMPING = 0.01


Covariances = dict[str, NDArray[np.float64]]
"""Node to the covariance of what its weights are multiplied with, groups × d × d."""


@dataclass(frozen=True)
class _Layer:
    """A node and its weight."""

    node: NodeProto
    weight: Weight
    values: NDArray[np.float32]

    @property
    def groups(self) -> int:
        if self.node.op_type != "Conv":
            return 1
        return next((a.i for a in self.node.attribute if a.name == "group"), 1)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Weights as groups × outputs of a group × d."""
        by_output = np.moveaxis(self.values, self.weight.axis, 0)
        return by_output.reshape(self.groups, len(by_output) // self.groups, -1).astype(float)

    def codes(self, matrix: NDArray[np.int8]) -> NDArray[np.int8]:
        """The inverse of :attr:`matrix`."""
        moved = np.moveaxis(self.values, self.weight.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.weight.axis))

    def divided(
        self, covariance: NDArray[np.float64], factors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """The covariance once each channel of the input is divided by its factor."""
        d = covariance.shape[2]
        by_group = factors.astype(float).reshape(self.groups, -1)
        each = np.repeat(by_group, d // by_group.shape[1], axis=1)
        scaled: NDArray[np.float64] = covariance / (each[:, :, None] * each[:, None, :])
        return scaled


def round_weights(
    model: onnx.ModelProto,
    gathered: Iterable[Covariances],
    factors: Mapping[str, NDArray[np.float32]],
    in_pairs: bool = False,
) -> dict[str, NDArray[np.int8]]:
    """Int8 codes of the weights of all quantisable nodes.

    Args:
        model: Float32 N×3×H×W in, as :func:`~srdeploy.export.quantise.quantise` will get it.
        gathered: From :func:`covariances`, of the graph before it was equalised.
        factors: Node to what each channel of its input is divided by since.
        in_pairs: Whether int8 products must fit where they are added in pairs of 16 bits.

    Returns:
        Name of the weight to codes of its shape; a weight that several nodes read is left to
        nearest rounding.
    """
    layers = {layer.node.name: layer for layer in _layers(model)}
    constants = {t.name: t for t in model.graph.initializer}
    rounded: dict[str, NDArray[np.int8]] = {}
    for block in gathered:
        for name, covariance in block.items():
            layer = layers[name]
            if name in factors:
                covariance = layer.divided(covariance, factors[name])
            pairs = in_pairs and not adds_apart(layer.node, constants)
            rounded[layer.weight.name] = _rounded(layer, covariance, pairs)
    return rounded


def _layers(model: onnx.ModelProto) -> list[_Layer]:
    """Quantisable nodes whose weight no other reads."""
    constants = {t.name: t for t in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    weights = quantisable_weights(model)
    names = [weight.name for weight in weights.values()]
    return [
        _Layer(nodes[name], weight, numpy_helper.to_array(constants[weight.name]))
        for name, weight in weights.items()
        if names.count(weight.name) == 1
    ]


def covariances(
    model: onnx.ModelProto,
    pictures: Sequence[Picture],
    also: Sequence[Watcher] = (),
    progress: Progress | None = None,
) -> Iterator[Covariances]:
    """What the weights of ``model`` are multiplied with, as much at a time as memory holds.

    Args:
        model: Float32 N×3×H×W in.
        pictures: Each H×W×3 uint8.
        also: What look at the activations too, before the first are given.
        progress: Told the pictures that are done.

    Raises:
        DatasetError: There are no pictures.
    """
    for index, block in enumerate(_blocks(_layers(model)) or [[]]):
        watcher = _CovarianceWatcher(block, len(pictures))
        watch(model, pictures, [watcher, *(() if index else also)], "calibrating", progress)
        yield watcher.covariances()


def _blocks(layers: Sequence[_Layer]) -> list[list[_Layer]]:
    """Layers whose covariances fit into memory together."""
    blocks: list[list[_Layer]] = []
    held = 0
    for layer in layers:
        size = 8 * layer.groups * layer.matrix.shape[2] ** 2
        if not blocks or held + size > _HELD_AT_ONCE:
            blocks.append([])
            held = 0
        blocks[-1].append(layer)
        held += size
    return blocks


class _CovarianceWatcher:
    """Sums of the products of what each layer's weights are multiplied with."""

    def __init__(self, layers: Sequence[_Layer], pictures: int) -> None:
        self._pictures = pictures
        self._readers: dict[str, list[_Layer]] = {}
        for layer in layers:
            self._readers.setdefault(layer.node.input[0], []).append(layer)
        self._products: Covariances = {}
        self._sums: Covariances = {}
        self._counts: dict[str, int] = {}

    @property
    def tensors(self) -> Collection[str]:
        """What the layers read."""
        return self._readers

    def see(self, name: str, values: NDArray[np.float32]) -> None:
        """Take in a tensor."""
        for layer in self._readers[name]:
            node, d = layer.node.name, layer.matrix.shape[2]
            wanted = math.ceil(max(_LEAST_ROWS, _ROWS_PER_DIMENSION * d) / self._pictures)
            rows = _rows(layer, values, wanted)
            product = (rows.transpose(0, 2, 1) @ rows).astype(float)
            total = rows.sum(axis=1, dtype=np.float64)
            self._products[node] = self._products.get(node, 0.0) + product
            self._sums[node] = self._sums.get(node, 0.0) + total
            self._counts[node] = self._counts.get(node, 0) + rows.shape[1]

    def covariances(self) -> Covariances:
        """What was seen."""
        found = {}
        for node, count in self._counts.items():
            mean = self._sums[node] / count
            found[node] = self._products[node] / count - mean[:, :, None] * mean[:, None, :]
        return found


def _rows(layer: _Layer, values: NDArray[np.float32], wanted: int) -> NDArray[np.float32]:
    """About ``wanted`` places of an activation, as groups × places × d."""
    if layer.node.op_type == "MatMul":
        rows = values.reshape(-1, values.shape[-1])
        return rows[:: max(len(rows) // wanted, 1)][None]
    attributes = {a.name: helper.get_attribute_value(a) for a in layer.node.attribute}
    kernel = layer.values.shape[2:]
    spatial = len(kernel)
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    edges = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
    padded = np.pad(values, edges)
    dilations = list(attributes.get("dilations", [1] * spatial))
    spans = [dilation * (edge - 1) + 1 for dilation, edge in zip(dilations, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, spans, axis=tuple(range(2, 2 + spatial))
    )
    every = (slice(None),) * (2 + spatial)
    windows = windows[every + tuple(slice(None, None, dilation) for dilation in dilations)]
    places = math.prod(windows.shape[2 : 2 + spatial])
    chosen = np.arange(0, places * len(values), max(places * len(values) // wanted, 1))
    index = np.unravel_index(chosen, (len(values), *windows.shape[2 : 2 + spatial]))
    patches = np.moveaxis(windows, 1, 1 + spatial)[index]  # places × channels × kernel
    grouped = patches.reshape(len(chosen), layer.groups, -1)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def _rounded(layer: _Layer, covariance: NDArray[np.float64], in_pairs: bool) -> NDArray[np.int8]:
    """The codes of one layer's weight."""
    matrix = layer.matrix
    scales = weight_scales(layer.values, layer.weight.axis, in_pairs=in_pairs)
    scales = scales.reshape(*matrix.shape[:2], 1)
    diagonal = np.einsum("gii->gi", covariance)
    damped = covariance.copy()
    index = np.arange(matrix.shape[2])
    damped[:, index, index] += _DAMPING * diagonal.mean(axis=1, keepdims=True) + 1e-12
    # What a rounding error in one weight asks of those after it: a row of the upper Cholesky
    # factor of the inverse, over its first entry.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    codes = np.empty(matrix.shape, np.int8)
    left = matrix.copy()
    for i in range(matrix.shape[2]):
        codes[:, :, i] = nearest_codes(left[:, :, i], scales[:, :, 0])
        error = (left[:, :, i] - codes[:, :, i] * scales[:, :, 0]) / upper[:, None, i, i]
        left[:, :, i:] -= error[:, :, None] * upper[:, None, i, i:]
    nearest = nearest_codes(matrix, scales)
    rounded = layer.codes(_better(matrix, scales, covariance, codes, nearest))
    # errors that were taken up may have moved a pair beyond what it was scaled to
    return fit_pairs(rounded, layer.weight.axis) if in_pairs else rounded


def _better(
    matrix: NDArray[np.float64],
    scales: NDArray[np.float32],
    covariance: NDArray[np.float64],
    codes: NDArray[np.int8],
    nearest: NDArray[np.int8],
) -> NDArray[np.int8]:
    """By output channel, whichever codes err less."""

    def error(chosen: NDArray[np.int8]) -> NDArray[np.float64]:
        lost = matrix - chosen * scales
        squared: NDArray[np.float64] = ((lost @ covariance) * lost).sum(axis=2)
        return squared

    worse = error(codes) > error(nearest)
    return np.where(worse[:, :, None], nearest, codes)
