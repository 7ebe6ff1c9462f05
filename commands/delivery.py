"""What becomes of engines that were built: the best of them, and whether it is delivered."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from ..errors import BuildError, DriftExceeded
from ..spec import Budget
from ..validate.drift import check_budget, held_drift, within_budget, worst_drift
from ..validate.kernel_check import KernelDifference
from . import Say
from .fastest import TIE, fastest, lost
from .one_engine import Built


def best_of(built: Sequence[Built], budget: Budget | None) -> Built:
    """The fastest within the budget; where none is, the one that loses least.

    Those whose kernels do not compute their graph come last: what is measured of them on the
    proof pictures says nothing of others.
    """
    built = [b for b in built if not _kernel_finding(b)] or built
    fitting = [b for b in built if budget is None or within_budget(b.quality, budget)]
    if not fitting:
        assert budget is not None
        return max(built, key=lambda b: (bool(b.quality), held_drift(b.quality, budget)))
    return fastest(fitting, lambda one: one.manifest)


def compared(best: Built, rival: Built, say: Say) -> Built:
    """Say how an int8 engine compares with the float engine; a note of it where that is better."""
    said = f"{_named(best)}; {_named(rival)}"
    if fastest([best, rival], lambda one: one.manifest) is best:
        say(said)
        return best
    ours, theirs = (one.manifest.milliseconds or math.inf for one in (best, rival))
    how = "faster" if theirs * TIE < ours else "as fast"
    less = ", and loses less" if lost(rival.manifest) > lost(best.manifest) else ""
    note = f"float is {how} here{less}: {said}"
    manifest = dataclasses.replace(best.manifest, notes=(*best.manifest.notes, note))
    return dataclasses.replace(best, manifest=manifest)


def _named(built: Built) -> str:
    """What an engine takes and loses, in a few words."""
    build, took = built.manifest.build, built.manifest.milliseconds
    speed = "" if took is None else f" {took:.0f} ms a frame"
    return f"{build.target} {build.precision}{speed} at {worst_drift(built.quality):+z.3f} dB"


def refuse_kernels(built: Built) -> None:
    """Refuse an engine whose kernels do not compute its graph."""
    if said := _kernel_finding(built):
        beyond = [g.layers for g in built.manifest.kernel_groups if g.difference > g.bound]
        where = f"; alone: {', '.join(beyond)}" if beyond else ""
        raise BuildError(
            f"the {built.manifest.build.target} engine is not delivered: {said}{where}",
            "try another --target, or a float precision; --portable avoids sums that saturate",
        )


def _kernel_finding(built: Built) -> str:
    """What is wrong with the kernels of an engine; empty where nothing is known to be."""
    apart, bound = built.manifest.kernel_difference, built.manifest.kernel_bound
    return "" if apart is None or bound is None else KernelDifference(apart, bound).finding


def refuse_drift(built: Built, budget: Budget | None) -> None:
    """Hold the proof against the budget; of int8, say what the best was that was found."""
    if budget is None:
        return
    try:
        check_budget(built.quality, budget)
    except DriftExceeded as exc:
        if built.int8 is None or not built.quality:
            raise
        share, least = built.manifest.int8_mac_share, built.int8.report.min_int8
        raise DriftExceeded(
            f"{exc.message}; that is the best that was found, with {share:.0%} of the MACs in int8",
            f"allow more with --max-drift, less int8 with --min-int8 (now {least:g}), train with"
            " --finetune, or give --calib pictures like yours",
        ) from exc
