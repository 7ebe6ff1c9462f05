"""The drift report: what ``validate --report`` writes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ..files import write_bytes
from ..spec import Budget, Manifest
from .crops import Crop
from .datasets import Picture
from .page import page, signed, verdict
from .results import DatasetResult, Subject
from .sections import drift_by_picture, execution, headline, identity

WORST_PICTURES = 3
GAIN = 8  # a difference of 1/255 is invisible; times 8 its place can be seen


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
        results: What :func:`~.drift.measure` found.
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
    """The report as HTML; every value is escaped."""
    kind, said = headline(results, budget)
    held = f"The budget is {budget}. " if budget else ""
    return page(
        "srdeploy drift report",
        f"{subject.variant} · {subject.precision} · {subject.target}",
        verdict(kind, said, held + execution(subject))
        + drift_by_picture(results, budget)
        + _crops(results)
        + identity(subject, results, manifest),
    )


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
        f"<h3>{name}, {signed(crop.drift)} dB <span class='soft'>at {crop.left}, {crop.top}"
        f"</span></h3><div class='crops'>{figures}</div>"
    )


def _data_uri(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
