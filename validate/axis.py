"""One axis of a chart: values to pixels, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterator


class Axis:
    """Maps ``low`` to ``high`` onto the pixels from ``start`` to ``end``.

    Attributes:
        step: Distance of two ticks.
        low: The least value in sight.
        high: The greatest.
    """

    def __init__(
        self, low: float, high: float, start: float, end: float, ticks: int = 4, margin: float = 0.0
    ) -> None:
        """Choose the ticks.

        Args:
            low: Finite and below ``high``.
            high: Finite.
            start: Pixel of ``low``.
            end: Pixel of ``high``; below ``start`` where values grow upwards.
            ticks: How many steps, about.
            margin: Room at either end, as a share of the range.
        """
        self.step = _round_step((high - low) / ticks)
        room = margin * (high - low)
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self, signed: bool) -> Iterator[tuple[float, str]]:
        """Value and label of every tick; zero has no sign."""
        decimals = max(0, -math.floor(math.log10(self.step)))
        for index in range(math.ceil(self.low / self.step), math.floor(self.high / self.step) + 1):
            value = index * self.step
            label = f"{value:+z.{decimals}f}" if signed else f"{value:.{decimals}f}"
            yield value, label.replace("-", "−") if index else "0"


def _round_step(rough: float) -> float:
    """The next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
