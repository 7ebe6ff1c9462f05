"""Weights whose int8 products fit where a CPU adds them in pairs of 16 bits.

x86 without an 8-bit dot product (VNNI) multiplies int8 with ``vpmaddubsw``: activations as 0…255,
weights as −128…127, and the sum of two neighbouring products in 16 bits, saturated. Any activation
is safe where two neighbouring weights of one sign add up to at most 128 codes, as
255 · 128 < 2¹⁵ − 1 < 255 · 129. Products of depthwise convolutions are added in 32 bits.

Which products are neighbours was found by executing ONNX Runtime 1.31 and OpenVINO 2026.4 on an
emulated CPU with AVX2 alone (bench/avx2.py): those of two input channels of one tap of the kernel,
or, in ONNX Runtime where their number is odd, also the last channel of a tap and the first of the
next one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LIMIT = 128
"""Largest sum of two neighbouring codes of one sign."""


def pair_reach(values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    """What the codes of an output channel must reach so that its pairs fit: its largest weight,
    or the largest sum of two neighbours of one sign.

    A grid of 127 steps up to there leaves the one code that two roundings can add.

    Args:
        values: A weight.
        axis: Of its output channels; the next one, or the one before the last, has the inputs.

    Returns:
        One number for each index of ``axis``.
    """
    taps = _taps(values, axis)
    reach = np.abs(taps).reshape(len(taps), -1).max(axis=1)
    for first, second in _pairs(taps):
        for sign in (1, -1):
            sums = np.maximum(sign * first, 0) + np.maximum(sign * second, 0)
            reach = np.maximum(reach, sums.reshape(len(sums), -1).max(axis=1, initial=0))
    return reach


def fit_pairs(codes: NDArray[np.int8], axis: int) -> NDArray[np.int8]:
    """Codes of which no pair is beyond :data:`LIMIT`: the larger of two gives way."""
    wide = codes.astype(np.int16)
    for first, second in _pairs(_taps(wide, axis)):
        excess = np.abs(first) + np.abs(second) - LIMIT
        over = (excess > 0) & (np.sign(first) == np.sign(second))
        at_first = over & (np.abs(first) >= np.abs(second))
        first -= np.where(at_first, np.sign(first) * excess, 0)
        second -= np.where(over & ~at_first, np.sign(second) * excess, 0)
    return wide.astype(np.int8)


def pairs_fit(codes: NDArray[np.int8], axis: int) -> bool:
    """Whether no pair is beyond :data:`LIMIT`."""
    return bool((pair_reach(codes.astype(np.int16), axis) <= LIMIT).all())


def _taps(values: NDArray[np.generic], axis: int) -> NDArray[np.generic]:
    """A view as outputs × taps of the kernel × inputs."""
    by_output = np.moveaxis(values, axis, 0)
    return np.moveaxis(by_output, 1, -1)


def _pairs(taps: NDArray[np.generic]) -> Iterator[tuple[NDArray, NDArray]]:
    """Views of the first and the second of all neighbours, in every order that kernels have."""
    inputs = taps.shape[-1]
    yield taps[..., 0 : inputs - 1 : 2], taps[..., 1::2]
    if inputs % 2 and taps.ndim > 2:
        ...
