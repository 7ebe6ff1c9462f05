"""What the commands say of a calibration set, and what they refuse to judge or choose on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from srdeploy import data
from srdeploy.cli import main
from srdeploy.commands import build_engine
from srdeploy.commands.calibration import open_calibration_set, refuse_calibrated
from srdeploy.errors import DatasetError, EngineError
from srdeploy.spec import BuildConfig, Manifest, ModelSpec, Precision, dump, load
from srdeploy.validate.datasets import find_datasets
from srdeploy.validate.resize import modcrop, shrink


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def landscape(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    return np.asarray(small.resize((180, 120), Image.Resampling.BICUBIC))


def manifest(fingerprints: tuple[str, ...]) -> Manifest:
    return Manifest(
        BuildConfig("a", "onnxruntime", "1", Precision.INT8),
        ModelSpec("vapsr", "vapsr-s-x4", 4, 7),
        "b",
        "vapsr-s-x4_int8.engine",
        "CPU",
        calibration_pictures=fingerprints,
    )


def test_the_bundled_set_is_whole_and_not_poor() -> None:
    said: list[str] = []
    made = open_calibration_set((), False, said.append)
    assert said == ["calibrating on 17 bundled pictures …"]
    assert {m.name for m in made.members} == {p.name for p in data.pictures("calibration")}
    assert made.skipped == made.left_out == made.duplicates == ()


def test_what_gives_nothing_is_counted(tmp_path) -> None:
    for number in range(8):
        save(tmp_path / f"{number}.png", landscape(number))
    save(tmp_path / "repeat.jpg", landscape(3))
    save(tmp_path / "small.png", landscape(9)[:70])
    for number in range(7):
        (tmp_path / f"broken{number}.png").write_bytes(b"nothing of use")
    said: list[str] = []
    open_calibration_set([tmp_path], False, said.append)
    assert said[0] == "calibrating on 8 of your pictures and 9 bundled drawings …"
    text = "\n".join(said)
    assert "7 skipped as damaged: " in text
    assert "and 2 more" in text
    assert "1 left out: " in text
    assert "small.png: smaller than a crop" in text
    assert "1 left out as repeats: " in text
    with pytest.raises(DatasetError, match=r"broken0\.png"):
        open_calibration_set([tmp_path], True, said.append)


@pytest.mark.parametrize("alone", [True, False])
def test_a_poor_set_is_said_to_be_poor(alone, tmp_path) -> None:
    """Our drawings are no reason to take one picture for enough."""
    said: list[str] = []
    open_calibration_set([save(tmp_path / "one.png", landscape(1))], False, said.append, alone)
    assert any(line.startswith("the calibration set is poor: only 1 distinct") for line in said)


def test_your_pictures_and_the_bundled_drawings(tmp_path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", landscape(number))
    yours = {f"{number}.png" for number in range(6)}
    drawings = {p.name for p in data.pictures("calibration") if p.drawn}
    assert len(drawings) == 9
    said: list[str] = []
    both = open_calibration_set([tmp_path], False, said.append)
    assert {Path(m.name).name for m in both.used} == yours | drawings
    only = open_calibration_set([tmp_path], False, said.append, alone=True)
    assert {Path(m.name).name for m in only.used} == yours
    assert said == [
        "calibrating on 6 of your pictures and 9 bundled drawings …",
        "calibrating on 6 of your pictures …",
    ]
    assert both.sha256 != only.sha256


@pytest.mark.parametrize("alone", [True, False])
def test_drawings_do_not_stand_in_for_pictures_that_cannot_be_used(alone, tmp_path) -> None:
    """And what is wrong with each is said."""
    save(tmp_path / "small.png", landscape(1)[:70])
    (tmp_path / "broken.png").write_bytes(b"nothing of use")
    said: list[str] = []
    with pytest.raises(DatasetError) as caught:
        open_calibration_set([tmp_path], False, said.append, alone)
    told = "\n".join((*said, caught.value.message))
    assert "broken.png" in told or alone
    assert "small.png" in told or alone
    (tmp_path / "small.png").unlink()
    said.clear()
    with pytest.raises(DatasetError) as caught:
        open_calibration_set([tmp_path], False, said.append, alone)
    assert "broken.png" in "\n".join((*said, caught.value.message))
    assert not any(line.startswith("calibrating") for line in said)


@pytest.mark.parametrize(
    "words",
    [
        ("--calib-only",),
        ("--calib-only", "--int8"),
        ("--calib-only", "--calib", "."),
        ("--calib-only", "--calib", ".", "--fp16"),
    ],
)
def test_calib_only_without_effect_is_a_usage_error(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, ["build-engine", "absent.onnx", *words])
    assert done.exit_code == 2
    assert "--calib-only is about" in " ".join(done.output.split())


@pytest.mark.parametrize("words", [(), ("--calib-only",)])
def test_the_option_reaches_the_calibration_set(
    words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder / "mine" / "one.png", landscape(1))
    asked: list[tuple[object, ...]] = []

    def stop(*given: object) -> None:
        asked.append(given)
        raise DatasetError("enough")

    monkeypatch.setattr(build_engine, "open_calibration_set", stop)
    done = CliRunner().invoke(
        main, ["build-engine", "net.onnx", "--int8", "--calib", "mine", *words]
    )
    assert "enough" in done.output
    ((paths, strict, _, alone),) = asked
    assert (list(paths), strict, alone) == ([Path("mine")], False, bool(words))


@pytest.mark.parametrize("split", ["tuning", "proof"])
def test_pictures_that_choose_or_prove_are_refused(split, tmp_path) -> None:
    """As LR too, and under another name."""
    picture = data.pictures(split)[0]
    for number in range(3):
        save(tmp_path / f"{number}.png", landscape(number))
    low = save(tmp_path / "mine.png", shrink(modcrop(picture.read(), 3), 3))
    with pytest.raises(DatasetError, match=f"{split} pictures: .*mine.png is {picture.name}") as e:
        open_calibration_set([tmp_path], False, lambda _: None)
    assert "--calib" in e.value.message
    low.unlink()
    open_calibration_set([tmp_path], False, lambda _: None)


def test_bundled_splits_share_no_pictures(tmp_path) -> None:
    made = open_calibration_set((), False, lambda _: None)
    engine = manifest(tuple(str(m.fingerprint) for m in made.used))
    for split in ("tuning", "proof"):
        for picture in data.pictures(split):
            save(tmp_path / split / f"{picture.name}.png", picture.read())
        refuse_calibrated(engine, find_datasets(tmp_path / split, 4))


def test_an_engine_is_not_judged_on_what_it_was_calibrated_on(tmp_path) -> None:
    made = open_calibration_set((), False, lambda _: None)
    fingerprints = tuple(str(m.fingerprint) for m in made.used)
    for picture in data.pictures("calibration")[:2]:
        save(tmp_path / "set" / f"{picture.name}.jpg", shrink(modcrop(picture.read(), 2), 2))
    save(tmp_path / "set" / "other.png", landscape(1))
    datasets = find_datasets(tmp_path / "set", 2)
    with pytest.raises(DatasetError, match=r"calibrated on 2 of these pictures: set/\w+, set/\w+"):
        refuse_calibrated(manifest(fingerprints), datasets)
    refuse_calibrated(manifest(()), datasets)
    with pytest.raises(EngineError, match="no fingerprint"):
        refuse_calibrated(manifest(("nonsense",)), datasets)


def test_manifests_from_before_still_load() -> None:
    made = manifest(("dct:" + "0" * 64,))
    assert load(Manifest, dump(made)) == made
    older = json.loads(dump(made))
    del older["calibration_pictures"]
    assert load(Manifest, json.dumps(older)).calibration_pictures == ()
