"""Which layers stay in int8: what is fastest within the drift budget, and never too few.

Leaving a layer in float gives back what it loses and costs what its int8 saves, which is less than
nothing where int8 is the slower one. At a price for a decibel, the layers in float are those that
gain most by both, as far as the least share of int8 allows. The lowest price whose choice is within
the budget is found by halving, every choice measured by executing the graph. Source of the price:
Everett, "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation of
Resources", Operations Research 11(3), 1963.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..spec import TAIL
from .cost import Costs
from .outcome import Trial
from .ranges import Progress
from .sensitivity import NodeDrift

Choice = tuple[str, ...]
"""Layers in float."""

Windows = NDArray[np.float64]

MARGIN = 0.75
"""Share of the budget that may be lost on the tuning windows: other pictures lose more."""

FINEST = 1.05
"""Ratio of two prices from which they are taken for one."""

MOST = 10
"""Choices that a search measures, about."""


def search(
    ranked: Sequence[NodeDrift],
    macs: Mapping[str, int],
    costs: Costs,
    measure: Callable[[Sequence[str]], float],
    max_drift: float,
    min_int8: float,
    progress: Progress | None = None,
    tail: float = TAIL,
) -> tuple[tuple[Trial, ...], int]:
    """Find the cheapest choice of float layers that keeps the drift within the budget.

    Args:
        ranked: What each quantisable layer alone loses.
        macs: Multiply-accumulates of every Conv and MatMul, quantisable or not.
        costs: What int8 saves in each quantisable layer.
        measure: Takes the layers left in float, returns the drift on the tuning windows, dB.
        max_drift: The budget, dB; :data:`MARGIN` of it may be lost on the tuning windows.
        min_int8: Least share of MACs in int8. Where even all quantisable layers are less, none
            is left in float.
        progress: Told the choices that are measured.
        tail: Times the mean's loss that the worst window may lose.

    Returns:
        Everything that was tried, from little float to much, and which of it is the choice:
        the cheapest within the budget, or where none is, the one that loses least.
    """
    total = max(sum(macs.values()), 1)
    quantisable = sum(macs[node.node] for node in ranked)
    layers = _Layers(ranked, macs, costs, quantisable - min_int8 * total, tail)
    known: dict[Choice, Trial] = {}

    def trial(chosen: Choice) -> Trial:
        if chosen not in known:
            share = (quantisable - sum(macs[name] for name in chosen)) / total
            plural = "s" if len(chosen) > 1 else ""
            label = f"{len(chosen)} layer{plural} in float" if chosen else "all layers in int8"
            known[chosen] = Trial(label, chosen, measure(chosen), share, costs.of(chosen))
            if progress:
                progress("searching", len(known), max(MOST, len(known)))
        return known[chosen]

    def fits(chosen: Choice) -> bool:
        return trial(chosen).drift >= -max_drift * MARGIN

    trial(())
    low, high = layers.prices
    if not fits(layers.at(low)) and fits(layers.at(high)):
        while layers.at(low) != layers.at(high) and high / low > FINEST:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if fits(layers.at(middle)) else (middle, high)
    within = [chosen for chosen in known if fits(chosen)]
    if within:
        found = min(within, key=lambda chosen: (known[chosen].cost, -known[chosen].drift))
    else:
        found = max(known, key=lambda chosen: known[chosen].drift)
    trials = sorted(known.values(), key=lambda t: (len(t.float_nodes), -t.int8_share))
    return tuple(trials), trials.index(known[found])


class _Layers:
    """What can be in int8, for choices of what is in float.

    Args:
        ranked: What each layer alone loses; what several lose in a tuning window is taken for the
            sum.
        macs: Multiply-accumulates of each.
        costs: What int8 saves in each.
        spare: Multiply-accumulates that may be in float.
        tail: Times the mean's loss that the worst window may lose.
    """

    def __init__(
        self,
        ranked: Sequence[NodeDrift],
        macs: Mapping[str, int],
        costs: Costs,
        spare: float,
        tail: float,
    ) -> None:
        self._names = [node.node for node in ranked]
        self._lost = np.array([node.windows or (node.drift,) for node in ranked])
        self._saved = np.array([costs.saved[name] for name in self._names])
        self._macs = np.array([float(macs[name]) for name in self._names])
        self._spare, self._tail = spare, tail
        self._chosen: dict[float, Choice] = {}

    @property
    def prices(self) -> tuple[float, float]:
        """The least and the highest price that tell choices apart: at the one costs alone count, at
        the other losses alone."""
        saved = np.abs(self._saved[self._saved != 0])
        gains = self._gains(self._lost.sum(0))
        gains = gains[gains > 0]
        if not saved.size or not gains.size:
            return 1.0, 1.0
        return float(saved.min() / gains.sum()) / 2, float(saved.sum() / gains.min()) * 2

    def at(self, price: float) -> Choice:
        """Layers to leave in float, at a price for a decibel.

        Both rules for filling a knapsack are tried, by gain and by gain for what it takes.
        """
        if price not in self._chosen:
            filled = [self._filled(price, per) for per in (np.ones_like(self._macs), self._macs)]
            _, best = max(filled, key=lambda made: made[0])
            self._chosen[price] = tuple(self._names[index] for index in best)
        return self._chosen[price]

    def _filled(self, price: float, per: Windows) -> tuple[float, list[int]]:
        """Gain and layers, the best first."""
        left, spare, gained = self._lost.sum(0), self._spare, 0.0
        chosen: list[int] = []
        while True:
            scores = price * self._gains(left) - self._saved
            able = (
                (self._macs <= spare + 1e-6) & (scores >= 0) & ((scores > 0) | (self._saved == 0))
            )
            able[chosen] = False
            if not able.any():
                return gained, chosen
            best = int(np.argmax(np.where(able, scores / per, -np.inf)))
            chosen.append(best)
            left = left - self._lost[best]
            spare -= self._macs[best]
            gained += float(scores[best])

    def _gains(self, left: Windows) -> Windows:
        """Decibels that each layer gives back of what is lost, the mean and the worst window
        together: by the worst alone, most layers would not count."""
        return self._held(left - self._lost) - self._held(left)

    def _held(self, windows: Windows) -> Windows:
        held: Windows = windows.mean(-1) + windows.min(-1) / self._tail
        return held
