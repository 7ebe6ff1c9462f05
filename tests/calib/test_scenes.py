"""Videos: where scenes begin, and which frames stand for them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.calib.scenes import LAST_FRAME, choose_frames, find_scenes, read_frames, spread
from srdeploy.errors import MediaError

scenes = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(
    lambda lengths: [range(sum(lengths[:i]), sum(lengths[: i + 1])) for i in range(len(lengths))]
)


def write(path: Path, frames) -> Path:
    with av.open(str(path), "w") as container:
        stream = None
        for pixels in frames:
            if stream is None:
                size = {"width": pixels.shape[1], "height": pixels.shape[0]}
                stream = container.add_stream("ffv1", 25, pix_fmt="bgr0", **size)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def panning(picture, length: int):
    """A camera that moves over a picture: every frame differs a little from the last."""
    return [np.ascontiguousarray(picture[:32, i : i + 48]) for i in range(length)]


@given(scenes, st.integers(1, 20))
def test_every_scene_gets_one_before_any_gets_two(found, most) -> None:
    numbers = spread(found, most)
    assert numbers == tuple(sorted(set(numbers)))
    assert len(numbers) == min(most, sum(map(len, found)))
    counts = [sum(n in scene for n in numbers) for scene in found]
    if len(found) <= most:
        assert min(counts) >= 1
        short = [c for c, scene in zip(counts, found, strict=True) if c < len(scene)]
        assert not short or max(counts) - min(short) <= 1
    else:
        assert max(counts) == 1


@given(st.lists(st.floats(0, 255), max_size=60))
def test_scenes_cover_the_clip(changes) -> None:
    found = find_scenes(changes)
    assert [n for scene in found for n in scene] == list(range(len(changes) + 1))
    assert all(len(scene) for scene in found)


def test_motion_and_fades_are_no_cuts() -> None:
    still, fast = [0.5] * 20, [12.0, 14.0, 11.0, 13.0] * 6
    fade = [0.5] * 8 + [9.0, 10.0, 12.0, 10.0, 9.0] + [0.5] * 8
    assert len(find_scenes(still)) == len(find_scenes(fast)) == 1
    assert len(find_scenes(fade)) <= 2
    assert find_scenes([*still, 30.0, *still]) == (range(21), range(21, 42))
    assert len(find_scenes([*fast, 90.0, *fast])) == 2


def test_three_scenes_of_uneven_length(scenery, tmp_path) -> None:
    lengths = (150, 9, 31)
    frames = [f for i, n in enumerate(lengths) for f in panning(scenery(i, 96, 900), n)]
    chosen = choose_frames(write(tmp_path / "clip.mkv", frames))
    assert np.histogram(chosen, [0, 150, 159, 190])[0].tolist() == [6, 5, 5]
    read = dict(read_frames(tmp_path / "clip.mkv", chosen))
    assert tuple(read) == chosen
    assert all(np.array_equal(pixels, frames[number]) for number, pixels in read.items())
    assert choose_frames(tmp_path / "clip.mkv", 3) == (75, 154, 174)


@pytest.mark.parametrize("length", [1, 2, 16, 40])
def test_short_clips(length, scenery, tmp_path) -> None:
    path = write(tmp_path / "clip.mkv", panning(scenery(0), length))
    assert len(choose_frames(path)) == min(length, 16)


def test_a_film_is_not_read_to_its_end(tmp_path) -> None:
    frames = (np.full((8, 8, 3), 255 * (i > LAST_FRAME + 20), np.uint8) for i in range(2050))
    chosen = choose_frames(write(tmp_path / "film.mkv", frames))
    assert max(chosen) < LAST_FRAME


def test_a_damaged_video_is_refused(tmp_path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"nothing of use")
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        choose_frames(tmp_path / "clip.mp4")


@pytest.mark.shared
@pytest.mark.slow
def test_one_film_in_two_files(shared) -> None:
    """854×480 H.264, and 1280×720 VP8 without two frames of the first scene."""
    first, second = (
        choose_frames(shared / "data/video" / name, 6)
        for name in ("bbb_480p_30s.mp4", "bbb_moviepy_0_30.webm")
    )
    assert np.abs(np.array(first) - second).max() <= 3
