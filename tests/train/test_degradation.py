"""LR as the world makes it: of the right size, in its place, and the same every time."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from srdeploy.commands.training_data import degrade
from srdeploy.runtime.video.round_trip import through_h264
from srdeploy.train import degradation
from srdeploy.train.degradation import MARGIN, Degradation, RealWorld, window
from srdeploy.validate.resize import shrink

CLEAN = Degradation(blur=0, gaussian=0, poisson=0, h264=0, jpeg=0)
RESIZERS = Degradation().resizers
scales = st.sampled_from([2, 3, 4])


def world(**changes) -> RealWorld:
    """One that does only what is named."""
    return RealWorld(through_h264, replace(CLEAN, **changes))


def scenery(height: int, width: int) -> np.ndarray:
    """Smooth and of all directions: parts of a pixel show, and codecs spoil little."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9) + np.cos(y / 11), np.sin((x + y) / 13), np.cos((x - 2 * y) / 17)]
    return np.stack([128 + 50 * wave for wave in waves], axis=2).astype(np.uint8)


def around(scale: int, height: int, width: int) -> np.ndarray:
    return scenery(scale * (height + 2 * MARGIN), scale * (width + 2 * MARGIN))


def middle(high: np.ndarray, scale: int) -> np.ndarray:
    """LR of the patch alone, as the literature has it, made with what surrounds it."""
    return shrink(high, scale)[MARGIN:-MARGIN, MARGIN:-MARGIN]


def displacement(moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """How far a picture lies beside another one, (y, x) in pixels, by least squares.

    Lucas and Kanade, IJCAI 1981: to first order the difference is the slope times the way.
    """
    before = still.astype(float)
    slopes = np.stack([np.gradient(before, axis=axis)[2:-2, 2:-2].ravel() for axis in (0, 1)], 1)
    change = (moved - before)[2:-2, 2:-2]
    change -= change.mean(axis=(0, 1))
    found, *_ = np.linalg.lstsq(slopes, -change.ravel(), rcond=None)
    return found


@settings(max_examples=60)
@given(scale=scales, height=st.integers(8, 33), width=st.integers(8, 33), seed=st.integers(0, 999))
def test_lr_has_the_size_of_the_patch_and_is_a_function_of_the_seed(
    scale: int, height: int, width: int, seed: int
) -> None:
    high = around(scale, height, width)
    before = high.copy()
    made = [RealWorld(through_h264).shrink(high, scale, np.random.default_rng(seed)) for _ in "ab"]
    assert made[0].shape == (height, width, 3)
    assert made[0].dtype == np.uint8
    assert np.array_equal(*made)
    assert np.array_equal(high, before)
    off = np.abs(made[0].astype(float) - middle(high, scale))
    assert off.mean() < 35  # noise of 25, and colours that 4:2:0 and a high crf take away


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    "changes",
    [
        *({"resizers": (name,)} for name in RESIZERS),
        {"blur": 1, "sigma": (0.75, 0.75), "anisotropic": 0},
        {"blur": 1, "anisotropic": 1},
        {"gaussian": 1, "noise": (2, 2)},
        {"poisson": 1, "noise": (2, 2)},
        {"jpeg": 1, "quality": (80, 95)},
        {"h264": 1, "crf": (10, 10)},
        {"blur": 1, "h264": 1, "crf": (10, 10)},
    ],
    ids=lambda changes: "-".join(map(str, changes)) + str(changes.get("resizers", "")),
)
def test_lr_stays_on_the_grid_of_hr(scale: int, changes: dict) -> None:
    """A shift by half an HR pixel would be 0.125 to 0.25 of these pixels.

    A codec that predicts moves parts of a patch a little, one way or the other.
    """
    high = around(scale, 48, 40)
    moved = [
        displacement(
            world(**changes).shrink(high, scale, np.random.default_rng(seed)), middle(high, scale)
        )
        for seed in range(6)
    ]
    assert np.abs(moved).max() < (0.11 if "h264" in changes else 0.06)
    assert np.abs(np.mean(moved, axis=0)).max() < 0.05


def test_the_displacement_of_that_test_sees_half_an_hr_pixel() -> None:
    high = around(4, 48, 40)
    moved = shrink(np.roll(high, (2, -1), (0, 1)), 4)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert displacement(moved, middle(high, 4)) == pytest.approx([0.5, -0.25], abs=0.06)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_what_lies_beyond_the_margin_does_not_matter(scale: int) -> None:
    """White around the margin's outermost pixels: blur, resizers and motion do not reach it."""
    high = around(scale, 24, 24)
    framed = high.copy()
    framed[:scale], framed[-scale:], framed[:, :scale], framed[:, -scale:] = (255,) * 4
    widest = {"blur": 1, "sigma": (0.75, 0.75), "resizers": ("lanczos",)}
    moving = RealWorld(lambda frames, _: frames, replace(CLEAN, h264=1, **widest))
    for made in (world(**widest), moving):
        for seed in range(6):
            one, other = (
                made.shrink(h, scale, np.random.default_rng(seed)).astype(int)
                for h in (high, framed)
            )
            assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_without_anything_it_is_the_resizer(scale: int) -> None:
    high = around(scale, 20, 27)
    low = world(resizers=("bicubic",)).shrink(high, scale, np.random.default_rng(0))
    assert np.abs(low.astype(int) - middle(high, scale)).max() <= 1
    means = high.reshape(high.shape[0] // scale, scale, high.shape[1] // scale, scale, 3)
    boxes = means.mean(axis=(1, 3))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    low = world(resizers=("area",)).shrink(high, scale, np.random.default_rng(0))
    assert np.abs(low - boxes).max() <= 1


def test_blur_is_the_gaussian_of_its_width() -> None:
    """A line of white is spread as the Gaussian says, in any direction if it is round."""
    scale, sigma = 4, 2.0
    has = replace(CLEAN, blur=1, anisotropic=0, sigma=(sigma / scale, sigma / scale))
    for turned in (False, True):
        line = np.zeros((64, 65, 3), np.uint8)
        line[:, 32] = 250
        line = line.swapaxes(0, 1) if turned else line
        smooth = degradation._blur(line, scale, has, np.random.default_rng(3))
        smooth = smooth.swapaxes(0, 1) if turned else smooth
        expected = 250 * np.exp(-(np.arange(-32, 33) ** 2) / 2 / sigma**2)
        expected /= sigma * np.sqrt(2 * np.pi)
        assert np.abs(smooth[30, :, 0] - expected).max() <= 0.6


def test_an_ellipse_blurs_more_along_one_axis() -> None:
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    has = replace(CLEAN, blur=1, anisotropic=1, sigma=(0.2, 0.75))
    y, x = np.mgrid[-32:33, -32:33]
    for seed in range(5):
        spread = degradation._blur(point, 4, has, np.random.default_rng(seed))[:, :, 0].astype(
            float
        )
        spread[spread < 2] = 0
        assert abs((spread * x).sum()) < 0.05 * spread.sum()  # nothing moves
        assert abs((spread * y).sum()) < 0.05 * spread.sum()
        moments = np.cov(np.stack([y.ravel(), x.ravel()]), aweights=spread.ravel())
        axes = np.sqrt(np.linalg.eigvalsh(moments))
        assert 0.5 < axes[0] <= axes[1] < 3.2


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
@pytest.mark.parametrize("grey", [0, 1])
def test_noise_is_as_strong_as_it_says(kind: str, grey: int) -> None:
    has = replace(CLEAN, **{kind: 1}, noise=(8, 8), grey=grey)
    for level in (64, 128):
        flat = np.full((1, 128, 128, 3), level, np.uint8)
        noise = degradation._noise(flat, has, np.random.default_rng(0)).astype(float) - level
        expected = 8 if kind == "gaussian" else 8 * np.sqrt(level / 255)
        assert noise.std() == pytest.approx(expected, rel=0.05)
        assert abs(noise.mean()) < 0.2
        assert np.array_equal(noise[..., 0], noise[..., 1]) == bool(grey)


def test_each_frame_has_noise_of_its_own() -> None:
    has = replace(CLEAN, gaussian=1, noise=(8, 8))
    noisy = degradation._noise(np.full((4, 16, 16, 3), 99, np.uint8), has, np.random.default_rng(0))
    assert not np.array_equal(noisy[0], noisy[1])


def test_jpeg_is_that_of_its_quality() -> None:
    rough = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = {}
    for quality in (30, 95):
        has = replace(CLEAN, quality=(quality, quality))
        made[quality] = degradation._jpeg(rough, has, np.random.default_rng(0)).astype(int) - rough
        saved = []
        for subsampling in ("4:2:0", "4:4:4"):
            buffer = io.BytesIO()
            Image.fromarray(rough).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
            saved.append(np.asarray(Image.open(buffer)).astype(int) - rough)
        assert any(np.array_equal(made[quality], one) for one in saved)
    assert np.abs(made[30]).mean() > np.abs(made[95]).mean()


def test_the_blocks_lie_anywhere() -> None:
    """Over many patches no row of them is at a block's edge more often than another."""
    high = around(2, 16, 16)
    seen = set()

    def codec(frames: np.ndarray, _: int) -> np.ndarray:
        seen.add(frames.shape[1:3])
        return frames

    for seed in range(60):
        RealWorld(codec, replace(CLEAN, h264=1)).shrink(high, 2, np.random.default_rng(seed))
    assert seen == {(32 - y, 32 - x) for y in range(0, 8, 2) for x in range(0, 8, 2)}


def test_a_codec_sees_a_moving_picture() -> None:
    """Frames differ by motion, of parts of a pixel too; the kept one lies where HR does."""
    high = around(4, 24, 24)
    clips = []

    def codec(frames: np.ndarray, crf: int) -> np.ndarray:
        clips.append((frames, crf))
        return frames

    for seed in range(12):
        RealWorld(codec, replace(CLEAN, h264=1)).shrink(high, 4, np.random.default_rng(seed))
    assert {len(frames) for frames, _ in clips} == {4}
    assert all(18 <= crf <= 34 for _, crf in clips)
    moved = [displacement(frames[1], frames[0]) for frames, _ in clips]
    assert np.max(np.abs(moved)) > 0.5
    assert all(not np.array_equal(frames[0], frames[3]) for frames, _ in clips)


def test_every_step_is_taken_as_often_as_it_says() -> None:
    high, calls = around(2, 8, 8), []

    def codec(frames: np.ndarray, _: int) -> np.ndarray:
        calls.append(1)
        return frames

    for seed in range(300):
        RealWorld(codec, replace(CLEAN, h264=0.3)).shrink(high, 2, np.random.default_rng(seed))
    assert 65 < len(calls) < 115


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    margin=st.integers(0, 20),
    data=st.data(),
)
def test_a_window_is_the_mirrored_picture(size, margin: int, data: st.DataObject) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    corner = tuple(data.draw(st.integers(0, edge - 1)) for edge in size)
    length = tuple(data.draw(st.integers(1, e - c)) for e, c in zip(size, corner, strict=True))
    made = window(picture, corner, length, margin)
    assert made.shape == (length[0] + 2 * margin, length[1] + 2 * margin, 3)
    inner = made[margin : margin + length[0], margin : margin + length[1]]
    assert np.array_equal(inner, picture[corner[0] :, corner[1] :][: length[0], : length[1]])
    if min(size) > margin:
        padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "symmetric")
        rows = slice(corner[0], corner[0] + length[0] + 2 * margin)
        assert np.array_equal(made, padded[rows, corner[1] : corner[1] + made.shape[1]])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_validation_pictures_are_degraded_the_same_in_every_run(scale: int) -> None:
    pictures = [("a", None, scenery(61, 50)), ("b", None, scenery(40, 64))]
    first, again = (degrade(pictures, scale, RealWorld(through_h264)) for _ in "ab")
    for (name, low, high), (_, same, _), (wanted, _, whole) in zip(
        first, again, pictures, strict=True
    ):
        assert name == wanted
        assert np.array_equal(low, same)
        assert high.shape[:2] == (low.shape[0] * scale, low.shape[1] * scale)
        assert np.array_equal(high, whole[: high.shape[0], : high.shape[1]])
