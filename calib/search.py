"""Which layers stay in int8: as many as the drift budget allows, and never too few.

Leaving a layer in float gives back what it loses and costs its multiply-accumulates. Layers are
taken in the order of loss per multiply-accumulate, so that each step of the path is the cheapest
repair left; the shortest path within the budget is found by halving, every point of it measured
by executing the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .ranges import Progress
from .sensitivity import NodeDrift

MARGIN = 0.5
"""Share of the budget that may be lost on the tuning windows: other pictures lose more."""


@dataclass(frozen=True)
class Trial:
    """A choice of layers, and what it was measured to be.

    Attributes:
        float_nodes: Layers left in float.
        drift: Change of the mean PSNR-Y on the tuning windows, dB.
        int8_share: Of the Conv and MatMul MACs.
    """

    float_nodes: tuple[str, ...]
    drift: float
    int8_share: float


@dataclass(frozen=True)
class SearchResult:
    """The choice, and everything that was tried, in the order of int8 share."""

    chosen: Trial
    trials: tuple[Trial, ...]


def search(
    ranked: Sequence[NodeDrift],
    macs: Mapping[str, int],
    measure: Callable[[Sequence[str]], float],
    max_drift: float,
    min_int8: float,
    progress: Progress | None = None,
) -> SearchResult:
    """Find the fewest MACs in float that keep the drift within the budget.

    Args:
        ranked: What each quantisable layer alone loses.
        macs: Multiply-accumulates of every Conv and MatMul, quantisable or not.
        measure: Takes the layers left in float, returns the drift on the tuning windows, dB.
        max_drift: The budget, dB; :data:`MARGIN` of it may be lost on the tuning windows.
        min_int8: Least share of MACs in int8. Where even all quantisable layers are less, none
            is left in float.

    Returns:
        The choice within the budget with the largest share of int8; where none is, the best.
    """
    path = _path(ranked, macs, min_int8)
    total = max(sum(macs.values()), 1)
    quantisable = sum(macs[node.node] for node in ranked)
    known: dict[int, Trial] = {}

    def trial(length: int) -> Trial:
        if length not in known:
            chosen = path[:length]
            share = (quantisable - sum(macs[name] for name in chosen)) / total
            known[length] = Trial(tuple(chosen), measure(chosen), share)
            if progress:
                progress("searching", len(known), len(path).bit_length() + 2)
        return known[length]

    def fits(length: int) -> bool:
        return trial(length).drift >= -max_drift * MARGIN

    low, high = 0, len(path)
    if not fits(low) and fits(high):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        low = high
    elif not fits(low):
        low = max(known, key=lambda length: known[length].drift)
    trials = sorted(known.values(), key=lambda found: -found.int8_share)
    return SearchResult(trial(low), tuple(trials))


def _path(ranked: Sequence[NodeDrift], macs: Mapping[str, int], min_int8: float) -> list[str]:
    """Layers to leave in float, the most gain per MAC first, as far as the share allows."""
    spare = sum(macs[node.node] for node in ranked) - min_int8 * sum(macs.values())
    losing = [node for node in ranked if node.drift < 0]
    path = []
    for node in sorted(losing, key=lambda node: node.drift / macs[node.node]):
        if macs[node.node] <= spare:
            path.append(node.node)
            spare -= macs[node.node]
    return path
