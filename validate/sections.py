"""What the pages on an engine's quality share: verdict, drift by picture, identity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..spec import Budget, DriftRecord, Manifest
from .chart import drift_chart
from .drift import PSNR_CAP
from .page import counted, decibels, figure, folded, listed, row, signed, table, terms, words
from .results import DatasetResult, Subject, within_budget, worst_drift, worst_picture

FIGURES = {
    "psnr_reference": "PSNR reference",
    "psnr_engine": "PSNR engine",
    "drift": "Drift",
    "fidelity": "Fidelity",
    "ssim_reference": "SSIM reference",
    "ssim_engine": "SSIM engine",
}
NOT_EXECUTED = "not executed"


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


def execution(subject: Subject) -> str:
    """Whether the engine itself gave the figures; ``executed_on`` is empty where none did."""
    if subject.engine_executed:
        return f"The engine itself was executed, on {subject.executed_on}."
    if not subject.executed_on:
        return f"The {subject.target} engine was not executed, nor its graph elsewhere."
    return (
        f"The {subject.target} engine itself was not executed: the figures are those of its"
        f" graph on {subject.executed_on}."
    )


def drift_by_picture(results: Sequence[DatasetResult], budget: Budget | None) -> str:
    """The chart, the means of the sets and the figures of every picture; nothing without sets."""
    if not results:
        return ""
    return _chart(results, budget) + _means(results) + _contents(results) + _pictures(results)


def _chart(results: Sequence[DatasetResult], budget: Budget | None) -> str:
    drawing = drift_chart(results, budget)
    if not drawing:
        return ""
    levels = "<span class='key budget'>budgets of a mean and of a picture</span>" if budget else ""
    return (
        "<h2>Drift per picture</h2><figure><div class='scroll'>"
        f"{drawing}</div><figcaption>PSNR-Y of the engine minus that of the reference, dB,"
        " worst first in each set.<br><span class='key'>loss</span><span class='key gain'>gain"
        f"</span><span class='key mean'>mean of the set</span>{levels}</figcaption></figure>"
    )


def _means(results: Sequence[DatasetResult]) -> str:
    rows = [row(_cells(r.name, [r.mean(name) for name in FIGURES])) for r in results]
    return f"<h2>Means</h2>{table(('Data set', *FIGURES.values()), rows)}"


def _contents(results: Sequence[DatasetResult]) -> str:
    rows = [
        row((words(content.content), words(result.name), decibels(content.drift, NOT_EXECUTED)))
        for result in results
        for content in result.contents()
    ]
    return f"<h2>By content</h2>{table(('Content', 'Set', 'Drift'), rows)}" if rows else ""


def _pictures(results: Sequence[DatasetResult]) -> str:
    parts = ["<h2>Pictures</h2>"]
    for result in (r for r in results if r.pictures):
        rows = [row(_cells(p.name, [getattr(p, f) for f in FIGURES])) for p in result.pictures]
        rows.append(row(_cells("Mean", [result.mean(name) for name in FIGURES]), "mean"))
        count = len(result.pictures)
        title = f"{result.name}, {counted(count, 'picture')}"
        parts.append(folded(title, count, table(("Picture", *FIGURES.values()), rows)))
    return "".join(parts) if len(parts) > 1 else ""


def _cells(name: str, figures: Sequence[float]) -> Iterator[str]:
    yield words(name)
    for kind, value in zip(FIGURES, figures, strict=True):
        yield decibels(value, NOT_EXECUTED) if kind == "drift" else figure(_text(kind, value))


def _text(kind: str, value: float) -> str:
    if math.isnan(value):
        return NOT_EXECUTED
    if kind.startswith("ssim"):
        return f"{value:.4f}"
    return f"≥ {PSNR_CAP:.0f}" if value >= PSNR_CAP else f"{value:.3f}"


def identity(subject: Subject, results: Sequence[DatasetResult], manifest: Manifest | None) -> str:
    """What the engine is, and the notes on its figures and, if it has a manifest, of that."""
    runtimes = ", ".join(sorted({r.reference_runtime for r in results if r.pictures}))
    entries = [
        ("Network", f"{subject.model}, {subject.variant}, ×{subject.scale}"),
        ("Target", subject.target),
        ("Precision", subject.precision),
        ("INT8 share", f"{subject.int8_mac_share:.1%} of the Conv and MatMul MACs"),
        ("Execution", execution(subject)),
        ("Reference", f"fp32 on {runtimes}" if runtimes else NOT_EXECUTED),
        *(_manifest_entries(manifest) if manifest else ()),
    ]
    notes = dict.fromkeys((*subject.notes, *(manifest.notes if manifest else ())))
    return f"<h2>Engine</h2>{terms(entries)}{listed('Notes', notes)}"


def _manifest_entries(manifest: Manifest) -> list[tuple[str, str]]:
    build, model = manifest.build, manifest.model
    low, mid, high = (
        f"{width}×{height}"
        for height, width in (build.shapes.minimum, build.shapes.optimum, build.shapes.maximum)
    )
    frame = manifest.milliseconds
    built = (_when_built(record) for record in manifest.drift)
    return [
        ("Weights", model.weights + (" (never trained)" if model.random_weights else "")),
        ("Built with", f"{build.target} {build.target_version}"),
        ("Built for", manifest.device),
        ("Capabilities", ", ".join(build.capabilities)),
        ("Built at", manifest.created),
        ("Rest precision", build.rest.value),
        ("Left in float", ", ".join(build.float_nodes)),
        ("Islands in float32", ", ".join(build.islands)),
        ("Input sizes", f"{low} to {high}, best at {mid}"),
        ("Time of a frame", "" if frame is None else f"{frame:.1f} ms at {mid}"),
        ("Drift when built", ", ".join(built)),
        ("Engine file", manifest.engine_file),
        ("Engine SHA-256", manifest.engine_sha256),
        ("ONNX SHA-256", build.onnx_sha256),
        ("Weights SHA-256", model.weights_sha256),
        ("Calibration SHA-256", build.calibration_sha256),
        ("Build key", build.digest()),
    ]


def _when_built(record: DriftRecord) -> str:
    lost = f"{record.dataset} {signed(record.drift)} dB on {record.executed_on}"
    if record.worst_drift is None:
        return lost
    return f"{lost} ({record.worst} {signed(record.worst_drift)} dB)"
