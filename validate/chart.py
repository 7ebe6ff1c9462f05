"""The drift of every picture as bars in an inline SVG; colours come from the page's CSS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..spec import Budget
from .axis import Axis
from .results import DatasetResult

WIDTH, HEIGHT = 760, 250
LEFT, RIGHT, TOP, BOTTOM = 80, 10, 12, 34
GAP = 22  # between two data sets
WIDEST_BAR = 36
LETTER = 7.2  # width of a letter of the set names at their size


def drift_chart(results: Sequence[DatasetResult], budget: Budget | None) -> str:
    """Draw the drift of every executed picture, each set sorted from worst to best.

    Returns:
        An ``<svg>`` element, or nothing where no set was executed.
    """
    executed = [result for result in results if result.pictures]
    if not executed:
        return ""
    levels = [-budget.mean, -budget.worst] if budget else []
    axis = _axis([p.drift for r in executed for p in r.pictures] + levels)
    # A set of few pictures still gets the room that its name takes.
    weights = [max(len(result.pictures), 12) for result in executed]
    room = WIDTH - LEFT - RIGHT
    gap = min(GAP, room / len(executed) / 2)
    unit = (room - gap * len(executed)) / sum(weights)
    parts, left = list(_grid(axis)), LEFT + gap / 2
    for result, weight in zip(executed, weights, strict=True):
        parts.extend(_panel(result, axis, left, weight * unit))
        left += weight * unit + gap
    for value in levels:
        parts.append(_level("budget", axis.at(value)))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Drift per picture in dB">'
        f"{''.join(parts)}</svg>"
    )


def _axis(values: Sequence[float]) -> Axis:
    """The vertical axis, dB; zero is always in sight."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    if high - low < 1e-3:  # nothing drifts: any scale will do, as long as it is one
        low = -1e-2
    return Axis(low, high, HEIGHT - BOTTOM, TOP, margin=0.03)


def _grid(axis: Axis) -> Iterator[str]:
    for value, label in axis.ticks(signed=True):
        y = axis.at(value)
        yield _level("grid" if value else "zero", y)
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}">{label}</text>'


def _panel(result: DatasetResult, axis: Axis, left: float, width: float) -> Iterator[str]:
    """Bars, mean and name of one set."""
    pictures = sorted(result.pictures, key=lambda picture: picture.drift)
    pitch = min(width / len(pictures), WIDEST_BAR * 1.25)
    first = left + (width - pitch * len(pictures)) / 2
    for index, picture in enumerate(pictures):
        y, zero = axis.at(picture.drift), axis.at(0.0)
        kind = "loss" if picture.drift < 0 else "gain"
        # Half a pixel stays visible for a picture that does not drift at all.
        top, height = min(y, zero), max(abs(y - zero), 0.5)
        yield (
            f'<rect class="{kind}" x="{first + pitch * (index + 0.1):.2f}" y="{top:.2f}"'
            f' width="{pitch * 0.8:.2f}" height="{height:.2f}"><title>{escape(result.name)}/'
            f"{escape(picture.name)}: {picture.drift:+z.3f} dB</title></rect>"
        )
    mean, last = axis.at(result.drift), first + pitch * len(pictures)
    yield (
        f'<line class="mean" x1="{first - 4:.1f}" x2="{last + 4:.1f}" y1="{mean:.1f}"'
        f' y2="{mean:.1f}"/>'
    )
    name, letters = result.name, max(int((width + GAP) / LETTER), 3)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…"
    yield (
        f'<text class="set" x="{left + width / 2:.1f}" y="{HEIGHT - 12}">{escape(shown)}'
        f"<title>{escape(name)}</title></text>"
    )


def _level(kind: str, y: float) -> str:
    """A line across the whole chart."""
    return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
