"""Coverage: what a set holds, and when it is called poor."""

from __future__ import annotations

import numpy as np
import pytest
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.coverage import cover
from srdeploy.calib.pictures import NamedPicture
from srdeploy.data import pictures
from srdeploy.validate.datasets import read_picture


def noise(low: int, high: int, colours: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(low, high, (40, 60, colours), dtype=np.uint8)
    return np.broadcast_to(values, (40, 60, 3))


def test_figures_of_a_known_picture() -> None:
    half = np.zeros((10, 20, 3), np.uint8)
    half[:, 10:] = 255
    found = cover([half], 1)
    assert found.luma_histogram == (0.5, *[0.0] * 14, 0.5)
    assert found.luma_range == 1.0
    assert found.clipped == 1.0
    assert found.grey == 1.0
    assert found.gradient == pytest.approx(10 * 255 / (10 * 19 + 9 * 20))


@pytest.mark.parametrize(
    ("cut", "count", "words"),
    [
        (noise(0, 256), 4, ["only 4 distinct"]),
        (noise(0, 40), 9, ["are dark", "of the range"]),
        (noise(215, 256), 9, ["are bright", "of the range"]),
        (noise(118, 122), 9, ["of the range", "little texture", "have no colour"]),
        (noise(0, 256, 1), 9, ["have no colour"]),
        (noise(0, 2) * 255, 9, ["are clipped"]),
        (noise(0, 256), 9, []),
    ],
)
def test_a_poor_set_is_called_so(cut, count, words) -> None:
    found = cover([cut], count).warnings()
    assert len(found) == len(words), found
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_one_flat_dark_picture() -> None:
    flat = make_calibration_set([NamedPicture("flat", np.full((90, 130, 3), 9, np.uint8))])
    assert len(flat.coverage.warnings()) == 5  # one, dark, one luma, no texture, no colour


def test_the_bundled_pictures_are_not_poor() -> None:
    bundled = [NamedPicture(p.name, p.read()) for p in pictures("calibration")]
    found = make_calibration_set(bundled).coverage
    assert found.warnings() == ()
    assert found.pictures == 17
    assert 0.1 < found.grey < 0.5  # four of the photographs, no drawing


@pytest.mark.shared
@pytest.mark.parametrize("first", [0, 60, 120, 180])
def test_photographs_are_not_poor(shared, first) -> None:
    files = sorted((shared / "data/train/BSDS500").rglob("*.jpg"))[first : first + 5]
    photographs = [NamedPicture(f.name, read_picture(f)) for f in files]
    assert make_calibration_set(photographs).coverage.warnings() == ()
