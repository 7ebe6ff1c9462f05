"""Observers: they see a tensor batch by batch and say which range int8 should cover.

Ranges are symmetric, (−a, a), since the int8 scheme has no zero point. What an observer
says does not depend on how the values were cut into batches, nor on their order.

A further observer is a class with the two methods of :class:`Observer`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError


class Observer(Protocol):
    """What watches one tensor."""

    def observe(self, values: NDArray[np.float32]) -> None:
        """Take in a batch of any shape.

        Raises:
            DatasetError: A value is not finite.
        """

    def bounds(self) -> tuple[float, float]:
        """The range (low, high) of all that was observed.

        Raises:
            DatasetError: Nothing was.
        """


class MinMaxObserver:
    """Covers every value."""

    def __init__(self) -> None:
        self._largest = -1.0

    def observe(self, values: NDArray[np.float32]) -> None:
        """Take in a batch of any shape."""
        if values.size:
            self._largest = max(self._largest, _magnitude(values))

    def bounds(self) -> tuple[float, float]:
        """(−a, a) with a the largest magnitude."""
        _check_seen(self._largest >= 0)
        return -self._largest, self._largest


class PercentileObserver:
    """Covers a share of the values, leaving the rarest magnitudes to saturate.

    The histogram has one bin per sign and upper 15 bits of float32, which is a bin per
    number of bfloat16: 65,536 in all, each at most 1/128 of its value wide, so one pass
    suffices for any range and memory does not grow. Inside a bin values count as spread
    evenly.

    Args:
        percentile: Of the magnitudes, above 0 and up to 100; 100 is MinMaxObserver.
    """

    def __init__(self, percentile: float) -> None:
        if not 0 < percentile <= 100:
            raise DatasetError(f"a percentile lies above 0 and up to 100, got {percentile}")
        self.percentile = percentile
        self._counts = np.zeros(1 << 16, np.int64)
        self._largest = -1.0

    def observe(self, values: NDArray[np.float32]) -> None:
        """Take in a batch of any shape."""
        if not values.size:
            return
        self._largest = max(self._largest, _magnitude(values))
        little_endian = np.ascontiguousarray(values, "<f4").reshape(-1)
        upper_halves = little_endian.view("<u2")[1::2]
        self._counts += np.bincount(upper_halves, minlength=self._counts.size)

    def bounds(self) -> tuple[float, float]:
        """(−a, a) with a the percentile of the magnitudes, never beyond the largest."""
        _check_seen(self._largest >= 0)
        below = np.cumsum(self._counts.reshape(2, -1).sum(axis=0))  # the first bit is the sign
        wanted = self.percentile / 100 * below[-1]
        index = int(np.searchsorted(below, wanted))
        before = int(below[index - 1]) if index else 0
        share = (wanted - before) / (int(below[index]) - before)
        low, high = (np.arange(index, index + 2, dtype=np.uint32) << 16).view(np.float32).tolist()
        reached = min(low + share * (high - low), self._largest)
        return -reached, reached


def _magnitude(values: NDArray[np.float32]) -> float:
    magnitude = max(-float(values.min()), float(values.max()))
    if not np.isfinite(magnitude):
        raise DatasetError(
            "a tensor holds values that are not finite on the calibration pictures",
            "the network itself fails on them: check its weights",
        )
    return magnitude


def _check_seen(seen: bool) -> None:
    if not seen:
        raise DatasetError("nothing was observed", "the calibration set is empty")
