"""The page of a run: how loss and PSNR went, and what came out beside bicubic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .page import render
from .svg import LEFT, RIGHT, Axis, Drawing

if TYPE_CHECKING:  # importing it needs torch
    from ..train.log import Row
    from ..train.recipe import Recipe

HEIGHT, TOP, BOTTOM = 250, 30, 52
MOST_POINTS = 400
"""Of a curve; of a longer log each point is the mean of several rows."""
MOST_DOTS = 60
"""Of a curve whose points are marked."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """What a page shows.

    Attributes:
        variant: What was trained.
        recipe: How.
        rows: The whole log.
        psnr: Of the result by validation picture and their ``mean``, dB.
        bicubic: Likewise, of bicubic upscaling.
    """

    variant: str
    recipe: Recipe
    rows: Sequence[Row]
    psnr: Mapping[str, float]
    bicubic: Mapping[str, float]


def summary_page(summary: Summary) -> str:
    """The page as HTML."""
    mean, plain = summary.psnr["mean"], summary.bicubic["mean"]
    losses = _thinned([(r.step, r.loss) for r in summary.rows])
    validated = [(r.step, r.psnr) for r in summary.rows if r.psnr is not None]
    return render(
        "training.html",
        kicker="Training",
        title=summary.variant,
        kind="plain",
        headline=f"{mean:.3f} dB" if math.isfinite(mean) else "not validated",
        said=f"PSNR on Y, the mean of {len(summary.psnr) - 1} validation pictures;"
        f" bicubic {plain:.3f} dB",
        facts=[*_facts(summary)],
        charts={
            "Loss": _chart("Loss", "", losses),
            "PSNR, dB": _chart("PSNR, dB", "of the averaged weights ", validated, bicubic=plain),
        },
        pictures=[(name, value, summary.bicubic[name]) for name, value in summary.psnr.items()],
        recipe=[(f.name, str(getattr(summary.recipe, f.name))) for f in fields(summary.recipe)],
    )


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    if summary.rows:
        last = summary.rows[-1]
        yield "steps", f"{last.step:,}"
        yield "hours of training", f"{last.seconds / 3600:.2f}"
        if last.seconds:  # a step may take less than the log's tenth
            yield "patches a second", f"{last.step * summary.recipe.batch / last.seconds:.1f}"


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many points that each can be seen."""
    each = math.ceil(len(points) / MOST_POINTS) or 1
    parts = [points[i : i + each] for i in range(0, len(points), each)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _chart(heading: str, said: str, points: Sequence[Point], **levels: float) -> Drawing | None:
    """A curve over the steps, and named levels; nothing where it has fewer than two points."""
    if len(points) < 2:
        return None
    known = {name: value for name, value in levels.items() if math.isfinite(value)}
    values = [*(y for _, y in points), *known.values()]
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(high), 1e-6):
        low, high = low - 0.1 * abs(low) - 1e-6, high + 0.1 * abs(high) + 1e-6
    across = Axis(0, points[-1][0], LEFT, RIGHT, ticks=6)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP, margin=0.06)
    drawing = Drawing(HEIGHT, f"{heading} {said}over the steps")
    drawing.vertical(up)
    drawing.horizontal(across, HEIGHT - BOTTOM)
    drawing.text("start", 2, 15, heading)
    drawing.text("tick", RIGHT, HEIGHT - 4, "steps →")
    for name, value in known.items():
        drawing.level("budget", up.at(value))
        drawing.text("tick", RIGHT - 4, up.at(value) - 6, name)
    places = [(across.at(x), up.at(y)) for x, y in points]
    drawing.curve(places)
    if len(points) <= MOST_DOTS:
        for (x, y), (step, value) in zip(places, points, strict=True):
            title = f"step {step:.0f}: {value:.5g}"
            drawing.add("circle", "point", title, cx=x, cy=y, r=3.5)
    return drawing
