"""Drift by picture, as every page on an engine shows it, and the page of ``validate --report``."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import write_bytes
from ..spec import Budget, Manifest
from ..validate.crops import Crop
from ..validate.datasets import Picture
from ..validate.drift import PSNR_CAP
from ..validate.results import DatasetResult, Subject, within_budget, worst_drift, worst_picture
from .engine import NOT_EXECUTED, execution, identity
from .page import render as render_page
from .page import signed
from .svg import LEFT, RIGHT, Axis, Drawing

WORST_PICTURES = 3
GAIN = 8  # a difference of 1/255 is invisible; times 8 its place can be seen
FIGURES = {
    "psnr_reference": "PSNR reference",
    "psnr_engine": "PSNR engine",
    "drift": "Drift",
    "fidelity": "Fidelity",
    "ssim_reference": "SSIM reference",
    "ssim_engine": "SSIM engine",
}
HEIGHT, TOP, BOTTOM = 250, 12, 34
GAP = 22  # between two data sets
WIDEST_BAR = 36
LETTER = 7.2  # width of a letter of the set names at their size


def write_report(
    path: Path,
    subject: Subject,
    results: Sequence[DatasetResult],
    manifest: Manifest | None = None,
    budget: Budget | None = None,
) -> None:
    """Write the report whole or not at all.

    Args:
        path: File to write; an older one is replaced.
        subject: What was measured.
        results: What :func:`~srdeploy.validate.drift.measure` found.
        manifest: Of the engine; without one its identity is left out.
        budget: What the verdict holds the sets and pictures against.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes(path, render(subject, results, manifest, budget).encode())


def render(
    subject: Subject,
    results: Sequence[DatasetResult],
    manifest: Manifest | None = None,
    budget: Budget | None = None,
) -> str:
    """The report as HTML; see :func:`write_report`."""
    crops = sorted((c for r in results for c in r.crops), key=lambda crop: crop.drift)
    return render_page(
        "drift.html",
        **engine_page("srdeploy drift report", subject, results, manifest, budget),
        held=f"The budget is {budget}. " if budget else "",
        gain=GAIN,
        crops=[(crop, _views(crop)) for crop in crops[:WORST_PICTURES]],
    )


def engine_page(
    kicker: str,
    subject: Subject,
    results: Sequence[DatasetResult],
    manifest: Manifest | None,
    budget: Budget | None,
) -> dict[str, Any]:
    """What ``page.html``, ``quality.html`` and ``engine.html`` show of an engine."""
    kind, said = headline(results, budget)
    return {
        "kicker": kicker,
        "title": f"{subject.variant} · {subject.precision} · {subject.target}",
        "kind": kind,
        "headline": said,
        "execution": execution(subject),
        "budget": budget,
        "drawing": drift_chart(results, budget),
        "figures": list(FIGURES),
        "heads": list(FIGURES.values()),
        "sets": [(r, {figure: r.mean(figure) for figure in FIGURES}) for r in results],
        "contents": [(r.name, content) for r in results for content in r.contents()],
        "not_executed": NOT_EXECUTED,
        "figure_text": _figure_text,
        "engine": identity(subject, results, manifest),
    }


def headline(results: Sequence[DatasetResult], budget: Budget | None) -> tuple[str, str]:
    """CSS class and words of the verdict."""
    worst = worst_drift(results)
    if math.isnan(worst):
        idle = [result.name for result in results if not result.pictures]
        return "open", f"Not measured: {', '.join(idle) or 'no data set'}"
    name = min(results, key=lambda result: (result.hard, result.drift)).name
    picture, lost = worst_picture(results)
    loss = f"worst mean drift {signed(worst)} dB, on {name}; worst picture {picture},"
    loss += f" {signed(lost)} dB"
    if budget is None:
        return "plain", f"Measured: {loss}"
    if within_budget(results, budget):
        return "pass", f"Within the budget: {loss}"
    return "fail", f"Over the budget: {loss}"


def _figure_text(kind: str, value: float) -> str:
    """A PSNR, fidelity or SSIM; ``kind`` is a key of :data:`FIGURES`."""
    if math.isnan(value):
        return NOT_EXECUTED
    if kind.startswith("ssim"):
        return f"{value:.4f}"
    return f"≥ {PSNR_CAP:.0f}" if value >= PSNR_CAP else f"{value:.3f}"


def _views(crop: Crop) -> list[tuple[str, Picture, str]]:
    """Label, pixels and data URI of what is shown of a crop."""
    views = {
        "bicubic": crop.bicubic,
        "reference": crop.reference,
        "engine": crop.engine,
        "ground truth": crop.truth,
        f"{GAIN} × difference": crop.difference(GAIN),
    }
    return [(label, picture, _data_uri(picture)) for label, picture in views.items()]


def _data_uri(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def drift_chart(results: Sequence[DatasetResult], budget: Budget | None) -> Drawing | None:
    """The drift of every executed picture as a bar, each set sorted from worst to best.

    Returns:
        None where no set was executed.
    """
    executed = [result for result in results if result.pictures]
    if not executed:
        return None
    levels = [-budget.mean, -budget.worst] if budget else []
    axis = _axis([p.drift for r in executed for p in r.pictures] + levels)
    # A set of few pictures still gets the room that its name takes.
    weights = [max(len(result.pictures), 12) for result in executed]
    gap = min(GAP, (RIGHT - LEFT) / len(executed) / 2)
    unit = (RIGHT - LEFT - gap * len(executed)) / sum(weights)
    drawing, left = Drawing(HEIGHT, "Drift per picture in dB"), LEFT + gap / 2
    drawing.vertical(axis, signed=True)
    for result, weight in zip(executed, weights, strict=True):
        _panel(drawing, result, axis, left, weight * unit)
        left += weight * unit + gap
    for value in levels:
        drawing.level("budget", axis.at(value))
    return drawing


def _axis(values: Sequence[float]) -> Axis:
    """The vertical axis, dB; zero is always in sight."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    if high - low < 1e-3:  # nothing drifts: any scale will do, as long as it is one
        low = -1e-2
    return Axis(low, high, HEIGHT - BOTTOM, TOP, margin=0.03)


def _panel(drawing: Drawing, result: DatasetResult, axis: Axis, left: float, width: float) -> None:
    """Bars, mean and name of one set."""
    pitch = min(width / len(result.pictures), WIDEST_BAR * 1.25)
    first = left + (width - pitch * len(result.pictures)) / 2
    for index, picture in enumerate(sorted(result.pictures, key=lambda picture: picture.drift)):
        y, zero = axis.at(picture.drift), axis.at(0.0)
        drawing.bar(
            "loss" if picture.drift < 0 else "gain",
            first + pitch * (index + 0.1),
            min(y, zero),
            pitch * 0.8,
            # Half a pixel stays visible for a picture that does not drift at all.
            max(abs(y - zero), 0.5),
            f"{result.name}/{picture.name}: {picture.drift:+z.3f} dB",
        )
    mean, last = axis.at(result.drift), first + pitch * len(result.pictures)
    drawing.line("mean", first - 4, last + 4, mean, mean)
    name, letters = result.name, max(int((width + GAP) / LETTER), 3)
    shown = name if len(name) <= letters else f"{name[: letters - 1]}…"
    drawing.text("set", left + width / 2, HEIGHT - 12, shown, name)
