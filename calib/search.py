"""Which layers stay in int8: what is fastest within the drift budget, and never too few.

Leaving a layer in float gives back what it loses and costs what its int8 saves. Layers that
int8 does not speed up are float from the start, as far as the least share of int8 allows. The
others are taken in the order of loss for what they save, so that each step of the path is the
cheapest repair left; the shortest path within the budget is found by halving, every point of
it measured by executing the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .cost import Costs
from .outcome import Trial
from .ranges import Progress
from .sensitivity import NodeDrift

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

    Returns:
        Everything that was tried, from little float to much, and which of it is the choice:
        the cheapest within the budget, or where none is, the one that loses least.
    """
    path, first = _path(ranked, macs, costs, min_int8)
    total = max(sum(macs.values()), 1)
    quantisable = sum(macs[node.node] for node in ranked)
    known: dict[int, Trial] = {}

    def trial(length: int) -> Trial:
        if length not in known:
            chosen = tuple(path[:length])
            share = (quantisable - sum(macs[name] for name in chosen)) / total
            plural = "s" if length > 1 else ""
            label = f"{length} layer{plural} in float" if length else "all layers in int8"
            known[length] = Trial(label, chosen, measure(chosen), share, costs.of(chosen))
            if progress:
                progress("searching", len(known), len(path).bit_length() + 2)
        return known[length]

    def fits(length: int) -> bool:
        return trial(length).drift >= -max_drift * MARGIN

    trial(0)
    low, high = first, len(path)
    if not fits(low) and fits(high):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        low = high
    elif not fits(low):
        tried = [length for length in known if length >= first]
        low = max(tried, key=lambda length: known[length].drift)
    lengths = sorted(known)
    return tuple(known[length] for length in lengths), lengths.index(low)


def _path(
    ranked: Sequence[NodeDrift], macs: Mapping[str, int], costs: Costs, min_int8: float
) -> tuple[list[str], int]:
    """Layers to leave in float, in order, and how many of them cost nothing.

    Those that int8 does not speed up come first, then the most gain for what they save, as far
    as the share allows.
    """
    spare = sum(macs[node.node] for node in ranked) - min_int8 * sum(macs.values())

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
    return path, free
