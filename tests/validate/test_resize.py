"""MATLAB's imresize: properties, a second implementation, and the published pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from srdeploy.errors import DatasetError
from srdeploy.validate.datasets import find_datasets
from srdeploy.validate.metrics import cut_border, luma, psnr
from srdeploy.validate.resize import modcrop, resize, shrink

Picture = NDArray[np.uint8]
seeds = st.integers(0, 2**32 - 1)
edges = st.integers(1, 24)
scales = st.integers(1, 5)


def random_picture(seed: int, height: int, width: int, channels: int = 3) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def keys(x: float) -> float:
    """Cubic convolution with a = -1/2, in the paper's form."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_column(column: list[float], length: int) -> list[int]:
    """One pixel after another, every tap of the mirrored column."""
    n, scale = len(column), length / len(column)
    stretch = min(scale, 1.0)
    resized = []
    for out in range(length):
        centre = (out + 0.5) / scale - 0.5
        taps = range(math.floor(centre - 2 / stretch), math.ceil(centre + 2 / stretch) + 1)
        weights = [keys(stretch * (centre - tap)) for tap in taps]
        mirrored = [tap % (2 * n) for tap in taps]
        values = [column[m if m < n else 2 * n - 1 - m] for m in mirrored]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        resized.append(min(max(math.floor(mean + 0.5), 0), 255))
    return resized


def resize_by_definition(picture: Picture, height: int, width: int) -> Picture:
    rows = np.array(
        [
            [resize_column(picture[:, x, c].tolist(), height) for c in range(picture.shape[2])]
            for x in range(picture.shape[1])
        ]
    ).transpose(2, 0, 1)
    both = np.array(
        [
            [resize_column(rows[y, :, c].tolist(), width) for c in range(picture.shape[2])]
            for y in range(height)
        ]
    ).transpose(0, 2, 1)
    return both.astype(np.uint8)


@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    to=st.tuples(st.integers(1, 15), st.integers(1, 15)),
)
def test_resize_is_that_of_the_definition(
    seed: int, size: tuple[int, int], to: tuple[int, int]
) -> None:
    picture = random_picture(seed, *size)
    expected = resize_by_definition(picture, *to).astype(int)
    apart = np.abs(resize(picture, *to).astype(int) - expected)
    # Sums in another order may fall on the other side of a half, once per direction.
    assert apart.max() <= 2
    assert (apart > 0).mean() <= 0.05


@given(value=st.integers(0, 255), height=edges, width=edges, to=st.tuples(edges, edges))
def test_a_constant_stays(value: int, height: int, width: int, to: tuple[int, int]) -> None:
    resized = resize(np.full((height, width, 3), value, np.uint8), *to)
    assert resized.shape == (*to, 3)
    assert resized.dtype == np.uint8
    assert (resized == value).all()


@given(seed=seeds, height=edges, width=edges)
def test_the_same_size_changes_nothing(seed: int, height: int, width: int) -> None:
    picture = random_picture(seed, height, width)
    assert np.array_equal(resize(picture, height, width), picture)


@given(seed=seeds, scale=scales, height=st.integers(1, 8), width=st.integers(1, 8))
def test_channels_do_not_mix(seed: int, scale: int, height: int, width: int) -> None:
    picture = random_picture(seed, height * scale, width * scale)
    whole = shrink(picture, scale)
    for channel in range(3):
        alone = shrink(picture[:, :, channel : channel + 1], scale)
        assert np.array_equal(whole[:, :, channel], alone[:, :, 0])


@given(seed=seeds, scale=st.integers(1, 4), height=st.integers(1, 8), width=st.integers(1, 8))
def test_directions_commute_but_for_the_rounding_between(
    seed: int, scale: int, height: int, width: int
) -> None:
    picture = random_picture(seed, height * scale, width * scale)
    turned = shrink(picture.swapaxes(0, 1), scale).swapaxes(0, 1)
    assert np.abs(shrink(picture, scale).astype(int) - turned.astype(int)).max() <= 2


@given(seed=seeds, height=st.integers(0, 40), width=st.integers(0, 40), scale=scales)
def test_modcrop_keeps_the_top_left_multiple(
    seed: int, height: int, width: int, scale: int
) -> None:
    picture = random_picture(seed, height, width)
    cropped = modcrop(picture, scale)
    h, w, _ = cropped.shape
    assert h % scale == w % scale == 0
    assert 0 <= height - h < scale
    assert 0 <= width - w < scale
    assert np.array_equal(cropped, picture[:h, :w])


def test_shrink_refuses_what_is_no_multiple() -> None:
    with pytest.raises(DatasetError, match="9×8 pixels cannot be shrunk by exactly 4"):
        shrink(np.zeros((8, 9, 3), np.uint8), 4)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_no_pixel_differs_from_the_published_lr(shared: Path, name: str, scale: int) -> None:
    (dataset,) = find_datasets(shared / "data" / name, scale)
    for pair in dataset.pairs:
        lr, hr = pair.read()
        assert np.count_nonzero(shrink(hr, scale) != lr) == 0, pair.name


@pytest.mark.shared
@pytest.mark.parametrize(("name", "expected"), [("Set5", 28.43), ("Set14", 26.09)])
def test_bicubic_gives_the_psnr_of_the_literature(shared: Path, name: str, expected: float) -> None:
    (dataset,) = find_datasets(shared / "data" / name, 4)
    values = []
    for pair in dataset.pairs:
        lr, hr = pair.read()
        planes = (cut_border(luma(p), 4) for p in (resize(lr, *hr.shape[:2]), hr))
        values.append(psnr(*planes))
    assert np.mean(values) == pytest.approx(expected, abs=0.005)
