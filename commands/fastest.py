"""Which of several engines of a network to take: by the figures in their manifests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..spec import Manifest

T = TypeVar("T")

TIE = 1.05
"""Times the least time up to which times count as equal: the clock tells no more."""


def fastest(engines: Sequence[T], manifest_of: Callable[[T], Manifest]) -> T:
    """The engine that takes least time; of those that take as much, the one that loses least.

    Args:
        engines: At least one; those that were not timed come last.
        manifest_of: Gives the manifest of one.
    """

    def took(engine: T) -> float:
        return manifest_of(engine).milliseconds or math.inf

    least = min(map(took, engines))
    tied = [engine for engine in engines if took(engine) <= least * TIE]
    return max(tied, key=lambda engine: lost(manifest_of(engine)))


def lost(manifest: Manifest) -> float:
    """The lowest mean drift that an engine was measured to have, dB, of hard sets where there are
    no others; −∞ where none was."""
    held = [record for record in manifest.drift if not record.hard] or manifest.drift
    return min((record.drift for record in held), default=-math.inf)


def keeps_budget(manifest: Manifest) -> bool:
    """Whether an engine was measured to lose no more than what it was built to."""
    budget = manifest.budget
    return budget is None or all(
        (record.hard or record.drift >= -budget.mean)
        and (record.worst_drift or 0.0) >= -budget.worst
        for record in manifest.drift
    )
