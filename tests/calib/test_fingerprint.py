"""Fingerprints: one picture in many forms is one picture, two are two."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from srdeploy import data
from srdeploy.calib.fingerprint import (
    BITS,
    SAME_WITHIN,
    Fingerprint,
    find_same,
    fingerprint,
    pixel_digest,
    read_fingerprint,
)
from srdeploy.errors import EngineError
from srdeploy.validate.datasets import read_picture
from srdeploy.validate.resize import modcrop, shrink

COLOUR_ALONE = {"saturated_chart", "saturated_hues"}
"""Drawings whose luma, all that a fingerprint sees, has too little to be recognised in other
forms."""


def resized(pixels, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def as_jpeg(pixels, quality: int) -> np.ndarray:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality)
    return np.asarray(Image.open(held).convert("RGB"))


@given(
    number=st.integers(0, 50),
    width=st.integers(40, 300),
    height=st.integers(40, 300),
    quality=st.integers(20, 95),
)
def test_scaling_and_jpeg_do_not_hide_a_picture(scenery, number, width, height, quality) -> None:
    whole = scenery(number, 192, 256)
    other_form = as_jpeg(resized(whole, width, height), quality)
    assert fingerprint(whole).distance(fingerprint(other_form)) <= SAME_WITHIN


def test_other_pictures_are_others(scenery) -> None:
    seen = [fingerprint(scenery(number)) for number in range(40)]
    assert min(a.distance(b) for a, b in combinations(seen, 2)) > 1.5 * SAME_WITHIN


def test_bundled_pictures_and_what_is_made_of_them() -> None:
    pictures = {p.name: p.read() for split in data.SPLITS for p in data.pictures(split)}
    known = {name: fingerprint(pixels) for name, pixels in pictures.items()}
    assert {name for name, f in known.items() if f.exact} == {"saturated_hues"}
    assert min(a.distance(b) for a, b in combinations(known.values(), 2)) > 1.5 * SAME_WITHIN
    for name, pixels in pictures.items():
        low, jpeg = fingerprint(shrink(modcrop(pixels, 4), 4)), fingerprint(as_jpeg(pixels, 20))
        if name not in COLOUR_ALONE:
            assert find_same(low, known) == name
            assert find_same(jpeg, known) == name
        assert {find_same(low, known), find_same(jpeg, known)} <= {name, None}
    assert {p.name for p in data.pictures("calibration")} >= COLOUR_ALONE, "no proof hangs on them"
    assert find_same(known["brick"], {n: f for n, f in known.items() if n != "brick"}) is None


@pytest.mark.shared
def test_published_pairs(shared) -> None:
    known = {}
    for name in ("Set5", "Set14"):
        for path in sorted((shared / "data" / name / "HR").glob("*.png")):
            known[path.stem] = fingerprint(read_picture(path))
            for scale in (2, 3, 4):
                low = path.parents[1] / f"LR_bicubic/X{scale}/{path.stem}x{scale}.png"
                assert known[path.stem].distance(fingerprint(read_picture(low))) <= 25
    near = {
        frozenset((a, b))
        for a, b in combinations(known, 2)
        if known[a].distance(known[b]) <= SAME_WITHIN
    }
    assert near == {frozenset(("head", "face"))}  # one photograph, in both data sets
    (theirs,) = (shared / "data/train/BSDS500").rglob("302003.jpg")
    assert find_same(fingerprint(read_picture(theirs)), known) == "woman"


def test_flat_pictures_are_the_same_only_where_equal() -> None:
    flat = [np.full((64, 96, 3), value, np.uint8) for value in (0, 1, 128, 255)]
    stripes = np.repeat((np.arange(96) % 7 * 30).astype(np.uint8)[None, :, None], 64, axis=0)
    seen = [fingerprint(p) for p in [*flat, np.repeat(stripes, 3, axis=2)]]
    assert all(f.exact for f in seen)
    assert {a.distance(b) for a, b in combinations(seen, 2)} == {BITS}
    assert find_same(fingerprint(flat[2].copy()), {"grey": seen[2]}) == "grey"
    assert find_same(fingerprint(flat[2][:, :95]), {"grey": seen[2]}) is None


@given(st.integers(0, 2**BITS - 1), st.booleans())
def test_text_round_trip(bits, exact) -> None:
    made = Fingerprint(bits, exact)
    assert read_fingerprint(str(made)) == made


@pytest.mark.parametrize("text", ["", "dct:12", "dct:" + "g" * 64, "md5:" + "0" * 64, "x" * 9999])
def test_other_text_is_refused(text) -> None:
    with pytest.raises(EngineError, match="no fingerprint"):
        read_fingerprint(text)


def test_the_digest_sees_pixels_and_shape() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    other = pixels.copy()
    other[3, 5, 2] ^= 1
    assert len({pixel_digest(p) for p in (pixels, other, pixels.reshape(6, 4, 3))}) == 3
    assert pixel_digest(np.asfortranarray(pixels)) == pixel_digest(pixels)
