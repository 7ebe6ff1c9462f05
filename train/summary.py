"""The page of a run: how loss and PSNR went, and what came out beside bicubic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from ..validate.axis import Axis
from ..validate.page import decibels, facts, figure, page, row, table, terms, verdict, words
from .log import Row
from .recipe import Recipe

WIDTH, HEIGHT = 760, 250
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 30, 52
MOST_POINTS = 400
"""Of a curve; of a longer log each point is the mean of several rows."""

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
    body = [
        verdict(
            "plain",
            f"{mean:.3f} dB" if math.isfinite(mean) else "not validated",
            f"PSNR on Y, the mean of {len(summary.psnr) - 1} validation pictures;"
            f" bicubic {plain:.3f} dB",
        ),
        facts(_figures(summary)),
        _chart("Loss", _thinned([(r.step, r.loss) for r in summary.rows]), [], ""),
        _chart(
            "PSNR, dB",
            [(r.step, r.psnr) for r in summary.rows if r.psnr is not None],
            [("bicubic", plain)],
            "of the averaged weights",
        ),
        "<h2>Pictures</h2>",
        table(
            ["Picture", "PSNR, dB", "Bicubic", "Gain"],
            (
                row([words(name), figure(f"{v:.3f}"), figure(f"{b:.3f}"), decibels(v - b)])
                for name, v, b in (
                    (name, value, summary.bicubic[name]) for name, value in summary.psnr.items()
                )
            ),
        ),
        "<h2>Recipe</h2>",
        terms((f.name, str(getattr(summary.recipe, f.name))) for f in fields(summary.recipe)),
    ]
    return page("Training", summary.variant, "".join(body))


def _figures(summary: Summary) -> Iterator[tuple[str, str]]:
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


def _chart(
    heading: str, points: Sequence[Point], levels: Sequence[tuple[str, float]], said: str
) -> str:
    """A curve over the steps; nothing where it has fewer than two points."""
    if len(points) < 2:
        return ""
    values = [y for _, y in points] + [y for _, y in levels if math.isfinite(y)]
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(high), 1e-6):
        low, high = low - 0.1 * abs(low) - 1e-6, high + 0.1 * abs(high) + 1e-6
    across = Axis(0, points[-1][0], LEFT, WIDTH - RIGHT, ticks=6)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP, margin=0.06)
    parts = [
        *_grid(across, up),
        f'<text x="2" y="15">{heading}</text>',
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">steps →</text>',
    ]
    for name, value in levels:
        y = up.at(value)
        parts.append(
            f'<line class="budget" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="tick" x="{WIDTH - RIGHT - 4}" y="{y - 6:.1f}">{name}</text>')
    places = [(across.at(x), up.at(y)) for x, y in points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="front" points="{joined}"/>')
    if len(points) <= 60:
        parts += [
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>step {step:.0f}: {value:.5g}</title></circle>"
            for (x, y), (step, value) in zip(places, points, strict=True)
        ]
    label = f"{heading} {said} over the steps".replace("  ", " ")
    return (
        f"<h2>{heading}</h2><div class='scroll'>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></div>"
    )


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, label in up.ticks(signed=False):
        y = up.at(value)
        yield _line("grid", LEFT, right, y, y)
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}">{label}</text>'
    for value, _ in across.ticks(signed=False):
        x = across.at(value)
        yield _line("grid", x, x, bottom, bottom + 5)
        yield f'<text class="mid" x="{x:.1f}" y="{bottom + 22}">{value:,.0f}</text>'


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
