"""The search for an int8 graph on a page: everything tried, and what each layer loses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..calib.listing import shortened
from ..calib.outcome import Int8Report, Layer, Trial
from ..spec import Precision
from .page import signed
from .svg import LEFT, RIGHT, Axis, Drawing

CHARTED_LAYERS = 20
PARETO_HEIGHT = 360
TOP, BOTTOM = 30, 58
LAYER_HEIGHT = 46  # a line of text, a bar before the repairs and one after them
BAR = 8
NAME = 40  # letters of a layer's name
DEEPEST = 10  # times the budget; what lies deeper is drawn at the bottom edge

Place = tuple[float, float]


def search_sections(int8: Int8Report) -> dict[str, Any]:
    """What ``search.html`` shows: the search, its two charts and what explains them."""
    charted = int8.layers[:CHARTED_LAYERS]
    return {
        "int8": int8,
        "baseline": signed(int8.baseline, "not measured") + " dB" * math.isfinite(int8.baseline),
        "limited": math.isfinite(int8.max_drift),
        "pareto": pareto_chart(int8),
        "sensitivity": sensitivity_chart(charted),
        "charted": len(charted),
        "precisions": [p for p in Precision if any(layer.precision is p for layer in charted)],
        "cost": figure_of,
    }


def pareto_chart(int8: Int8Report) -> Drawing | None:
    """Drift over cost of every trial that has both, numbered as in the table.

    Returns:
        None where no trial can be drawn.
    """
    drawn = {i: t for i, t in enumerate(int8.trials) if _finite(t.cost, t.drift)}
    if not drawn:
        return None
    horizontal = _cost_axis([trial.cost for trial in drawn.values()])
    vertical, floor = _drift_axis([trial.drift for trial in drawn.values()], int8.max_drift)
    places: dict[Place, list[int]] = {}
    for index, trial in drawn.items():
        x, y = horizontal.at(trial.cost), vertical.at(max(trial.drift, floor))
        places.setdefault((round(x), round(y)), []).append(index)
    drawing = Drawing(PARETO_HEIGHT, "Drift and cost of everything that was tried")
    drawing.vertical(vertical, signed=True)
    drawing.horizontal(horizontal, PARETO_HEIGHT - BOTTOM)
    drawing.text("start", 2, 15, "drift, dB")
    drawing.text("tick", RIGHT, PARETO_HEIGHT - 6, f"{int8.cost_unit} →")
    if math.isfinite(int8.max_drift):
        drawing.level("budget", vertical.at(-int8.max_drift))
    drawing.curve(_front(drawn.values(), horizontal, vertical, floor))
    _points(drawing, places, int8, floor)
    _numbers(drawing, places, int8.chosen)
    return drawing


def _cost_axis(costs: Sequence[float]) -> Axis:
    low, high = min(costs), max(costs)
    if high - low < 1e-3 * abs(high) or high == low:  # one cost alone stands in the middle
        room = 0.1 * abs(high) or 1.0
        low, high = low - room, high + room
    return Axis(low, high, LEFT, RIGHT, ticks=6, margin=0.05)


def _drift_axis(drifts: Sequence[float], max_drift: float) -> tuple[Axis, float]:
    """The axis, and the least drift that it shows at its true place."""
    budget = -max_drift if math.isfinite(max_drift) else 0.0
    low, high = min(*drifts, budget, 0.0), max(*drifts, 0.0)
    if budget and low < DEEPEST * budget < max(drifts):
        low = DEEPEST * budget
    low = min(low, high - 1e-3)
    return Axis(low, high, PARETO_HEIGHT - BOTTOM, TOP, ticks=5, margin=0.04), low


def _front(trials: Iterable[Trial], horizontal: Axis, vertical: Axis, floor: float) -> list[Place]:
    """Corners of the steps along the trials that nothing beats in both cost and drift."""
    corners: list[Place] = []
    best = -math.inf
    for trial in sorted(trials, key=lambda trial: (trial.cost, -trial.drift)):
        if trial.drift <= best:
            continue
        x = horizontal.at(trial.cost)
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, vertical.at(max(trial.drift, floor))))
        best = trial.drift
    return corners


def _points(
    drawing: Drawing, places: dict[Place, list[int]], int8: Int8Report, floor: float
) -> None:
    """The points; the chosen one last, over all others."""
    for (x, y), indices in sorted(places.items(), key=lambda place: int8.chosen in place[1]):
        trials = [int8.trials[index] for index in indices]
        chosen = int8.chosen in indices
        title = "\n".join(_said_of(trial, int8.cost_unit) for trial in trials)
        with drawing.group("chosen" if chosen else "other", title):
            if chosen:
                drawing.add("circle", "ring", cx=x, cy=y, r=11)
            if max(trial.drift for trial in trials) < floor:
                drawing.add("path", "point", d=f"M{x - 6:g} {y - 5:g}h12l-6 10z")
            else:
                drawing.add("circle", "point", cx=x, cy=y, r=6 if chosen else 5)


def _said_of(trial: Trial, unit: str) -> str:
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


def _numbers(drawing: Drawing, places: dict[Place, list[int]], chosen: int) -> None:
    """Numbers of the trials beside their points, where there is room."""
    taken: list[Place] = []
    for (x, y), indices in sorted(places.items(), key=lambda place: chosen not in place[1]):
        left, top = x + 12, y - 9 if y > TOP + 10 else y + 20
        if left > RIGHT - 10:
            left = x - 32
        if any(abs(left - other) < 30 and abs(top - above) < 18 for other, above in taken):
            continue
        taken.append((left, top))
        shown = ", ".join(str(index + 1) for index in indices[:2]) + "…" * (len(indices) > 2)
        drawing.text("number", left, top, shown)


def sensitivity_chart(layers: Sequence[Layer]) -> Drawing:
    """What each layer alone loses in int8, before and after the repairs.

    Args:
        layers: In the order to draw, from the top.
    """
    found = [d for layer in layers for d in (layer.plain_drift, layer.drift) if _finite(d)]
    loss, gain = max([-d for d in found] + [1e-3]), max([*found, 0.0])
    axis = Axis(-gain, loss, 4, RIGHT, ticks=5)
    height = LAYER_HEIGHT * len(layers) + 32
    drawing = Drawing(height, "Drift of each layer alone in int8")
    for value, label in axis.ticks(signed=True):
        x = axis.at(value)
        drawing.line("grid" if value else "zero", x, x, 0, height - 26)
        flipped = label.translate(_FLIPPED)
        drawing.text("mid" if x > 20 else "start", max(x, 2), height - 6, flipped)
    for index, layer in enumerate(layers):
        _layer(drawing, layer, axis, index * LAYER_HEIGHT)
    return drawing


_FLIPPED = str.maketrans("+−", "−+")  # a loss points to the right


def _layer(drawing: Drawing, layer: Layer, axis: Axis, top: int) -> None:
    figures = f"{signed(layer.plain_drift)} → {signed(layer.drift)} dB, {layer.precision}"
    with drawing.group("", f"{layer.node}: {figures}"):
        drawing.text("name", 10, top + 20, shortened(layer.node, NAME))
        drawing.text("tick", RIGHT, top + 20, figures)
        for kind, value, y in (("before", layer.plain_drift, 26), ("after", layer.drift, 35)):
            if _finite(value):
                zero, end = axis.at(0.0), axis.at(-value)
                # A pixel stays visible for a layer that does not drift at all.
                width = max(abs(end - zero), 1.0)
                drawing.bar(f"{kind} {layer.precision}", min(zero, end), top + y, width, BAR)


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))
