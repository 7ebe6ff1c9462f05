"""Calibration sets: what is cut from which pictures, and what gives nothing."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from srdeploy.calib.calibration_set import CalibrationSet, make_calibration_set
from srdeploy.calib.pictures import HeldPictures, NamedPicture, load_pictures
from srdeploy.errors import DatasetError
from srdeploy.validate.resize import shrink

SIZE = (24, 40)


@pytest.fixture(scope="module")
def several(scenery) -> list[NamedPicture]:
    """Six pictures of different sizes, one of them too small for a crop."""
    sizes = [(96, 140), (60, 60), (24, 40), (300, 400), (90, 41), (23, 200)]
    return [NamedPicture(f"p{i}", scenery(i, *size)) for i, size in enumerate(sizes)]


def check_cut(made: CalibrationSet, pictures) -> None:
    """Every crop and frame is where its origin says."""
    known = {p.name: p.pixels for p in pictures}
    frames = [(f.origin, f.pixels) for f in made.frames]
    for origin, pixels in [*zip(made.origins, made.crops, strict=True), *frames]:
        rows = slice(origin.top, origin.top + pixels.shape[0])
        columns = slice(origin.left, origin.left + pixels.shape[1])
        assert np.array_equal(pixels, known[origin.picture][rows, columns])


@settings(max_examples=15)
@given(order=st.permutations(range(6)), count=st.integers(1, 20), seed=st.integers(0, 3))
def test_a_set_is_a_function_of_its_pictures_and_the_seed(several, order, count, seed) -> None:
    made = make_calibration_set(several, SIZE, count, seed=seed)
    check_cut(made, several)
    assert made.crops.shape == (count, *SIZE, 3)
    assert made.left_out == (("p5", "smaller than a crop of 40×24 pixels"),)
    assert [m.name for m in made.members] == ["p0", "p1", "p2", "p3", "p4"]
    shares = Counter(origin.picture for origin in made.origins)
    assert max(shares.values()) - min(shares.get(m.name, 0) for m in made.members) <= 1
    again = make_calibration_set([several[i] for i in order], SIZE, count, seed=seed)
    assert again.manifest() == made.manifest()
    assert np.array_equal(again.crops, made.crops)
    renamed = [NamedPicture(f"q{9 - i}", p.pixels) for i, p in enumerate(several)]
    assert make_calibration_set(renamed, SIZE, count, seed=seed).sha256 == made.sha256


def test_the_digest_sees_crops_and_frames(several) -> None:
    kinds = [{}, {"seed": 1}, {"count": 6}, {"frame_count": 1}, {"frame_count": 0}]
    made = [make_calibration_set(several, SIZE, **({"count": 5} | kind)) for kind in kinds]
    assert len({m.sha256 for m in made}) == len(kinds)


def test_frames_are_whole_where_they_can_be(scenery, several) -> None:
    made = make_calibration_set(several, SIZE, 5, frame_count=9)
    assert {f.origin.picture: f.whole for f in made.frames} == {
        "p0": True, "p1": True, "p2": True, "p4": True, "p3": False,
    }  # fmt: skip
    assert not made.frames[-1].whole  # whole ones first
    assert made.frames[-1].pixels.shape == (240, 320, 3)
    assert (made.frames[-1].origin.top, made.frames[-1].origin.left) == (30, 40)
    assert len(make_calibration_set(several, SIZE, 5).frames) == 2
    assert all(f.whole for f in make_calibration_set(several, SIZE, 5).frames)
    wide = make_calibration_set([NamedPicture("wide", scenery(1, 100, 1000))], SIZE, 5)
    assert wide.frames[0].pixels.shape == (100, 320, 3)
    assert len(made.pictures) == len(made.crops) + len(made.frames)


def test_repeats_give_nothing(scenery) -> None:
    whole = scenery(1, 200, 300)
    held = io.BytesIO()
    Image.fromarray(whole).save(held, "JPEG", quality=40)
    forms = {
        "jpeg": np.asarray(Image.open(held).convert("RGB")),
        "lr": shrink(whole, 4),
        "resized": np.asarray(Image.fromarray(whole).resize((170, 120))),
        "another": scenery(2, 100, 100),
    }
    pictures = [NamedPicture(n, p) for n, p in forms.items()] + [NamedPicture("whole", whole)]
    made = make_calibration_set(pictures, SIZE, 4)
    kept = {m.name for m in made.members}
    assert len(kept) == 2
    assert "another" in kept
    (largest,) = kept & {"jpeg", "whole"}  # of one size
    assert dict(made.duplicates) == {n: largest for n in (*forms, "whole") if n not in kept}


def test_the_manifest_is_plain_json(several) -> None:
    repeat = NamedPicture("p0 again", several[0].pixels[:, ::-1][:, ::-1])
    made = make_calibration_set([*several, repeat], SIZE, 5)
    document = made.manifest()
    assert json.loads(json.dumps(document)) == document
    assert document["sha256"] == made.sha256
    assert document["crop"] == {"height": 24, "width": 40}
    assert len(document["crops"]) == 5
    assert {p["name"] for p in document["pictures"]} | {"p5", "p0 again", "p0"} >= {
        p.name for p in several
    }
    assert len(document["duplicates"]) == 1
    assert document["coverage"]["pictures"] == 5
    assert {f["whole"] for f in document["frames"]} == {True}


def test_sets_of_nothing_are_refused(several, tmp_path) -> None:
    with pytest.raises(DatasetError, match="the calibration set is empty"):
        make_calibration_set([])
    with pytest.raises(DatasetError, match="0 pictures are that large"):
        make_calibration_set(several[-1:], SIZE)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"nothing of use")
    with pytest.raises(DatasetError, match=r"none of the 2 calibration files .*a\.png"):
        make_calibration_set(load_pictures([tmp_path]))


def test_a_thousand_pictures_with_a_corrupt_one_in_the_middle(tmp_path, scenery) -> None:
    for index in range(1000):
        Image.fromarray(scenery(index, 16, 20)).save(tmp_path / f"{index:04}.bmp")
    broken = tmp_path / "0500.bmp"
    broken.write_bytes(broken.read_bytes()[:200])
    made = make_calibration_set(load_pictures([tmp_path]), (12, 16), 100)
    ((name, reason),) = made.skipped
    assert name == str(broken)
    assert "cannot be read" in reason
    assert len(made.members) == 999
    assert len({origin.picture for origin in made.origins}) == 100
    assert {m.name for m in made.used} >= {origin.picture for origin in made.origins}
    assert len(made.used) <= 102
    with pytest.raises(DatasetError, match=r"0500\.bmp"):
        make_calibration_set(load_pictures([tmp_path], strict=True), (12, 16), 100)


def test_a_picture_that_changes_between_the_readings_is_refused(several) -> None:
    class Changing(HeldPictures):
        def read(self, wanted=None):
            for picture in super().read(wanted):
                changed = 255 - picture.pixels if wanted else picture.pixels
                yield NamedPicture(picture.name, changed)

    with pytest.raises(DatasetError, match="changed while it was read"):
        make_calibration_set(Changing(several), SIZE, 5)
