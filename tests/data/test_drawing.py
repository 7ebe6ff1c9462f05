"""The pictures that code makes: it still makes them, and they can show what int8 loses."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from srdeploy import data
from srdeploy.calib.fingerprint import find_same, fingerprint
from srdeploy.data import DRAWN, SPLITS, Picture, drawing, pictures
from srdeploy.data.drawing import DRAWINGS, Drawing, __main__, canvas
from srdeploy.data.drawing.canvas import Canvas
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import resize, shrink

PICTURES = {picture.file: picture for split in SPLITS for picture in pictures(split)}


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.file)
def test_the_code_makes_the_stored_picture(drawing: Drawing) -> None:
    """Another Pillow may place letters or round otherwise by less than a code value."""
    stored = PICTURES[drawing.file].read()
    with Image.open(io.BytesIO(drawing.encode())) as opened:
        made = np.asarray(opened.convert("RGB"))
    assert made.shape == stored.shape
    assert np.abs(made.astype(int) - stored).mean() < 1


def test_the_manifest_says_what_the_code_makes() -> None:
    for made in DRAWINGS:
        picture = PICTURES[made.file]
        assert (picture.title, picture.split, picture.content) == (
            made.title,
            made.split,
            made.content,
        )
        if made.photograph is None:
            assert picture.drawn
            assert picture.source == made.source
        else:
            (whole,) = [p for p in PICTURES.values() if p.name == made.photograph]
            assert picture.content not in DRAWN
            assert (picture.split, picture.source, picture.author, picture.licence) == (
                whole.split,
                whole.source,
                whole.author,
                whole.licence,
            )
    assert {p.file for p in PICTURES.values() if p.drawn} <= {made.file for made in DRAWINGS}


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.file)
def test_a_network_has_something_to_do_and_can_do_it(drawing: Drawing) -> None:
    """Neither flat, where PSNR says nothing, nor noise, in which int8 would drown."""
    high = PICTURES[drawing.file].read()
    again = resize(shrink(high, 4), *high.shape[:2])
    assert 20 < psnr(cut_border(luma(high), 4), cut_border(luma(again), 4)) < 45


def shows(content: str) -> list[np.ndarray]:
    return [picture.read() for picture in PICTURES.values() if picture.content == content]


def test_flat_pictures_have_a_white_and_a_black_area() -> None:
    for pixels in shows("flat"):
        assert (pixels.min(axis=2) >= 250).mean() > 0.15
        assert (pixels.max(axis=2) <= 12).mean() > 0.05


def test_saturated_pictures_touch_both_ends_in_each_channel() -> None:
    for pixels in shows("saturated"):
        assert (pixels.min(axis=(0, 1)) == 0).all()
        assert (pixels.max(axis=(0, 1)) == 255).all()
        assert np.ptp(pixels, axis=2).mean() > 75


def test_gradients_are_smooth_and_span_the_range() -> None:
    for pixels in shows("gradient"):
        plane = luma(pixels)
        low, high = np.percentile(plane, (1, 99))
        assert high - low > 150
        assert np.median(np.abs(np.diff(plane, axis=1))) < 1


def test_grain_is_noise_that_neighbours_share() -> None:
    even = np.full((120, 160, 3), 128, np.uint8)
    noise = canvas.film_grain(even, 0, 6).astype(float) - 128
    assert 4 < noise.std() < 8
    apart = (noise[:, 1:] * noise[:, :-1]).mean() / noise.var()
    assert 0.3 < apart < 0.8
    channels = np.corrcoef(noise.reshape(-1, 3).T)
    assert 0.5 < channels[0, 1] < 0.95


def test_text_is_dark_on_light_and_light_on_dark() -> None:
    for pixels in shows("text"):
        plane = luma(pixels)
        assert min((plane < 80).mean(), (plane > 160).mean()) > 0.1


def test_no_two_pictures_show_the_same() -> None:
    seen = {picture.name: fingerprint(picture.read()) for picture in PICTURES.values()}
    for (a, mine), (b, theirs) in combinations(seen.items(), 2):
        assert find_same(mine, {b: theirs}) is None, (a, b)


def test_writing_all_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two pictures, one of them a piece of a photograph, whose rows move to the end."""
    folder = Path(data.__file__).resolve().parent
    shutil.copy(folder / "pictures.json", tmp_path)
    (tmp_path / "pictures").mkdir()
    few = (DRAWINGS[0], next(made for made in DRAWINGS if made.content == "flat"))
    monkeypatch.setattr(__main__, "DRAWINGS", few)
    monkeypatch.setattr(__main__, "_FOLDER", tmp_path)
    __main__.main()
    rows = json.loads((tmp_path / "pictures.json").read_text(encoding="utf-8"))["pictures"]
    before = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))["pictures"]
    assert len(rows) == len(before)
    assert [row["file"] for row in rows[-2:]] == [made.file for made in few]
    for row in rows[-2:]:
        content = (tmp_path / "pictures" / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        (old,) = [r for r in before if r["file"] == row["file"]]
        assert {**row, "sha256": ""} == {**old, "sha256": ""}


def test_a_canvas_averages_what_is_drawn_on_it() -> None:
    drawn = Canvas(4, 2)
    drawn.box(0, 0, 1.5, 2, (200, 100, 40))
    pixels = drawn.pixels()
    assert pixels.shape == (2, 4, 3)
    assert pixels[0, 0].tolist() == [200, 100, 40]
    assert pixels[0, 1].tolist() == [100, 50, 20]
    assert not pixels[:, 2:].any()


def test_a_curve_goes_through_its_points() -> None:
    points = [(0.0, 0.0), (10.0, 5.0), (20.0, -5.0), (30.0, 0.0)]
    assert set(points) <= set(canvas.spline(points))
    assert set(points) <= set(canvas.spline(points, closed=True))


def test_names_are_unique_and_splits_are_known() -> None:
    assert len({made.file for made in DRAWINGS}) == len(DRAWINGS)
    assert {made.split for made in DRAWINGS} == set(SPLITS)
    functions: set[object] = {made.draw for made in DRAWINGS}
    assert len(functions) == len(DRAWINGS), "a motif is in one split"
    assert isinstance(PICTURES[drawing.DRAWINGS[0].file], Picture)
