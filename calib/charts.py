"""Charts of an int8 search as inline SVG; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..validate.axis import Axis
from ..validate.page import signed
from .listing import shortened
from .outcome import Int8Report, Layer, Trial

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 30, 58
PARETO_HEIGHT = 360
LAYER_HEIGHT = 46  # a line of text, a bar before the repairs and one after them
BAR = 8
NAME = 40  # letters of a layer's name
DEEPEST = 10  # times the budget; what lies deeper is drawn at the bottom edge

Place = tuple[float, float]


def pareto_chart(int8: Int8Report) -> str:
    """Draw drift over cost of every trial that has both, numbered as in the table.

    Returns:
        An ``<svg>`` element, or nothing where no trial can be drawn.
    """
    drawn = {i: t for i, t in enumerate(int8.trials) if _finite(t.cost, t.drift)}
    if not drawn:
        return ""
    horizontal = _cost_axis([trial.cost for trial in drawn.values()])
    vertical, floor = _drift_axis([trial.drift for trial in drawn.values()], int8.max_drift)
    places: dict[Place, list[int]] = {}
    for index, trial in drawn.items():
        x, y = horizontal.at(trial.cost), vertical.at(max(trial.drift, floor))
        places.setdefault((round(x), round(y)), []).append(index)
    parts = [
        *_pareto_grid(horizontal, vertical, int8),
        _front(drawn.values(), horizontal, vertical, floor),
        *_points(places, int8, floor),
        *_numbers(places, int8.chosen),
    ]
    return _svg(PARETO_HEIGHT, "Drift and cost of everything that was tried", parts)


def _cost_axis(costs: Sequence[float]) -> Axis:
    low, high = min(costs), max(costs)
    if high - low < 1e-3 * abs(high) or high == low:  # one cost alone stands in the middle
        room = 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
    return Axis(low, high, LEFT, WIDTH - RIGHT, ticks=6, margin=0.05)


def _drift_axis(drifts: Sequence[float], max_drift: float) -> tuple[Axis, float]:
    """The axis, and the least drift that it shows at its true place."""
    budget = -max_drift if math.isfinite(max_drift) else 0.0
    low, high = min(*drifts, budget, 0.0), max(*drifts, 0.0)
    if budget and low < DEEPEST * budget < max(drifts):
        low = DEEPEST * budget
    low = min(low, high - 1e-3)
    return Axis(low, high, PARETO_HEIGHT - BOTTOM, TOP, ticks=5, margin=0.04), low


def _pareto_grid(horizontal: Axis, vertical: Axis, int8: Int8Report) -> Iterator[str]:
    bottom, right = PARETO_HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, label in vertical.ticks(signed=True):
        y = vertical.at(value)
        yield _line("grid" if value else "zero", LEFT, right, y, y)
        yield _text("tick", LEFT - 8, y + 4, label)
    for value, label in horizontal.ticks(signed=False):
        x = horizontal.at(value)
        yield _line("grid", x, x, bottom, bottom + 5)
        yield _text("mid", x, bottom + 23, label)
    yield _text("start", 2, 15, "drift, dB")
    yield _text("tick", right, PARETO_HEIGHT - 6, f"{int8.cost_unit} →")
    if math.isfinite(int8.max_drift):
        y = vertical.at(-int8.max_drift)
        yield _line("budget", LEFT, right, y, y)


def _front(trials: Iterable[Trial], horizontal: Axis, vertical: Axis, floor: float) -> str:
    """Steps along the trials that nothing beats in both cost and drift."""
    corners: list[str] = []
    best = -math.inf
    for trial in sorted(trials, key=lambda trial: (trial.cost, -trial.drift)):
        if trial.drift <= best:
            continue
        x, y = horizontal.at(trial.cost), vertical.at(max(trial.drift, floor))
        if corners:
            corners.append(f"{x:.1f},{vertical.at(max(best, floor)):.1f}")
        corners.append(f"{x:.1f},{y:.1f}")
        best = trial.drift
    return f'<polyline class="front" points="{" ".join(corners)}"/>'


def _points(places: dict[Place, list[int]], int8: Int8Report, floor: float) -> Iterator[str]:
    """The points; the chosen one last, over all others."""
    for (x, y), indices in sorted(places.items(), key=lambda place: int8.chosen in place[1]):
        trials = [int8.trials[index] for index in indices]
        chosen = int8.chosen in indices
        title = "\n".join(trial_title(trial, int8.cost_unit) for trial in trials)
        shape = f'<circle class="point" cx="{x:g}" cy="{y:g}" r="{6 if chosen else 5}"/>'
        if max(trial.drift for trial in trials) < floor:
            shape = f'<path class="point" d="M{x - 6:g} {y - 5:g}h12l-6 10z"/>'
        ring = f'<circle class="ring" cx="{x:g}" cy="{y:g}" r="11"/>' if chosen else ""
        kind = "chosen" if chosen else "other"
        yield f'<g class="{kind}"><title>{escape(title)}</title>{ring}{shape}</g>'


def trial_title(trial: Trial, unit: str) -> str:
    """A trial in one line."""
    return (
        f"{trial.label}: {trial.int8_share:.1%} int8, {signed(trial.drift)} dB,"
        f" {figure_of(trial.cost)} {unit}"
    )


def figure_of(cost: float) -> str:
    """A cost, or a dash where it is not known."""
    if not math.isfinite(cost):
        return "–"
    return f"{cost:.3f}" if abs(cost) < 10 else f"{cost:,.2f}"


def _numbers(places: dict[Place, list[int]], chosen: int) -> Iterator[str]:
    """Numbers of the trials beside their points, where there is room."""
    taken: list[Place] = []
    for (x, y), indices in sorted(places.items(), key=lambda place: chosen not in place[1]):
        left, top = x + 12, y - 9 if y > TOP + 10 else y + 20
        if left > WIDTH - RIGHT - 10:
            left = x - 32
        if any(abs(left - other) < 30 and abs(top - above) < 18 for other, above in taken):
            continue
        taken.append((left, top))
        shown = ", ".join(str(index + 1) for index in indices[:2]) + "…" * (len(indices) > 2)
        yield _text("number", left, top, shown)


def sensitivity_chart(layers: Sequence[Layer]) -> str:
    """Draw what each layer alone loses in int8, before and after the repairs.

    Args:
        layers: In the order to draw, from the top.

    Returns:
        An ``<svg>`` element, or nothing where there is no layer.
    """
    if not layers:
        return ""
    found = [d for layer in layers for d in (layer.plain_drift, layer.drift) if _finite(d)]
    loss, gain = max([-d for d in found] + [1e-3]), max([*found, 0.0])
    axis = Axis(-gain, loss, 4, WIDTH - RIGHT, ticks=5)
    height = LAYER_HEIGHT * len(layers) + 32
    parts: list[str] = []
    for value, label in axis.ticks(signed=True):
        x = axis.at(value)
        parts.append(_line("grid" if value else "zero", x, x, 0, height - 26))
        flipped = label.translate(_FLIPPED)
        parts.append(_text("mid" if x > 20 else "start", max(x, 2), height - 6, flipped))
    for index, layer in enumerate(layers):
        parts.extend(_layer(layer, axis, index * LAYER_HEIGHT))
    return _svg(height, "Drift of each layer alone in int8", parts)


_FLIPPED = str.maketrans("+−", "−+")  # a loss points to the right


def _layer(layer: Layer, axis: Axis, top: int) -> Iterator[str]:
    before, after = signed_or_dash(layer.plain_drift), signed_or_dash(layer.drift)
    figures = f"{before} → {after} dB, {layer.precision}"
    title = escape(f"{layer.node}: {figures}")
    yield "<g>"
    yield f"<title>{title}</title>"
    yield _text("name", 10, top + 20, shortened(layer.node, NAME))
    yield _text("tick", WIDTH - RIGHT, top + 20, figures)
    for kind, value, y in (("before", layer.plain_drift, 26), ("after", layer.drift, 35)):
        if not _finite(value):
            continue
        zero, end = axis.at(0.0), axis.at(-value)
        # A pixel stays visible for a layer that does not drift at all.
        left, width = min(zero, end), max(abs(end - zero), 1.0)
        yield (
            f'<rect class="{kind} {layer.precision}" x="{left:.1f}" y="{top + y}"'
            f' width="{width:.1f}" height="{BAR}"/>'
        )
    yield "</g>"


def signed_or_dash(value: float) -> str:
    """A drift, or a dash where it is not known."""
    return signed(value) if _finite(value) else "–"


def histogram(shares: Sequence[float], label: str) -> str:
    """Draw shares as a row of small bars."""
    most = max([*shares, 1e-9])
    bars = "".join(
        f'<rect class="loss" x="{20 * i}" y="{60 - 58 * max(share, 0) / most:.1f}" width="18"'
        f' height="{max(58 * max(share, 0) / most, 0.5):.1f}"><title>{share:.1%}</title></rect>'
        for i, share in enumerate(shares)
    )
    return (
        f'<svg class="small" viewBox="0 0 {20 * len(shares)} 60" role="img"'
        f' aria-label="{escape(label)}">{bars}</svg>'
    )


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))
