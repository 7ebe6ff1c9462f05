"""Drift between sessions whose quality is known."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from srdeploy.errors import DatasetError, DriftExceeded, EngineError
from srdeploy.runtime.session import Frames, Session
from srdeploy.spec import (
    Budget,
    BuildConfig,
    ContentDrift,
    DriftRecord,
    Manifest,
    ModelSpec,
    Precision,
    dump,
    load,
)
from srdeploy.validate.crops import EDGE, worst_window
from srdeploy.validate.datasets import Dataset, Pair, find_datasets
from srdeploy.validate.drift import (
    CROPS_PER_SET,
    PSNR_CAP,
    DatasetResult,
    PictureResult,
    Subject,
    check_budget,
    held_drift,
    measure,
    to_json,
    to_records,
    within_budget,
    worst_drift,
    worst_picture,
)
from srdeploy.validate.metrics import cut_border, luma, psnr, ssim
from srdeploy.validate.reference_cache import ReferenceCache
from srdeploy.validate.resize import resize


class Bicubic(Session):
    """Upscales by interpolation and adds ``offset``, so that its loss is known."""

    def __init__(self, scale: int = 2, target: str = "bicubic", offset: int = 0) -> None:
        self.scale, self.target, self.offset = scale, target, offset
        self.calls = 0
        self.closed = False

    def _upscale(self, frames: Frames) -> Frames:
        self.calls += 1
        h, w = frames.shape[1] * self.scale, frames.shape[2] * self.scale
        enlarged = np.stack([resize(frame, h, w) for frame in frames])
        return np.clip(enlarged.astype(int) + self.offset, 0, 255).astype(np.uint8)

    def close(self) -> None:
        self.closed = True


class Broken(Bicubic):
    """Refuses every frame."""

    def _upscale(self, frames: Frames) -> Frames:
        raise EngineError("the device is lost", "try again")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five smooth pictures of different sizes, HR only."""
    rng = np.random.default_rng(5)
    for index in range(5):
        coarse = rng.integers(60, 190, (6, 7 + index, 3), np.uint8)
        Image.fromarray(resize(coarse, 41, 44 + 10 * index)).save(tmp_path / f"p{index}.png")
    (found,) = find_datasets(tmp_path, 2)
    return found


def result(name: str, *drifts: float) -> DatasetResult:
    pictures = (PictureResult(f"{i}", 30.0, 30.0 + d, 0.9, 0.9, 50.0) for i, d in enumerate(drifts))
    return DatasetResult(name, "torch", tuple(pictures))


SUBJECT = Subject("vapsr", "vapsr-x4", 4, "openvino", "int8", "openvino", True, 0.86)
NOTHING, ANYTHING = Budget(0.0, 0.0), Budget(1e6, 1e6)


def test_identical_sessions_do_not_drift(dataset: Dataset) -> None:
    (found,) = measure(Bicubic(), Bicubic(), (dataset,), 2)
    assert len(found.pictures) == 5
    assert all(p.drift == 0 for p in found.pictures)
    assert all(p.fidelity == PSNR_CAP for p in found.pictures)
    assert found.drift == 0
    check_budget((found,), NOTHING)


def test_figures_are_those_of_the_metrics(dataset: Dataset) -> None:
    (found,) = measure(Bicubic(offset=3), Bicubic(), (dataset,), 2)
    for pair, picture in zip(dataset.pairs, found.pictures, strict=True):
        lr, hr = pair.read()
        reference = resize(lr, *hr.shape[:2])
        truth, ours, theirs = (
            cut_border(luma(p), 2) for p in (hr, reference + np.uint8(3), reference)
        )
        assert picture.name == pair.name
        assert picture.psnr_reference == psnr(theirs, truth)
        assert picture.psnr_engine == psnr(ours, truth)
        assert picture.ssim_reference == ssim(theirs, truth)
        assert picture.ssim_engine == ssim(ours, truth)
        assert picture.drift == psnr(ours, truth) - psnr(theirs, truth)
        # The same error everywhere: 3/255 of luma's range of 219.
        assert picture.fidelity == pytest.approx(20 * math.log10(255 / (3 * 219 / 255)))
    assert found.drift == pytest.approx(np.mean([p.drift for p in found.pictures]))
    assert found.drift < -1
    assert found.reference_runtime == "bicubic"


def test_a_perfect_engine_is_capped(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "flat.png")
    (found,) = measure(Bicubic(offset=1), Bicubic(), find_datasets(tmp_path, 2), 2)
    assert found.pictures[0].psnr_reference == PSNR_CAP
    assert math.isfinite(found.drift)
    json.dumps(to_json(SUBJECT, (found,)), allow_nan=False)


def test_progress_names_every_picture(dataset: Dataset) -> None:
    told: list[tuple[int, int, str]] = []
    measure(Bicubic(), Bicubic(), (dataset,), 2, lambda *said: told.append(said))
    assert told == [(i, 5, f"{dataset.name}/p{i}") for i in range(5)]


def test_scales_must_agree(dataset: Dataset) -> None:
    with pytest.raises(EngineError, match="the engine upscales by 3, the data sets are for 2"):
        measure(Bicubic(3), Bicubic(2), (dataset,), 2)
    with pytest.raises(EngineError, match="the reference upscales by 4"):
        measure(Bicubic(2), Bicubic(4), (dataset,), 2)


def test_a_failing_engine_names_the_picture(dataset: Dataset) -> None:
    with pytest.raises(EngineError, match=r"p0\.png: the device is lost") as caught:
        measure(Broken(), Bicubic(), (dataset,), 2)
    assert caught.value.hint == "try again"


def test_a_damaged_picture_stops_the_measurement(dataset: Dataset) -> None:
    dataset.pairs[2].hr.write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"p2\.png"):
        measure(Bicubic(), Bicubic(), (dataset,), 2)


def test_crops_are_those_of_the_worst_pictures(dataset: Dataset) -> None:
    (found,) = measure(Bicubic(offset=2), Bicubic(), (dataset,), 2)
    worst = sorted(found.pictures, key=lambda p: p.drift)[:CROPS_PER_SET]
    assert [c.picture for c in found.crops] == [p.name for p in worst]
    for crop in found.crops:
        _, hr = next(p for p in dataset.pairs if p.name == crop.picture).read()
        y, x = crop.top, crop.left
        assert np.array_equal(crop.truth, hr[y : y + EDGE, x : x + EDGE])
        assert np.array_equal(crop.reference, crop.bicubic)  # this reference is bicubic
        assert np.array_equal(crop.engine, crop.bicubic + 2)
        assert (crop.difference(8) == 16).all()
        assert (crop.difference(200) == 255).all()


@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    where=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_the_window_holds_the_error(size: tuple[int, int], where: tuple[float, float]) -> None:
    truth = np.full((*size, 3), 100, np.uint8)
    engine = truth.copy()
    y, x = (int(share * (edge - 1)) for share, edge in zip(where, size, strict=True))
    engine[y, x] = 200
    top, left = worst_window(truth, engine, truth)
    assert top <= y < top + EDGE
    assert left <= x < left + EDGE
    assert 0 <= top <= max(size[0] - EDGE, 0)
    assert 0 <= left <= max(size[1] - EDGE, 0)


def test_json_has_the_form_that_scripts_rely_on() -> None:
    pictures = (
        PictureResult("baby", 33.5, 33.25, 0.91, 0.9075, 50.0),
        PictureResult("bird", 34.5, 34.5, 0.95, 0.9525, 100.0),
    )
    found = DatasetResult("Set5", "torch", pictures)
    assert to_json(SUBJECT, (found,)) == {
        "model": "vapsr",
        "variant": "vapsr-x4",
        "scale": 4,
        "target": "openvino",
        "precision": "int8",
        "executed_on": "openvino",
        "engine_executed": True,
        "int8_mac_share": 0.86,
        "notes": [],
        "datasets": [
            {
                "name": "Set5",
                "psnr_reference": 34.0,
                "psnr_engine": 33.875,
                "drift": -0.125,
                "fidelity": 75.0,
                "ssim_reference": 0.93,
                "ssim_engine": 0.93,
                "reference_runtime": "torch",
                "images": [
                    {
                        "name": "baby",
                        "psnr_reference": 33.5,
                        "psnr_engine": 33.25,
                        "drift": -0.25,
                        "fidelity": 50.0,
                    },
                    {
                        "name": "bird",
                        "psnr_reference": 34.5,
                        "psnr_engine": 34.5,
                        "drift": 0.0,
                        "fidelity": 100.0,
                    },
                ],
            }
        ],
        "worst_drift": -0.125,
        "worst_picture": {"name": "Set5/baby", "drift": -0.25},
    }


def test_json_with_a_budget() -> None:
    document = to_json(SUBJECT, (result("A", -0.1), result("B", 0.2)), Budget(0.05, 0.2))
    assert document["worst_drift"] == -0.1
    assert document["max_drift"] == 0.05
    assert document["max_picture_drift"] == 0.2
    assert document["within_budget"] is False
    assert to_json(SUBJECT, (result("A", -0.01),), Budget(0.05, 0.2))["within_budget"] is True
    tail = to_json(SUBJECT, (result("A", 0.3, -0.21),), Budget(0.05, 0.2))
    assert tail["worst_picture"] == {"name": "A/1", "drift": -0.21}
    assert tail["within_budget"] is False


def test_json_of_a_set_that_was_not_executed() -> None:
    document = to_json(SUBJECT, (DatasetResult("Set5", "torch", ()),), Budget.of_mean(1.0))
    assert document["datasets"][0]["drift"] is None
    assert document["worst_picture"] == {"name": "", "drift": None}
    assert document["datasets"][0]["ssim_engine"] is None
    assert document["worst_drift"] is None
    assert document["within_budget"] is False
    json.dumps(document, allow_nan=False)


def test_json_has_no_negative_zero() -> None:
    assert "-0.0" not in json.dumps(to_json(SUBJECT, (result("A", -1e-9),)))


def test_a_drift_over_the_budget_is_named() -> None:
    results = (result("Set5", -0.01), result("Set14", -0.10, -0.14), result("BSD100", 0.3))
    said = (
        r"^Set14 drifts -0\.120 dB on average; the budget is 0\.05 dB on average, 0\.2 dB for a"
        " picture$"
    )
    with pytest.raises(DriftExceeded, match=said):
        check_budget(results, Budget(0.05, 0.2))
    assert DriftExceeded.exit_code == 3
    assert worst_drift(results) == pytest.approx(-0.12)
    check_budget(results, Budget(0.1201, 0.1401))


def test_a_picture_over_the_budget_is_named_though_the_mean_holds() -> None:
    results = (result("Set5", 0.1, -0.21, 0.1), result("Set14", -0.04))
    assert worst_drift(results) == pytest.approx(-0.04)
    assert worst_picture(results) == ("Set5/1", pytest.approx(-0.21))
    assert not within_budget(results, Budget(0.05, 0.2))
    with pytest.raises(DriftExceeded, match=r"^Set5/1 drifts -0\.210 dB; the budget is 0\.05 dB"):
        check_budget(results, Budget(0.05, 0.2))
    check_budget(results, Budget(0.05, 0.2101))
    both = (*results, result("B", -0.3))
    with pytest.raises(
        DriftExceeded, match=r"^B drifts -0\.300 dB on average, B/0 drifts -0\.300 dB; the budget"
    ):
        check_budget(both, Budget(0.05, 0.2))


def test_a_hard_set_is_held_by_its_pictures_alone() -> None:
    fine, hard = result("photographs", -0.01), replace(result("drawings", -0.1, -0.19), hard=True)
    budget = Budget(0.05, 0.2)
    check_budget((fine, hard), budget)
    assert worst_drift((fine, hard)) == pytest.approx(-0.01)
    assert worst_drift((hard,)) == pytest.approx(-0.145), "there is no other"
    assert held_drift((fine, hard), budget) == pytest.approx(-0.19 / 4)
    assert math.isnan(held_drift((replace(fine, pictures=()), hard), budget))
    over = replace(hard, pictures=result("", -0.21, -0.1).pictures)
    with pytest.raises(DriftExceeded, match=r"^drawings/0 drifts -0\.210 dB; the budget is 0\.05"):
        check_budget((fine, over), budget)
    idle = replace(hard, pictures=())
    with pytest.raises(DriftExceeded, match="drawings was not executed"):
        check_budget((fine, idle), budget)


def test_what_a_budget_is_held_against_is_the_mean_or_the_tail() -> None:
    budget = Budget(0.1, 0.5)
    assert held_drift((result("A", -0.06, 0.0),), budget) == pytest.approx(-0.03)
    assert held_drift((result("A", -0.4, 0.4),), budget) == pytest.approx(-0.08)
    assert math.isnan(held_drift((), budget))


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=3), min_size=1, max_size=4),
    st.floats(1e-3, 1),
    st.floats(1, 6),
)
def test_what_is_held_says_whether_the_budget_is_kept(
    sets: list[list[float]], mean: float, tail: float
) -> None:
    """But for rounding."""
    results = [result(f"s{i}", *drifts) for i, drifts in enumerate(sets)]
    budget = Budget(mean, mean * tail)
    beyond = held_drift(results, budget) + mean
    if abs(beyond) > 1e-9:
        assert within_budget(results, budget) == (beyond > 0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=4), st.floats(0, 1))
def test_a_gain_never_fails(drifts: list[float], mean: float) -> None:
    results = [result(f"s{i}", drift) for i, drift in enumerate(drifts)]
    check_budget(results, Budget(mean, mean))


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=3), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_budget_holds_for_every_set_and_picture(
    sets: list[list[float]], mean: float, more: float
) -> None:
    results = [result(f"s{i}", *drifts) for i, drifts in enumerate(sets)]
    budget = Budget(mean, mean + more)
    pictures = [picture for r in results for picture in r.pictures]
    if all(r.drift >= -mean for r in results) and all(p.drift >= -mean - more for p in pictures):
        check_budget(results, budget)
    else:
        with pytest.raises(DriftExceeded):
            check_budget(results, budget)


def test_what_was_not_executed_cannot_pass() -> None:
    idle = DatasetResult("Set14", "torch", ())
    with pytest.raises(DriftExceeded, match="Set14 was not executed"):
        check_budget((result("Set5", 0.0), idle), ANYTHING)
    with pytest.raises(DriftExceeded, match="nothing was executed"):
        check_budget((), ANYTHING)
    assert math.isnan(worst_drift((result("Set5", 0.0), idle)))


def passport(*drift: DriftRecord) -> Manifest:
    return Manifest(
        BuildConfig("00", "openvino", "1", Precision.INT8),
        ModelSpec("vapsr", "vapsr-x4", 4, 20),
        "11",
        "engine.onnx",
        "cpu",
        drift=drift,
        budget=Budget(0.05, 0.2),
    )


def test_records_are_what_a_manifest_keeps() -> None:
    executed, idle = by_content(), DatasetResult("Set14", "torch", ())
    (record,) = to_records((executed, idle), executed_on="openvino")
    assert (record.dataset, record.reference_runtime) == ("Set5", "torch")
    assert record.executed_on == "openvino"
    assert record.drift == pytest.approx(-0.2)
    assert record.psnr_engine == pytest.approx(29.8)
    assert record.fidelity == 50.0
    assert (record.worst, record.worst_drift) == ("1", pytest.approx(-0.3))
    assert record.contents == (
        ContentDrift("text", pytest.approx(-0.3)),
        ContentDrift("dark", pytest.approx(-0.2)),
    )
    assert record.hard is False
    (hard,) = to_records((replace(executed, hard=True),), executed_on="openvino")
    assert hard == replace(record, hard=True)
    manifest = replace(passport(record, hard), kernel_bound=2.0)
    assert load(Manifest, dump(manifest)) == manifest
    subject = Subject.of(manifest, Bicubic(4, target="onnxruntime"))
    assert (subject.executed_on, subject.engine_executed) == ("onnxruntime", False)
    assert Subject.of(manifest, Bicubic(4, target="openvino")).engine_executed


def test_manifests_without_the_worst_picture_still_load() -> None:
    record = to_records((by_content(),), executed_on="openvino")[0]
    manifest = passport(record)
    older = json.loads(dump(manifest))
    for name in ("worst", "worst_drift", "contents", "hard"):
        del older["drift"][0][name]
    for name in ("budget", "kernel_bound", "kernel_difference"):
        del older[name]
    plain = replace(record, worst="", worst_drift=None, contents=())
    assert load(Manifest, json.dumps(older)) == replace(manifest, drift=(plain,), budget=None)


@pytest.mark.parametrize("limits", [(0.2, 0.05), (-1, 1), (0, "NaN"), (0, 1e999)])
def test_a_manifest_with_no_budget_that_can_be_is_refused(limits: tuple) -> None:
    manifest = Manifest(
        BuildConfig("00", "openvino", "1", Precision.INT8),
        ModelSpec("vapsr", "v", 4, 20),
        "11",
        "e",
        "cpu",
        budget=Budget(0.05, 0.2),
    )
    broken = json.loads(dump(manifest))
    broken["budget"]["mean"], broken["budget"]["worst"] = limits
    with pytest.raises(ValueError, match=r"Manifest\.budget"):
        load(Manifest, json.dumps(broken))


def test_drift_by_content_is_worst_first() -> None:
    found = by_content()
    assert [c.content for c in found.contents()] == ["text", "dark"]
    assert [c.drift for c in found.contents()] == pytest.approx([-0.3, -0.2])
    document = to_json(SUBJECT, (found, result("Set5", 0.0)))["datasets"]
    assert document[0]["contents"] == {"text": -0.3, "dark": -0.2}
    assert "contents" not in document[1], "no picture of it has a class"


def by_content() -> DatasetResult:
    """Dark pictures of -0.1 and -0.3 dB, a text of -0.3 dB, and one of no class; -0.2 dB."""
    found = result("Set5", -0.1, -0.3, -0.3, -0.1)
    classes = ("dark", "dark", "text", "")
    pictures = (replace(p, content=c) for p, c in zip(found.pictures, classes, strict=True))
    return replace(found, pictures=tuple(pictures))


def test_classes_and_hardness_go_from_the_data_set_to_what_is_measured(dataset: Dataset) -> None:
    named = replace(dataset.pairs[0], content="line art")
    given_set = Dataset("d", (named, *dataset.pairs[1:]), hard=True)
    (found,) = measure(Bicubic(offset=2), Bicubic(), (given_set,), 2)
    assert found.hard
    assert [p.content for p in found.pictures] == ["line art", "", "", "", ""]
    (plain,) = measure(Bicubic(), Bicubic(), (dataset,), 2)
    assert not plain.hard


def test_the_reference_is_computed_once(dataset: Dataset) -> None:
    slow = Bicubic()
    with ReferenceCache(slow) as reference:
        assert (reference.scale, reference.target) == (2, "bicubic")
        first = measure(Bicubic(offset=1), reference, (dataset,), 2)
        again = measure(Bicubic(offset=1), reference, (dataset,), 2)
        assert first == again == measure(Bicubic(offset=1), Bicubic(), (dataset,), 2)
        assert slow.calls == 5
    assert slow.closed


def test_the_cache_stays_within_its_memory() -> None:
    frames = [np.full((1, 4, 5, 3), value, np.uint8) for value in range(3)]
    slow = Bicubic()
    cache = ReferenceCache(slow, limit_bytes=2 * 8 * 10 * 3)
    for index in (0, 1, 0, 2, 0):  # 1 was not used for longest when 2 came
        assert (cache.upscale(frames[index]) == index).all()
    assert slow.calls == 3
    cache.upscale(frames[1])
    assert slow.calls == 4
    large = np.zeros((1, 50, 50, 3), np.uint8)
    cache.upscale(large)
    cache.upscale(large)
    assert slow.calls == 6
    cache.upscale(frames[1])
    assert slow.calls == 6


def test_cached_outputs_cannot_be_changed() -> None:
    cache = ReferenceCache(Bicubic())
    kept = cache.upscale(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        kept[:] = 1


def test_frames_of_equal_bytes_but_other_shape_are_kept_apart() -> None:
    cache = ReferenceCache(Bicubic())
    assert cache.upscale(np.zeros((1, 4, 6, 3), np.uint8)).shape == (1, 8, 12, 3)
    assert cache.upscale(np.zeros((1, 6, 4, 3), np.uint8)).shape == (1, 12, 8, 3)


def test_the_cache_serves_threads() -> None:
    cache = ReferenceCache(Bicubic(), limit_bytes=2000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for value in np.random.default_rng(seed).integers(0, 8, 60):
            frames = np.full((1, 5, 5, 3), value, np.uint8)
            if (cache.upscale(frames) != value).any():
                wrong.append(int(value))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_the_torch_session_imports_torch(repository: Path) -> None:
    names = [
        path.stem
        for path in sorted((repository / "validate").glob("*.py"))
        if path.stem not in ("__init__", "torch_session")
    ]
    assert {"datasets", "drift", "reference"} <= set(names)
    imports = "; ".join(f"import srdeploy.validate.{name}" for name in names)
    subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; assert 'torch' not in sys.modules"],
        env=os.environ | {"PYTHONPATH": str(repository / ".src")},
        check=True,
    )


@pytest.mark.shared
def test_a_brighter_bicubic_drifts_on_set5(shared: Path) -> None:
    (found,) = measure(Bicubic(4, offset=1), Bicubic(4), find_datasets(shared / "data/Set5", 4), 4)
    assert found.mean("psnr_reference") == pytest.approx(28.43, abs=0.005)
    assert -0.05 < found.drift < 0
    with pytest.raises(DriftExceeded, match="Set5"):
        check_budget((found,), NOTHING)


def test_pair_scale_is_the_border(tmp_path: Path) -> None:
    """An error within ``scale`` pixels of the edge does not count."""
    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "flat.png")

    class Framed(Bicubic):
        def _upscale(self, frames: Frames) -> Frames:
            upscaled = super()._upscale(frames)
            inside = np.s_[:, self.width : -self.width, self.width : -self.width]
            framed = np.zeros_like(upscaled)
            framed[inside] = upscaled[inside]
            return framed

        width = 4

    dataset = Dataset("d", (Pair("flat", tmp_path / "flat.png", None, 4),))
    engine = Framed(4)
    assert measure(engine, Bicubic(4), (dataset,), 4)[0].drift == 0
    engine.width = 5
    assert measure(engine, Bicubic(4), (dataset,), 4)[0].drift < -10
