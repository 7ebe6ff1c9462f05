"""Weights whose int8 products fit where a CPU adds them in pairs of 16 bits.

x86 without an 8-bit dot product (VNNI) multiplies int8 with ``vpmaddubsw``: activations as 0…255,
weights as −128…127, and the sum of two neighbouring products in 16 bits, saturated. Any activation
is safe where two neighbouring weights of one sign add up to at most 128 codes, as
255 · 128 < 2¹⁵ − 1 < 255 · 129. Products of depthwise convolutions are added in 32 bits.

Which products are neighbours was found by executing ONNX Runtime 1.31 and OpenVINO 2026.4 as on a
CPU with AVX2 alone (bench/int8_cpus.py): those of two input channels of one tap of the kernel, or,
in ONNX Runtime where their number is odd, also the last channel of a tap and the first of the next
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 128
"""Largest sum of two neighbouring codes of one sign."""


def pair_reach(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """What the codes of an output channel must reach so that its pairs fit: its largest weight,
    or the largest sum of two neighbours of one sign.

    A grid of 127 steps up to there leaves the one code that two roundings can add.

    Args:
        values: Outputs×inputs×kernel, or a matrix.
        axis: Of the outputs.

    Returns:
        One number for each index of ``axis``.
    """
    rows = _rows(values, axis)
    reach: NDArray[Any] = np.abs(rows).max(axis=(1, 2))
    for first, second in _neighbours(rows):
        for sign in (1, -1):
            sums = np.maximum(sign * first, 0) + np.maximum(sign * second, 0)
            reach = np.maximum(reach, sums.reshape(len(sums), -1).max(axis=1, initial=0))
    return reach


def pairs_fit(codes: NDArray[np.int8], axis: int) -> bool:
    """Whether no pair is beyond :data:`LIMIT`."""
    return bool((pair_reach(codes.astype(np.int16), axis) <= LIMIT).all())


def fit_pairs(codes: NDArray[np.int8], axis: int) -> NDArray[np.int8]:
    """The codes with no pair beyond :data:`LIMIT`: the larger of two gives way."""
    rows = _rows(codes.astype(np.int16), axis)
    for first, second in _neighbours(rows):
        excess = np.abs(first) + np.abs(second) - LIMIT
        over = (excess > 0) & (np.sign(first) == np.sign(second))
        at_first = over & (np.abs(first) >= np.abs(second))
        first -= np.where(at_first, np.sign(first) * excess, 0)
        second -= np.where(over & ~at_first, np.sign(second) * excess, 0)
    moved = np.moveaxis(codes, axis, 0).shape
    fitted = np.moveaxis(rows.transpose(0, 2, 1).reshape(moved), 0, axis)
    return np.ascontiguousarray(fitted.astype(np.int8))


def _rows(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """A copy as outputs × taps of the kernel × inputs, the order in which CPUs add."""
    by_output = np.moveaxis(values, axis, 0)
    taps = by_output.reshape(*by_output.shape[:2], -1)
    return np.array(taps.transpose(0, 2, 1), order="C")


def _neighbours(rows: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Views of the first and the second of all pairs, in both orders."""
    inputs = rows.shape[2]
    even = inputs - inputs % 2
    yield rows[:, :, 0:even:2], rows[:, :, 1:even:2]
    if inputs % 2:
        flat = rows.reshape(len(rows), -1)
        even = flat.shape[1] - flat.shape[1] % 2
        yield flat[:, 0:even:2], flat[:, 1:even:2]
