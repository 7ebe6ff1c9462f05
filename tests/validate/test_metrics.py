"""PSNR and SSIM against closed forms and a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from srdeploy.errors import DatasetError
from srdeploy.validate.metrics import cut_border, luma, psnr, ssim

Plane = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
edges = st.integers(11, 30)


def random_plane(seed: int, height: int, width: int) -> Plane:
    return np.random.default_rng(seed).uniform(16, 235, (height, width))


def ssim_by_definition(a: Plane, b: Plane) -> float:
    """One window after another, each with the full two-dimensional Gaussian."""
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    window /= window.sum()
    total, count = 0.0, 0
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p = a[top : top + 11, left : left + 11]
            q = b[top : top + 11, left : left + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 6.5025, 58.5225
            total += (2 * mp * mq + c1) * (2 * cov + c2) / (mp**2 + mq**2 + c1) / (vp + vq + c2)
            count += 1
    return total / count


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_that_of_bt601(rgb: tuple[int, int, int], expected: float) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("error", [0.5, 1.0, 10.0, 255.0])
def test_psnr_of_a_constant_error(error: float) -> None:
    plane = random_plane(0, 7, 5)
    assert psnr(plane, plane + error) == pytest.approx(20 * math.log10(255 / error))


def test_psnr_of_one_wrong_pixel() -> None:
    a, b = np.zeros((4, 5)), np.zeros((4, 5))
    b[2, 3] = 255
    assert psnr(a, b) == pytest.approx(10 * math.log10(20))


def test_equal_planes_have_infinite_psnr() -> None:
    plane = random_plane(1, 3, 3)
    assert psnr(plane, plane.copy()) == math.inf


@given(seed=seeds, height=edges, width=edges)
def test_psnr_and_ssim_are_symmetric(seed: int, height: int, width: int) -> None:
    a, b = random_plane(seed, height, width), random_plane(seed + 1, height, width)
    assert psnr(a, b) == psnr(b, a)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)


@given(seed=seeds, gain=st.floats(1.01, 20))
def test_psnr_falls_as_noise_grows(seed: int, gain: float) -> None:
    plane = random_plane(seed, 12, 13)
    noise = np.random.default_rng(seed + 1).normal(0, 2, plane.shape)
    quiet, loud = psnr(plane, plane + noise), psnr(plane, plane + gain * noise)
    assert quiet - loud == pytest.approx(20 * math.log10(gain), abs=1e-6)


@given(seed=seeds, height=st.integers(11, 18), width=st.integers(11, 18), mix=st.floats(0, 1))
def test_ssim_is_that_of_the_definition(seed: int, height: int, width: int, mix: float) -> None:
    a = random_plane(seed, height, width)
    b = mix * a + (1 - mix) * random_plane(seed + 1, height, width)
    assert ssim(a, b) == pytest.approx(ssim_by_definition(a, b), abs=1e-9)


@given(seed=seeds, height=edges, width=edges)
def test_ssim_of_a_plane_with_itself_is_one(seed: int, height: int, width: int) -> None:
    plane = random_plane(seed, height, width)
    assert ssim(plane, plane) == pytest.approx(1.0, abs=1e-12)


def test_ssim_falls_as_noise_grows() -> None:
    plane = random_plane(3, 40, 40)
    noise = np.random.default_rng(4).normal(0, 5, plane.shape)
    values = [ssim(plane, plane + gain * noise) for gain in (0, 1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.9


@given(border=st.integers(0, 4), height=st.integers(9, 14), width=st.integers(9, 14))
def test_cut_border(border: int, height: int, width: int) -> None:
    plane = np.arange(float(height * width)).reshape(height, width)
    cut = cut_border(plane, border)
    assert cut.shape == (height - 2 * border, width - 2 * border)
    assert cut[0, 0] == plane[border, border]
    assert cut[-1, -1] == plane[height - 1 - border, width - 1 - border]


def test_planes_that_numpy_would_broadcast_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"one size.*\(12, 12\).*\(12, 1\)"):
        psnr(np.zeros((12, 12)), np.zeros((12, 1)))
    with pytest.raises(DatasetError, match="one size"):
        ssim(np.zeros((12, 12)), np.zeros((1, 12)))


def test_planes_that_are_too_small_are_refused() -> None:
    with pytest.raises(DatasetError, match="at least 1×1"):
        psnr(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(DatasetError, match="at least 11×11"):
        ssim(np.zeros((11, 10)), np.zeros((11, 10)))
    assert ssim(np.zeros((11, 11)), np.zeros((11, 11))) == 1.0
