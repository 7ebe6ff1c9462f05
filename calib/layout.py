"""Which pixel of the network's input a place in one of its tensors belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST_FACTOR = 8
"""Features are at most this many times as large as the input, or as small."""

LARGEST_PADDING = 15
"""Rows and columns that a network adds, right and below, to fill its windows of up to 16."""


def pixel_of(
    index: int, shape: Sequence[int], size: tuple[int, ...]
) -> tuple[int, int, int] | None:
    """Row, column and channel of a tensor's flat ``index``, in pixels of the input.

    A tensor counts as a map of pixels where it is of one frame, N×C×H×W or N×H×W×C (further
    dimensions of 1 in front do not matter), and both its sizes are the input's, padded, times
    or by one whole number.

    Args:
        index: Into the tensor's values in their order.
        shape: The tensor's.
        size: Height and width of the input.

    Returns:
        None where the tensor is no such map, or could be one in both ways.
    """
    if len(shape) < 4 or any(n != 1 for n in shape[:-3]):
        return None
    last = np.unravel_index(index, tuple(shape[-3:]))
    a, b, c = (int(i) for i in last)
    channels_first = _factor(shape[-2:], size)
    channels_last = _factor(shape[-3:-1], size)
    if bool(channels_first) == bool(channels_last):
        return None
    y, x, channel = (b, c, a) if channels_first else (a, b, c)
    factor = channels_first or channels_last or 1.0
    # the middle of the place, so that a place of several pixels names the middle one
    row = min(int((y + 0.5) / factor), size[0] - 1)
    column = min(int((x + 0.5) / factor), size[1] - 1)
    return row, column, channel


def _factor(extent: Sequence[int], size: tuple[int, ...]) -> float | None:
    """How many times as large as the input a map is; None where it is no map of it."""
    for whole in range(1, LARGEST_FACTOR + 1):
        if all(0 <= n - whole * s <= whole * LARGEST_PADDING for n, s in _pairs(extent, size)):
            return float(whole)
    for whole in range(2, LARGEST_FACTOR + 1):
        if all(0 <= whole * n - s < whole for n, s in _pairs(extent, size)):
            return 1 / whole
    return None


def _pairs(extent: Sequence[int], size: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(extent, size, strict=True))
