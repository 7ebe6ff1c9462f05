"""The page of a build: budget, drift, what was tried for int8, layers, calibration set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..calib.outcome import Int8Report
from ..files import write_bytes
from ..spec import Budget, Manifest
from ..validate.results import DatasetResult, Subject, worst_drift
from .calibration import calibration_section
from .drift import engine_page
from .int8 import search_sections
from .page import render, signed


def write_build_page(
    path: Path,
    manifest: Manifest,
    quality: Sequence[DatasetResult],
    int8: Int8Report | None = None,
    calibration: Mapping[str, Any] | None = None,
    findings: Sequence[str] = (),
    budget: Budget | None = None,
) -> None:
    """Write the page whole or not at all.

    Args:
        path: File to write; an older one is replaced.
        manifest: Of the engine.
        quality: Drift by picture of the proof set; empty where nothing could be executed.
        int8: The search; None for an engine of another precision.
        calibration: The calibration set as plain JSON.
        findings: Sentences on what was seen while building.
        budget: What the verdict holds the sets and pictures against.

    Raises:
        OutputError: The file cannot be written.
    """
    html = render_build_page(manifest, quality, int8, calibration, findings, budget)
    write_bytes(path, html.encode())


def render_build_page(
    manifest: Manifest,
    quality: Sequence[DatasetResult],
    int8: Int8Report | None = None,
    calibration: Mapping[str, Any] | None = None,
    findings: Sequence[str] = (),
    budget: Budget | None = None,
) -> str:
    """The page as HTML; see :func:`write_build_page`."""
    return render(
        "build.html",
        **engine_page("srdeploy build", _subject(manifest), quality, manifest, budget),
        facts=[*_facts(manifest, quality, budget, int8)],
        findings=findings,
        search=search_sections(int8) if int8 else None,
        calibration=calibration_section(calibration) if calibration else None,
    )


def _subject(manifest: Manifest) -> Subject:
    """What was measured, as the manifest knows it."""
    build, model = manifest.build, manifest.model
    target = build.target
    executed_on = next((record.executed_on for record in manifest.drift), "")
    if not executed_on and manifest.milliseconds is not None:
        executed_on = target
    return Subject(
        model=model.architecture,
        variant=model.variant,
        scale=model.scale,
        target=target,
        precision=build.precision.value,
        executed_on=executed_on,
        engine_executed=executed_on == target,
        int8_mac_share=manifest.int8_mac_share,
    )


def _facts(
    manifest: Manifest,
    quality: Sequence[DatasetResult],
    budget: Budget | None,
    int8: Int8Report | None,
) -> Iterator[tuple[str, str]]:
    """The few figures on top, each with what it is."""
    drift, milliseconds = worst_drift(quality), manifest.milliseconds
    height, width = manifest.build.shapes.optimum
    yield "worst mean drift", "not measured" if math.isnan(drift) else f"{signed(drift)} dB"
    yield _budget(budget, int8)
    yield "of the MACs in int8", f"{manifest.int8_mac_share:.1%}"
    took = "not measured" if milliseconds is None else f"{milliseconds:.1f} ms"
    yield f"a frame of {width}×{height}", took


def _budget(budget: Budget | None, int8: Int8Report | None) -> tuple[str, str]:
    """What the engine is held against, else what the search went by of itself."""
    if budget is not None:
        return "budget of the mean, of a picture", _limits(budget)
    if int8 is not None and math.isfinite(int8.max_drift):
        default = Budget(int8.max_drift, int8.tail * int8.max_drift)
        return "default budget, of the search alone", _limits(default)
    return "budget", "none given"


def _limits(budget: Budget) -> str:
    return f"{signed(-budget.mean)}, {signed(-budget.worst)} dB"
