"""The HTML report: complete, self-contained, escaped, whole or not there."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from srdeploy.errors import OutputError
from srdeploy.report.drift import render, write_report
from srdeploy.spec import Budget, BuildConfig, DriftRecord, Manifest, ModelSpec, Precision
from srdeploy.validate.crops import Crop
from srdeploy.validate.drift import DatasetResult, PictureResult, Subject

NASTY = "<script>alert('x')</script>&\"'"
BUDGET = Budget(0.05, 0.2)
SUBJECT = Subject("vapsr", "vapsr-x4", 4, "openvino", "int8", "openvino", True, 0.861)


def crop(name: str, drift: float, level: int = 0) -> Crop:
    views = (np.full((6, 8, 3), level + 10 * i, np.uint8) for i in range(4))
    return Crop("Set5", name, drift, 12, 34, *views)


def result(name: str, *drifts: float, crops: tuple[Crop, ...] = ()) -> DatasetResult:
    pictures = tuple(
        PictureResult(f"{name}-{i}", 30.0, 30.0 + drift, 0.9111, 0.8222, 45.678)
        for i, drift in enumerate(drifts)
    )
    return DatasetResult(name, "torch", pictures, crops)


MANIFEST = Manifest(
    build=BuildConfig("aa" * 32, "openvino", "2026.4", Precision.INT8, Precision.BF16),
    model=ModelSpec("vapsr", "vapsr-x4", 4, 173, weights="official VapSR_X4.pth"),
    engine_sha256="bb" * 32,
    engine_file="vapsr-x4.openvino",
    device="Some CPU",
    milliseconds=77.25,
    drift=(
        DriftRecord("bundled", 33.0, 32.9, -0.1, 48.5, "torch", "onnxruntime", "bird", -0.4),
        DriftRecord("older", 33.0, 32.9, -0.2, 48.5, "torch", "openvino"),
    ),
    notes=("the upsampler stays in float",),
    created="2026-01-02T03:04:05Z",
)


def test_the_report_holds_every_figure() -> None:
    results = (result("Set5", -0.05, 0.25), result("Set14", -0.5))
    page = Page(render(SUBJECT, results, MANIFEST, BUDGET))
    for shown in (
        "Over the budget: worst mean drift −0.500 dB, on Set14; worst picture Set14/Set14-0,"
        " −0.500 dB",
        "The budget is 0.05 dB on average, 0.2 dB for a picture. ",
        "budgets of a mean and of a picture",
        "Set5-0 30.000 29.950 −0.050 45.678 0.9111 0.8222",
        "Set5-1 30.000 30.250 +0.250 45.678 0.9111 0.8222",
        "Set5 30.000 30.100 +0.100",
        "Set14 30.000 29.500 −0.500",
        "executed, on openvino",
        "86.1% of the Conv and MatMul MACs",
        "official VapSR_X4.pth",
        "openvino 2026.4",
        "Some CPU",
        "bundled −0.100 dB on onnxruntime (bird −0.400 dB)",
        "older −0.200 dB on openvino",
        "77.2 ms at 320×180",
        "aa" * 32,
        "bb" * 32,
        MANIFEST.build.digest(),
        "the upsampler stays in float",
        "2026-01-02T03:04:05Z",
    ):
        assert shown in page.text, shown


@pytest.mark.parametrize(
    ("results", "budget", "kind", "headline"),
    [
        ((result("A", -0.01),), BUDGET, "verdict pass", "Within the budget"),
        ((result("A", -0.12),), BUDGET, "verdict fail", "Over the budget"),
        ((result("A", 0.5), result("B", -0.06)), BUDGET, "verdict fail", "−0.060 dB, on B"),
        ((result("A", 0.5, -0.3),), BUDGET, "verdict fail", "worst picture A/A-1, −0.300 dB"),
        ((result("A", 0.5),), Budget(0.0, 0.0), "verdict pass", "+0.500 dB, on A"),
        (
            (result("A", 0.01), replace(result("B", -0.1), hard=True)),
            BUDGET,
            "verdict pass",
            "worst mean drift +0.010 dB, on A; worst picture B/B-0, −0.100 dB",
        ),
        ((result("A", -0.12),), None, "verdict plain", "Measured: worst mean drift −0.120 dB"),
        ((result("A", 0.0), result("B")), BUDGET, "verdict open", "Not measured: B"),
        ((), BUDGET, "verdict open", "Not measured: no data set"),
    ],
)
def test_the_verdict(
    results: tuple[DatasetResult, ...], budget: Budget | None, kind: str, headline: str
) -> None:
    page = Page(render(SUBJECT, results, None, budget))
    assert page.count("div", kind) == 1
    assert headline in page.text


def test_an_engine_that_did_not_run_is_named() -> None:
    subject = replace(SUBJECT, target="tensorrt", executed_on="onnxruntime", engine_executed=False)
    text = Page(render(subject, (result("A", -0.01),))).text
    assert "The tensorrt engine itself was not executed" in text
    assert "graph on onnxruntime" in text


def test_a_set_that_was_not_executed_says_so() -> None:
    page = Page(render(SUBJECT, (result("A", -0.01), result("Idle")), None, BUDGET))
    assert page.text.count("not executed") == 6
    assert "nan" not in page.text.lower()


def test_the_chart_has_a_bar_for_every_picture() -> None:
    results = (result("A", -0.1, 0.2, -0.3), result("B", 0.0))
    page = Page(render(SUBJECT, results, None, BUDGET))
    assert page.count("rect", "loss") == 2
    assert page.count("rect", "gain") == 2
    assert page.count("line", "mean") == 2
    assert page.count("line", "budget") == 2, "of the mean, and of a picture"
    drawn = [float(a["y1"] or 0) for t, a in page.tags if a.get("class") == "budget" and "y1" in a]
    assert drawn[0] < drawn[1], "a picture may lose more: lower"
    assert Page(render(SUBJECT, results)).count("line", "budget") == 0
    assert "A/A-2: -0.300 dB" in page.text
    heights = {
        a["class"]: float(a["height"] or 0) for t, a in page.tags if t == "rect" and a["height"]
    }
    assert all(height >= 0.5 for height in heights.values())


@given(
    sets=st.lists(
        st.lists(st.floats(-60, 60, allow_nan=False), min_size=1, max_size=5),
        min_size=1,
        max_size=40,
    ),
    limits=st.one_of(st.none(), st.tuples(st.floats(0, 100), st.floats(0, 100))),
)
def test_everything_drawn_lies_within_the_chart(
    sets: list[list[float]], limits: tuple[float, float] | None
) -> None:
    budget = None if limits is None else Budget(*sorted(limits))
    results = [result(f"set {i}", *drifts) for i, drifts in enumerate(sets)]
    page = Page(render(SUBJECT, results, None, budget))
    assert page.count("svg") == 1
    for tag, attributes in page.tags:
        found = {key: float(attributes[key] or 0) for key in ("x", "y") if attributes.get(key)}
        if tag == "rect":
            found |= {
                "right": float(attributes["width"] or 0) + found["x"],
                "bottom": float(attributes["height"] or 0) + found["y"],
            }
            assert float(attributes["width"] or 0) > 0
        if tag in ("rect", "text"):
            assert all(-1 <= value <= 761 for value in found.values())
            assert found["y"] <= 251


def test_crops_are_embedded_worst_first() -> None:
    first, second = crop("mild", -0.1), crop("bad", -0.9, 100)
    results = (
        result("Set5", -0.1, crops=(first,)),
        result("Set14", -0.9, crops=(second, crop("x", 0.0), crop("y", 1.0))),
    )
    page = Page(render(SUBJECT, results))
    uris = [str(a["src"]) for t, a in page.tags if t == "img"]
    assert len(uris) == 3 * 5
    pixels = []
    for uri in uris:
        head, encoded = uri.split(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as opened:
            assert (opened.format, opened.size) == ("PNG", (8, 6))
            pixels.append(opened.getpixel((0, 0)))
    assert [p[0] for p in pixels[:5]] == [100, 110, 120, 130, 80]  # 8 × (120 − 110)
    assert [p[0] for p in pixels[5:10]] == [0, 10, 20, 30, 80]
    assert page.text.index("Set5/bad, −0.900 dB") < page.text.index("Set5/mild, −0.100 dB")


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render(SUBJECT, (result("A", -0.1, crops=(crop("a", -0.1),)),), MANIFEST, BUDGET)
    assert not re.search(r"https?://|//|@import|url\(", re.sub(r"base64,[^'\"]*", "", html))
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html


def test_every_value_is_escaped() -> None:
    picture = PictureResult(NASTY, 30.0, 29.0, 0.9, 0.9, 40.0, NASTY)
    found = DatasetResult(NASTY, NASTY, (picture,), (replace(crop(NASTY, -1.0), dataset=NASTY),))
    subject = Subject(NASTY, NASTY, 4, NASTY, NASTY, NASTY, False, 0.5)
    manifest = replace(
        MANIFEST,
        build=replace(
            MANIFEST.build, target=NASTY, float_nodes=(NASTY,), capabilities=(NASTY,),
            target_version=NASTY, onnx_sha256=NASTY, calibration_sha256=NASTY,
        ),
        model=replace(MANIFEST.model, weights=NASTY, weights_sha256=NASTY),
        engine_sha256=NASTY, engine_file=NASTY, device=NASTY,
        drift=(DriftRecord(NASTY, 1.0, 1.0, 0.0, 1.0, NASTY, NASTY, NASTY, -1.0),),
        notes=(NASTY,), created=NASTY,
    )  # fmt: skip
    html = render(subject, (found, DatasetResult(NASTY, NASTY, ())), manifest, BUDGET)
    assert "<script" not in html
    page = Page(html)
    text = page.text
    assert f"Content Set Drift {NASTY} {NASTY} −1.000" in text
    assert f"{NASTY} 0.000 dB on {NASTY} ({NASTY} −1.000 dB)" in text
    named = Page(render(subject, (found,), manifest, BUDGET)).text
    assert f"worst picture {NASTY}/{NASTY}, −1.000 dB" in named
    assert page.text.count("alert('x')") > 15
    assert page.count("script") == 0


def test_equal_outputs_are_shown_as_the_cap() -> None:
    picture = PictureResult("same", 30.0, 30.0, 0.9, 0.9, 100.0)
    text = Page(render(SUBJECT, (DatasetResult("A", "torch", (picture,)),))).text
    assert "≥ 100" in text
    assert "same 30.000 30.000 0.000" in text


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("an older one")
    results = (result("A", -0.1),)
    write_report(path, SUBJECT, results, MANIFEST, BUDGET)
    assert path.read_text("utf-8") == render(SUBJECT, results, MANIFEST, BUDGET)
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/report\.html could not be written"):
        write_report(tmp_path / "nowhere" / "report.html", SUBJECT, (result("A", -0.1),))
    taken = tmp_path / "taken.html"
    taken.mkdir()
    with pytest.raises(OutputError, match="could not be written"):
        write_report(taken, SUBJECT, (result("A", -0.1),))
    assert [p.name for p in tmp_path.iterdir()] == ["taken.html"]
