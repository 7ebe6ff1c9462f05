"""The drift report: one HTML file that needs nothing else, for screen, phone and paper."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ..files import write_bytes
from ..spec import Manifest
from .chart import drift_chart
from .crops import Crop
from .datasets import Picture
from .drift import PSNR_CAP
from .results import DatasetResult, Subject, within_budget, worst_drift

WORST_PICTURES = 3
GAIN = 8  # a difference of 1/255 is invisible; times 8 its place can be seen
LONGEST_OPEN_TABLE = 20


def write_report(
    path: Path,
    subject: Subject,
    results: Sequence[DatasetResult],
    manifest: Manifest | None = None,
    max_drift: float | None = None,
) -> None:
    """Write the report whole or not at all.

    Args:
        path: File to write; an older one is replaced.
        subject: What was measured.
        results: What :func:`~.drift.measure` found.
        manifest: Of the engine; without one its identity is left out.
        max_drift: Budget in dB that the verdict holds the worst set against.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes(path, render(subject, results, manifest, max_drift).encode())


def render(
    subject: Subject,
    results: Sequence[DatasetResult],
    manifest: Manifest | None = None,
    max_drift: float | None = None,
) -> str:
    """The report as HTML; every value is escaped."""
    title = f"{subject.variant} · {subject.precision} · {subject.target}"
    style = Path(__file__).with_name("report.css").read_text("utf-8")
    body = "".join(
        (
            f"<header><p class='soft'>srdeploy drift report</p><h1>{escape(title)}</h1></header>",
            _verdict(subject, results, max_drift),
            _chart(results, max_drift),
            _means(results),
            _pictures(results),
            _crops(results),
            _identity(subject, results, manifest),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Drift of {escape(title)}</title><style>{style}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _verdict(subject: Subject, results: Sequence[DatasetResult], max_drift: float | None) -> str:
    kind, headline = _headline(results, max_drift)
    budget = "" if max_drift is None else f"The budget is {_signed(-max_drift)} dB. "
    said = escape(budget + _execution(subject))
    return f"<div class='verdict {kind}'><strong>{escape(headline)}</strong><p>{said}</p></div>"


def _headline(results: Sequence[DatasetResult], max_drift: float | None) -> tuple[str, str]:
    """CSS class and words of the verdict."""
    worst = worst_drift(results)
    if math.isnan(worst):
        idle = [result.name for result in results if not result.pictures]
        return "open", f"Not measured: {', '.join(idle) or 'no data set'}"
    name = min(results, key=lambda result: result.drift).name
    figure = f"worst mean drift {_signed(worst)} dB, on {name}"
    if max_drift is None:
        return "plain", f"Measured: {figure}"
    if within_budget(results, max_drift):
        return "pass", f"Within the budget: {figure}"
    return "fail", f"Over the budget: {figure}"


def _execution(subject: Subject) -> str:
    if subject.engine_executed:
        return f"The engine itself was executed, on {subject.executed_on}."
    return (
        f"The {subject.target} engine itself was not executed: the figures are those of its"
        f" graph on {subject.executed_on}."
    )


def _chart(results: Sequence[DatasetResult], max_drift: float | None) -> str:
    drawing = drift_chart(results, max_drift)
    if not drawing:
        return ""
    budget = "" if max_drift is None else "<span class='key budget'>budget of the means</span>"
    return (
        "<h2>Drift per picture</h2><figure><div class='scroll'>"
        f"{drawing}</div><figcaption>PSNR-Y of the engine minus that of the reference, dB,"
        " worst first in each set.<br><span class='key'>loss</span><span class='key gain'>gain"
        f"</span><span class='key mean'>mean of the set</span>{budget}</figcaption></figure>"
    )


def _means(results: Sequence[DatasetResult]) -> str:
    rows = [_row(r.name, [r.mean(figure) for figure in _FIGURES], "") for r in results]
    return f"<h2>Means</h2>{_table('Data set', rows)}"


def _pictures(results: Sequence[DatasetResult]) -> str:
    parts = ["<h2>Pictures</h2>"]
    for result in (r for r in results if r.pictures):
        rows = [_row(p.name, [getattr(p, f) for f in _FIGURES], "") for p in result.pictures]
        rows.append(_row("Mean", [result.mean(figure) for figure in _FIGURES], "mean"))
        count = len(result.pictures)
        state = " open" if count <= LONGEST_OPEN_TABLE else ""
        parts.append(
            f"<details{state}><summary>{escape(result.name)}, {count}"
            f" picture{'s' * (count != 1)}</summary>{_table('Picture', rows)}</details>"
        )
    return "".join(parts) if len(parts) > 1 else ""


_FIGURES = ("psnr_reference", "psnr_engine", "drift", "fidelity", "ssim_reference", "ssim_engine")
_HEADS = (
    "PSNR reference",
    "PSNR engine",
    "Drift",
    "Fidelity",
    "SSIM reference",
    "SSIM engine",
)


def _table(first: str, rows: Iterable[str]) -> str:
    heads = "".join(f"<th scope='col'>{head}</th>" for head in (first, *_HEADS))
    return (
        f"<div class='scroll'><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, figures: Sequence[float], kind: str) -> str:
    cells = [f"<td>{escape(name)}</td>"]
    for figure, value in zip(_FIGURES, figures, strict=True):
        down = " class='down'" if figure == "drift" and value <= -0.0005 else ""
        cells.append(f"<td{down}>{_figure(figure, value)}</td>")
    return f"<tr class='{kind}'>{''.join(cells)}</tr>"


def _figure(figure: str, value: float) -> str:
    if math.isnan(value):
        return "not executed"
    if figure == "drift":
        return _signed(value)
    if figure.startswith("ssim"):
        return f"{value:.4f}"
    return f"≥ {PSNR_CAP:.0f}" if value >= PSNR_CAP else f"{value:.3f}"


def _signed(value: float) -> str:
    """Three decimals, a true minus sign, and no sign before zero."""
    text = f"{value:+.3f}".replace("-", "−")
    return text[1:] if text[1:] == "0.000" else text


def _crops(results: Sequence[DatasetResult]) -> str:
    crops = sorted((c for r in results for c in r.crops), key=lambda crop: crop.drift)
    if not crops:
        return ""
    return (
        "<h2>Where it loses most</h2><p class='soft'>The pictures of lowest drift, each in the"
        f" window where the engine's error grows most; {GAIN} × difference is the engine"
        " against the reference, black where they agree.</p>"
        + "".join(map(_crop, crops[:WORST_PICTURES]))
    )


def _crop(crop: Crop) -> str:
    views = (
        ("bicubic", crop.bicubic),
        ("reference", crop.reference),
        ("engine", crop.engine),
        ("ground truth", crop.truth),
        (f"{GAIN} × difference", crop.difference(GAIN)),
    )
    name = escape(f"{crop.dataset}/{crop.picture}")
    figures = "".join(
        f"<figure><img src='{_data_uri(picture)}' alt='{name}: {label}' width='"
        f"{picture.shape[1]}' height='{picture.shape[0]}'><figcaption>{label}</figcaption></figure>"
        for label, picture in views
    )
    return (
        f"<h3>{name}, {_signed(crop.drift)} dB <span class='soft'>at {crop.left}, {crop.top}"
        f"</span></h3><div class='crops'>{figures}</div>"
    )


def _data_uri(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _identity(subject: Subject, results: Sequence[DatasetResult], manifest: Manifest | None) -> str:
    runtimes = ", ".join(sorted({r.reference_runtime for r in results if r.pictures}))
    entries = [
        ("Network", f"{subject.model}, {subject.variant}, ×{subject.scale}"),
        ("Target", subject.target),
        ("Precision", subject.precision),
        ("INT8 share", f"{subject.int8_mac_share:.1%} of the Conv and MatMul MACs"),
        ("Execution", _execution(subject)),
        ("Reference", f"fp32 on {runtimes}" if runtimes else "not executed"),
        *(_manifest_entries(manifest) if manifest else ()),
    ]
    terms = "".join(f"<dt>{escape(t)}</dt><dd>{escape(v)}</dd>" for t, v in entries if v)
    notes = "".join(f"<li>{escape(note)}</li>" for note in manifest.notes) if manifest else ""
    listed = f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""
    return f"<h2>Engine</h2><dl>{terms}</dl>{listed}"


def _manifest_entries(manifest: Manifest) -> list[tuple[str, str]]:
    build, model = manifest.build, manifest.model
    low, mid, high = (
        f"{width}×{height}"
        for height, width in (build.shapes.minimum, build.shapes.optimum, build.shapes.maximum)
    )
    frame = manifest.milliseconds
    built = (f"{r.dataset} {_signed(r.drift)} dB on {r.executed_on}" for r in manifest.drift)
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
