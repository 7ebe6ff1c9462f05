"""Frames through H.264 and back."""

from __future__ import annotations

import av
import numpy as np
import pytest
from srdeploy.errors import MediaError
from srdeploy.runtime.video import round_trip
from srdeploy.runtime.video.round_trip import through_h264


def panning(height: int, width: int, count: int = 4) -> np.ndarray:
    y, x = np.mgrid[: height + count, : width + count]
    wide = np.stack([(3 * x + y) % 256, (x * y) // 8 % 256, 255 - (x + 2 * y) % 256], 2)
    return np.stack([wide[i : i + height, i : i + width] for i in range(count)]).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 48), (31, 47), (8, 8), (1, 1)])
def test_frames_come_back_in_their_order_and_size(size: tuple[int, int]) -> None:
    smooth = np.stack([np.full((*size, 3), value, np.uint8) for value in (20, 90, 160, 230)])
    made = through_h264(smooth, 10)
    assert made.shape == smooth.shape
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - smooth).max() <= 4


def test_colours_stay() -> None:
    colours = np.zeros((1, 32, 32, 3), np.uint8)
    colours[0, :, :16], colours[0, :, 16:] = (200, 40, 30), (20, 60, 220)
    made = through_h264(colours, 10)[0].astype(int)
    assert np.abs(made[:, 4:12] - colours[0, :, 4:12]).max() <= 4
    assert np.abs(made[:, 20:28] - colours[0, :, 20:28]).max() <= 4


def test_colours_stay_in_their_place() -> None:
    """Chroma that is read elsewhere than it was written would be off by half a pixel."""
    x = np.arange(96)
    red = 40 * np.sin(x / 7)
    waves = np.stack([128 + 1.402 * red, 128 - 0.714 * red, np.full(96, 128)], 1)
    frame = np.broadcast_to(waves, (96, 96, 3)).round().astype(np.uint8)
    for pixels, axis in ((frame, 1), (frame.swapaxes(0, 1), 0)):
        change = through_h264(np.ascontiguousarray(pixels)[None], 5)[0].astype(float) - pixels
        slope = np.gradient(pixels.astype(float), axis=axis)[8:-8, 8:-8, 0].ravel()
        moved = -(slope @ change[8:-8, 8:-8, 0].ravel()) / (slope @ slope)
        assert abs(moved) < 0.1


def test_a_higher_crf_spoils_more_and_the_same_is_the_same() -> None:
    frames = panning(64, 64)
    errors = [np.abs(through_h264(frames, crf).astype(int) - frames).mean() for crf in (5, 20, 35)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2
    assert np.array_equal(through_h264(frames, 28), through_h264(frames, 28))


def test_frames_are_predicted_from_one_another() -> None:
    """Of a clip that pans, the later frames cost a part of the first."""
    packets = round_trip._encode(panning(64, 64), {"crf": "23", "preset": "veryfast"})
    assert [p.is_keyframe for p in packets].count(True) == 1
    alone = sum(
        p.size
        for frame in panning(64, 64)
        for p in round_trip._encode(frame[None], {"crf": "23", "preset": "veryfast"})
    )
    assert sum(p.size for p in packets) < alone / 2


def test_without_x264(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.CodecContext, "create", missing, raising=False)
    with pytest.raises(MediaError, match=r"cannot be passed through H\.264") as caught:
        through_h264(panning(16, 16), 20)
    assert "doctor" in caught.value.hint
