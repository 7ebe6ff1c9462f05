"""Which layers stay in int8: what is fastest within the drift budget, and never too few.

Leaving a layer in float gives back what it loses and costs what its int8 saves. Layers that
int8 does not speed up are float from the start, as far as the least share of int8 allows. The
others are taken in the order of loss for what they save, so that each step of the path is the
cheapest repair left; the shortest path within the budget is found by halving, every point of
it measured by executing the graph. Where the share is used up before the budget is met, it goes
to the layers that lose most, whatever they cost.
"""

from __future__ import annotations

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
    cheapest, free = _path(ranked, macs, costs, min_int8)
    total = max(sum(macs.values()), 1)
    quantisable = sum(macs[node.node] for node in ranked)
    known: dict[Choice, Trial] = {}
    most = len(cheapest).bit_length() + 2

    def trial(chosen: Choice) -> Trial:
        if chosen not in known:
            share = (quantisable - sum(macs[name] for name in chosen)) / total
            plural = "s" if len(chosen) > 1 else ""
            label = f"{len(chosen)} layer{plural} in float" if chosen else "all layers in int8"
            known[chosen] = Trial(label, chosen, measure(chosen), share, costs.of(chosen))
            if progress:
                progress("searching", len(known), max(most, len(known)))
        return known[chosen]

    def fits(chosen: Choice) -> bool:
        return trial(chosen).drift >= -max_drift * MARGIN

    trial(())
    found = _shortest(cheapest, free, fits)
    if found is None:
        found = _shortest(_most_regained(ranked, macs, min_int8, tail), 0, fits)
    if found is None:
        tried = [chosen for chosen in known if chosen or not free]
        found = max(tried, key=lambda chosen: known[chosen].drift)
    trials = sorted(known.values(), key=lambda t: (len(t.float_nodes), -t.int8_share))
    return tuple(trials), trials.index(known[found])


def _shortest(path: Choice, first: int, fits: Callable[[Choice], bool]) -> Choice | None:
    """The shortest part of a path from its beginning that fits, found by halving; None for none."""
    low, high = first, len(path)
    if fits(path[:low]):
        return path[:low]
    if not fits(path[:high]):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(path[:middle]) else (middle, high)
    return path[:high]


def _most_regained(
    ranked: Sequence[NodeDrift], macs: Mapping[str, int], min_int8: float, tail: float
) -> Choice:
    """Layers whose floats regain most within the share, that which regains most first.

    What several layers lose in a tuning window is taken for the sum of what each does. Both rules
    for filling a knapsack are tried, by gain and by gain for what it takes.
    """
    lost = np.array([node.windows or (node.drift,) for node in ranked])
    weights = np.array([float(macs[node.node]) for node in ranked])
    spare = _spare(ranked, macs, min_int8)
    filled = [_filled(lost, weights, spare, per, tail) for per in (np.ones_like(weights), weights)]
    best = max(filled, key=lambda chosen: _held(lost, chosen, tail))
    return tuple(ranked[index].node for index in best)


def _filled(lost: Windows, weights: Windows, spare: float, per: Windows, tail: float) -> list[int]:
    chosen: list[int] = []
    while True:
        able = [
            index
            for index in range(len(lost))
            if index not in chosen and weights[index] <= spare + 1e-6
        ]
        now = _held(lost, chosen, tail)
        gains = {i: (_held(lost, [*chosen, i], tail) - now) / per[i] for i in able}
        if not gains or max(gains.values()) <= 0:
            return chosen
        chosen.append(max(gains, key=gains.__getitem__))
        spare -= weights[chosen[-1]]


def _held(lost: Windows, in_float: Sequence[int], tail: float) -> float:
    """The mean and the worst window together: of the worst alone, most layers would not count."""
    windows = np.delete(lost, in_float, axis=0).sum(axis=0)
    return float(windows.mean() + windows.min() / tail)


def _spare(ranked: Sequence[NodeDrift], macs: Mapping[str, int], min_int8: float) -> float:
    """MACs that may be in float, of those that can be in int8."""
    return sum(macs[node.node] for node in ranked) - min_int8 * sum(macs.values())


def _path(
    ranked: Sequence[NodeDrift], macs: Mapping[str, int], costs: Costs, min_int8: float
) -> tuple[Choice, int]:
    """Layers to leave in float, in order, and how many of them cost nothing.

    Those that int8 does not speed up come first, then the most gain for what they save, as far
    as the share allows.
    """
    spare = _spare(ranked, macs, min_int8)

    def worth(node: NodeDrift) -> tuple[bool, float]:
        saved = costs.saved[node.node]
        return saved > 0, node.drift / (saved if saved > 0 else macs[node.node])

    path = []
    free = 0
    for node in sorted(ranked, key=worth):
        helps = costs.saved[node.node] > 0
        if macs[node.node] <= spare and (node.drift < 0 or not helps):
            path.append(node.node)
            spare -= macs[node.node]
            free += not helps
    return tuple(path), free
