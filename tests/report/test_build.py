"""The page of a build: complete, escaped, whole, whatever was found."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from srdeploy.calib.outcome import Int8Report, Layer, Trial
from srdeploy.errors import OutputError
from srdeploy.report.build import render_build_page, write_build_page
from srdeploy.spec import Budget, BuildConfig, DriftRecord, Manifest, ModelSpec, Precision
from srdeploy.validate.results import DatasetResult, PictureResult

NASTY = "<script>alert('x')</script>&\"'"
BUDGET = Budget(0.05, 0.2)
MANIFEST = Manifest(
    build=BuildConfig("aa" * 32, "openvino", "2026.4", Precision.INT8, Precision.BF16),
    model=ModelSpec("vapsr", "vapsr-x4", 4, 173, weights="official VapSR_X4.pth"),
    engine_sha256="bb" * 32,
    engine_file="vapsr-x4.openvino",
    device="Some CPU",
    int8_mac_share=0.931,
    milliseconds=77.25,
    drift=(
        DriftRecord("proof", 33.0, 32.9, -0.1, 48.5, "torch", "openvino", "bird", -0.4),
        DriftRecord("older", 33.0, 32.9, -0.2, 48.5, "torch", "openvino"),
    ),
    notes=("the upsampler stays in float",),
    created="2026-01-02T03:04:05Z",
)


def quality(*drifts: float) -> list[DatasetResult]:
    pictures = tuple(
        PictureResult(f"photo {i}", 30.0, 30.0 + drift, 0.9, 0.8, 45.0)
        for i, drift in enumerate(drifts)
    )
    return [DatasetResult("proof", "torch", pictures)]


def layer(index: int, **other: Any) -> Layer:
    made = Layer(
        f"body.{index}.conv/Conv_{index}", "Conv", 0.01, -0.5 / (index + 1), -0.4 / (index + 1),
        ("range × 0.70",), Precision.INT8,
    )  # fmt: skip
    return replace(made, **other)


def trial(label: str, drift: float, cost: float, **other: Any) -> Trial:
    return replace(Trial(label, (), drift, 0.9, cost), **other)


def report(trials: tuple[Trial, ...] = (), layers: tuple[Layer, ...] = ()) -> Int8Report:
    chosen = min(1, len(trials) - 1)
    return Int8Report(0.1, 0.8, layers, trials, chosen, "ms a frame", -0.25, 5.0)


SOME = report(
    (trial("all int8", -0.3, 50.0), trial("2 in bf16", -0.04, 60.0), trial("bf16", 0.0, 90.0)),
    (layer(0, precision=Precision.BF16), layer(1), layer(2)),
)


def drawn_outside(page: Page) -> list[dict[str, str | None]]:
    """Shapes that leave the width of the charts."""
    found = []
    for tag, a in page.tags:
        if tag in ("rect", "circle", "text", "line"):
            keys = [key for key in ("x", "cx", "x1", "x2") if key in a]
            places = [float(a[key] or 0) for key in keys]
            if tag == "rect":
                places.append(places[0] + float(a["width"] or 0))
            if not all(-1 <= place <= 761 for place in places):
                found.append(a)
    return found


def test_the_page_holds_everything() -> None:
    calibration = {"sha256": "cc" * 32, "pictures": [{"name": "bird.png", "height": 480}]}
    text = Page(
        render_build_page(
            MANIFEST,
            quality(-0.05, -0.01),
            SOME,
            calibration,
            ("a tensor reaches 70,000",),
            Budget(0.1, 0.3),
        )
    ).text
    for shown in (
        "Within the budget: worst mean drift −0.030 dB, on proof; worst picture proof/photo 0,"
        " −0.050 dB",
        "worst mean drift −0.030 dB budget of the mean, of a picture −0.100, −0.300 dB"
        " of the MACs in int8 93.1%",
        "budgets of a mean and of a picture",
        "proof −0.100 dB on openvino (bird −0.400 dB)",
        "older −0.200 dB on openvino",
        "a frame of 320×180 77.2 ms",
        "executed, on openvino",
        "a tensor reaches 70,000",
        "photo 0 30.000 29.950 −0.050",
        "or of the worst window, divided by 5, where that is lower",
        "without repairs: −0.250 dB. At least 80% of the MACs",
        "2. 2 in bf16 (chosen) 0 90.0% −0.040 60.00",
        "2 in bf16: 90.0% int8, −0.040 dB, 60.00 ms a frame",
        "body.0.conv/Conv_0 Conv of body.0.conv 1.00% −0.500 −0.400 bf16 range × 0.70",
        "−0.250 → −0.200 dB, int8",
        "cc" * 32,
        "bird.png 480",
        "the upsampler stays in float",
        "aa" * 32,
        "bb" * 32,
    ):
        assert shown in text, shown


@pytest.mark.parametrize(
    ("found", "budget", "kind", "said"),
    [
        (quality(-0.01), BUDGET, "pass", "Within the budget: worst mean drift −0.010 dB"),
        (quality(-0.12), BUDGET, "fail", "Over the budget: worst mean drift −0.120 dB"),
        (quality(0.2, -0.21), BUDGET, "fail", "worst picture proof/photo 1, −0.210 dB"),
        (quality(-0.12), None, "plain", "Measured: worst mean drift −0.120 dB"),
        (quality(-0.12), None, "plain", "default budget, of the search alone −0.100, −0.500 dB"),
        ([], BUDGET, "open", "Not measured: no data set"),
        (quality(), BUDGET, "open", "Not measured: proof"),
    ],
)
def test_the_verdict(
    found: list[DatasetResult], budget: Budget | None, kind: str, said: str
) -> None:
    page = Page(render_build_page(MANIFEST, found, SOME, None, (), budget))
    assert page.count("div", f"verdict {kind}") == 1
    assert said in page.text


def test_drift_by_content_stands_between_the_sets_and_the_pictures() -> None:
    (found,) = quality(-0.1, -0.3, 0.1)
    classes = ("dark", "line art", "dark")
    pictures = tuple(replace(p, content=c) for p, c in zip(found.pictures, classes, strict=True))
    page = Page(render_build_page(MANIFEST, [replace(found, pictures=pictures)], None, None))
    assert "By content Content Set Drift line art proof −0.300 dark proof 0.000 " in page.text
    assert page.text.index("Means") < page.text.index("By content") < page.text.index("Pictures")
    assert "By content" not in Page(render_build_page(MANIFEST, [found], None, None)).text


def test_an_engine_that_was_not_executed() -> None:
    idle = replace(MANIFEST, milliseconds=None, drift=())
    text = Page(render_build_page(idle, [], SOME, None)).text
    assert "The openvino engine was not executed, nor its graph elsewhere." in text
    assert "320×180 not measured" in text
    record = replace(MANIFEST.drift[0], executed_on="onnxruntime")
    elsewhere = replace(MANIFEST, milliseconds=None, drift=(record,))
    text = Page(render_build_page(elsewhere, quality(0.0), SOME, None)).text
    assert "the figures are those of its graph on onnxruntime" in text


def test_a_float_engine_has_no_search() -> None:
    page = Page(render_build_page(MANIFEST, quality(-0.01), None, None))
    assert page.count("svg") == 1
    for absent in ("What was tried", "Sensitivity", "Calibration set", "Findings"):
        assert absent not in page.text


@pytest.mark.parametrize(
    ("trials", "points"),
    [
        ((), 0),
        ((trial("one", -0.01, 1.0),), 1),
        ((trial("one", 0.0, 0.0),), 1),
        ((trial("a", -0.1, 1.0), trial("b", -0.1, 1.0), trial("c", -0.2, 1.0)), 2),
        ((trial("untimed", -0.1, math.nan), trial("b", -0.1, 2.0)), 1),
        ((trial("untimed", -0.1, math.nan), trial("also", -0.2, math.nan)), 0),
        ((trial("unknown", math.nan, 3.0), trial("endless", -0.1, math.inf)), 0),
        (tuple(trial(f"t{i}", -1 / (i + 1), 10.0 + i) for i in range(40)), 40),
    ],
)
def test_the_pareto_chart(trials: tuple[Trial, ...], points: int) -> None:
    page = Page(render_build_page(MANIFEST, [], report(trials), None))
    assert page.count("circle", "point") == points
    assert page.count("circle", "ring") <= 1
    assert page.count("line", "budget") == page.count("svg") == (points > 0)
    assert not drawn_outside(page)
    for each in trials:
        assert each.label in page.text
    assert "nan" not in page.text.lower()


def test_trials_of_one_place_share_a_point() -> None:
    trials = (trial("first", -0.1, 1.0), trial("second", -0.1, 1.0), trial("third", 0.0, 2.0))
    text = Page(render_build_page(MANIFEST, [], report(trials), None)).text
    title = "first: 90.0% int8, −0.100 dB, 1.000 ms a frame second: 90.0% int8"
    assert title in text
    assert "1, 2" in text


def test_a_trial_far_below_the_budget_leaves_room_for_the_others() -> None:
    trials = (trial("broken", -25.0, 1.0), trial("good", -0.05, 2.0), trial("float", 0.0, 3.0))
    page = Page(render_build_page(MANIFEST, [], report(trials), None))
    assert page.count("path", "point") == 1
    assert "broken: 90.0% int8, −25.000 dB" in page.text
    places = [float(a["cy"] or 0) for t, a in page.tags if a.get("class") == "point" and "cy" in a]
    assert abs(places[0] - places[1]) > 5


def test_a_budget_without_limit_draws_no_line() -> None:
    page = Page(render_build_page(MANIFEST, [], replace(SOME, max_drift=math.inf), None))
    assert page.count("line", "budget") == 0
    assert page.count("circle", "point") == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-60, 5), st.floats(0, 1e4)), min_size=1, max_size=40),
    st.floats(0, 10),
)
def test_everything_drawn_lies_within_the_charts(
    found: list[tuple[float, float]], budget: float
) -> None:
    trials = tuple(trial(f"trial {i}", drift, cost) for i, (drift, cost) in enumerate(found))
    layers = tuple(layer(i, plain_drift=d, drift=d / 2) for i, (d, _) in enumerate(found))
    page = Page(
        render_build_page(MANIFEST, [], replace(report(trials, layers), max_drift=budget), None)
    )
    assert not drawn_outside(page)
    heights = [float(a["cy"] or 0) for tag, a in page.tags if tag == "circle"]
    assert all(0 <= height <= 360 for height in heights)


def test_the_sensitivity_chart_has_two_bars_for_each_of_the_worst_layers() -> None:
    layers = tuple(
        layer(i, precision=Precision.FP16 if i < 3 else Precision.INT8) for i in range(600)
    )
    html = render_build_page(MANIFEST, [], report((), layers), None)
    page = Page(html)
    assert page.count("rect", "before fp16") == page.count("rect", "after fp16") == 3
    assert page.count("rect", "before int8") == page.count("rect", "after int8") == 17
    assert "body.599.conv/Conv_599 Conv of body.599.conv" in page.text
    assert "600 layers" in page.text
    assert all("open" not in a for t, a in page.tags if t == "details")
    assert len(html) < 400_000


def test_a_layer_that_was_not_measured() -> None:
    idle = layer(0, plain_drift=math.nan, drift=math.nan, repairs=())
    page = Page(render_build_page(MANIFEST, [], report((), (idle,)), None))
    assert page.count("rect") == 0
    assert "– → – dB, int8" in page.text
    assert "nan" not in page.text.lower()


def test_many_layers_in_float_are_folded() -> None:
    names = tuple(f"body.{i}.conv/Conv" for i in range(300))
    manifest = replace(MANIFEST, build=replace(MANIFEST.build, float_nodes=names))
    page = Page(render_build_page(manifest, [], None, None))
    assert re.search(r"body\.0\.conv/Conv, .{,60} … \([\d,]+ characters\)", page.text)
    assert names[-1] in page.text


def test_the_calibration_set() -> None:
    calibration = {
        "sha256": "cc" * 32,
        "seed": 0,
        "crop": {"height": 80, "width": 120},
        "pictures": [{"name": f"{i}.png", "fingerprint": "dct:ff"} for i in range(500)],
        "crops": 100,
        "skipped": [{"name": "broken.jpg", "reason": "not a picture"}],
        "left_out": [],
        "duplicates": [["a.png", "b.png"]],
        "coverage": {
            "luma_range": 0.861234,
            "gradient": math.nan,
            "luma_histogram": [0.25, 0.5, 0.25],
            "warnings": ["there is little texture"],
        },
        "warnings": ["only one picture"],
        "unheard_of": None,
    }
    page = Page(render_build_page(MANIFEST, [], None, calibration))
    for shown in (
        "SHA-256 " + "cc" * 32, "Seed 0", "Crop height 80, width 120", "Pictures: 500", "Crops 100",
        "and 200 more", "broken.jpg not a picture", "a.png, b.png", "Luma range 0.8612",
        "Gradient –", "only one picture there is little texture", "Unheard of –",
    ):  # fmt: skip
        assert shown in page.text, shown
    assert "dct:ff" not in page.text
    assert page.count("svg", "small") == 1


@pytest.mark.parametrize("calibration", [{}, {"coverage": 3}, {"warnings": "one"}, {"pictures": 7}])
def test_a_calibration_set_of_another_form(calibration: dict[str, Any]) -> None:
    Page(render_build_page(MANIFEST, [], None, calibration))


def test_every_value_is_escaped() -> None:
    manifest = replace(
        MANIFEST,
        build=replace(MANIFEST.build, target=NASTY, float_nodes=(NASTY,)),
        model=replace(MANIFEST.model, variant=NASTY),
        notes=(NASTY,),
        drift=(replace(MANIFEST.drift[0], dataset=NASTY, worst=NASTY, worst_drift=-0.3),),
    )
    int8 = Int8Report(
        0.1, 0.8, (layer(0, node=NASTY, op=NASTY, repairs=(NASTY,)),),
        (trial(NASTY, -0.1, 1.0, float_nodes=(NASTY,)),), 0, NASTY, -1.0,
    )  # fmt: skip
    calibration = {
        NASTY: NASTY, "pictures": [{NASTY: NASTY}], "skipped": [NASTY], "warnings": [NASTY],
        "coverage": {NASTY: [0.5, 0.5], "x": NASTY},
    }  # fmt: skip
    picture = replace(quality(-0.1)[0].pictures[0], name=NASTY, content=NASTY)
    found = [DatasetResult(NASTY, NASTY, (picture,))]
    html = render_build_page(manifest, found, int8, calibration, (NASTY,), BUDGET)
    assert "<script" not in html
    page = Page(html)
    assert page.count("script") == 0
    assert page.text.count("alert('x')") > 20
    assert f"worst picture {NASTY}/{NASTY}, −0.100 dB" in page.text
    assert f"{NASTY} −0.100 dB on openvino ({NASTY} −0.300 dB)" in page.text
    assert f"Content Set Drift {NASTY} {NASTY} −0.100" in page.text


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render_build_page(MANIFEST, quality(-0.1), SOME, {"pictures": ["a"]}, ("x",), BUDGET)
    assert not re.search(r"https?:|@import|url\(", html)
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        assert not any(name.startswith(("on", "href", "src")) for name in attributes)


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "build.html"
    write_build_page(path, MANIFEST, quality(-0.1), SOME, None, ("x",), BUDGET)
    expected = render_build_page(MANIFEST, quality(-0.1), SOME, None, ("x",), BUDGET)
    assert path.read_text("utf-8") == expected
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="could not be written"):
        write_build_page(tmp_path / "nowhere" / "build.html", MANIFEST, [], SOME)
