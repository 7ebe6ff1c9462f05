from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from srdeploy.data import demo_clip
from srdeploy.data.demo_clip import make_demo_clip
from srdeploy.errors import DatasetError, MediaError

SMALL = {"width": 96, "height": 64, "frames": 9, "rate": 12}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "video.mp4"
    make_demo_clip(path)
    return path


@pytest.fixture(scope="module")
def decoded(clip: Path) -> list[np.ndarray]:
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)


def test_it_is_an_mp4_with_tagged_h264_and_stereo_aac(clip: Path) -> None:
    with av.open(str(clip)) as container:
        assert "mp4" in container.format.name
        (video,), (audio,) = container.streams.video, container.streams.audio
        context = video.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height, video.average_rate) == (320, 180, 24)
        tags = (context.color_primaries, context.color_trc, context.colorspace)
        assert (*tags, context.color_range) == (1, 1, 1, 1)
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == (
            "aac",
            48_000,
            "stereo",
        )


def test_every_frame_decodes_at_its_time(clip: Path) -> None:
    with av.open(str(clip)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 72
    assert {(frame.width, frame.height) for frame in frames} == {(320, 180)}
    times = [frame.pts * frame.time_base for frame in frames]
    assert times == [Fraction(index, 24) for index in range(72)]


@pytest.mark.parametrize(("frames", "rate"), [(72, 24), (1, 1), (7, 30), (10, 240)])
def test_the_sound_lasts_as_long_as_the_video(frames: int, rate: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_demo_clip(path, width=64, height=64, frames=frames, rate=rate)
    with av.open(str(path)) as container:
        durations = [s.duration * s.time_base for s in container.streams]
    assert durations[0] == Fraction(frames, rate)
    # The edit list of an mp4, which trims the sound, counts in milliseconds.
    assert abs(durations[1] - durations[0]) <= Fraction(1, 1000)
    # A decoder gives whole AAC frames of 1,024 samples.
    assert 0 <= _sound(path).shape[1] - round(48_000 * frames / rate) < 1024


def test_the_sound_is_a_quiet_chord(clip: Path) -> None:
    sound = _sound(clip)
    assert sound.shape[0] == 2
    assert 0.02 < np.sqrt(np.mean(sound**2)) < 0.2
    assert np.abs(sound).max() < 0.5
    middle = sound[0, 48_000:96_000] * np.hanning(48_000)
    spectrum = np.abs(np.fft.rfft(middle))  # bins of 1 Hz
    tones = [round(tone) for tone in demo_clip._CHORD]
    heard = sum((spectrum[tone - 3 : tone + 4] ** 2).sum() for tone in tones)
    assert heard > 0.98 * (spectrum**2).sum()


def test_the_colours_survive_the_tagged_matrix(decoded: list[np.ndarray]) -> None:
    wanted = list(demo_clip._pictures_over_time((320, 180), 72))
    errors = [np.abs(a.astype(float) - b).mean() for a, b in zip(decoded, wanted, strict=True)]
    assert max(errors) < 5
    means = [
        a.mean(axis=(0, 1)) - b.mean(axis=(0, 1)) for a, b in zip(decoded, wanted, strict=True)
    ]
    assert np.abs(means).max() < 2.5


def test_the_camera_never_stands_still_and_never_jumps(decoded: list[np.ndarray]) -> None:
    steps = [np.abs(a.astype(float) - b).mean() for a, b in pairwise(decoded)]
    assert min(steps) > 1
    assert max(steps) < 40


def test_dissolves_join_three_different_photographs() -> None:
    frames = [f.astype(float) for f in demo_clip._pictures_over_time((128, 72), 72)]
    scenes = [frames[12], frames[36], frames[60]]
    for i, first in enumerate(scenes):
        assert all(np.abs(first - other).mean() > 30 for other in scenes[i + 1 :])
    for cut, (before, after) in zip((24, 48), pairwise(scenes), strict=True):
        step = np.abs(frames[cut] - frames[cut - 1]).mean()
        assert step < 0.3 * np.abs(after - before).mean(), "a dissolve, not a cut"


def test_the_camera_moves_by_fractions_of_a_pixel() -> None:
    slow = [f.astype(float) for f in demo_clip._pictures_over_time((64, 64), 600)]
    steps = [np.abs(b - a).mean() for a, b in pairwise(slow[20:60])]
    assert min(steps) > 0
    assert max(steps) < 4 * min(steps), "a camera on whole pixels would stand, then jump"


def test_the_same_arguments_give_the_same_file(clip: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    make_demo_clip(again)
    assert again.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"width": 97}, {"height": 0}, {"width": 100_000}, {"frames": 0}, {"rate": 0}, {"rate": 1000}],
    ids=str,
)
def test_impossible_clips_are_refused(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        make_demo_clip(tmp_path / "clip.mp4", **{**SMALL, **change})
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_gives_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "missing" / "clip.mp4", tmp_path / "file" / "clip.mp4"):
        with pytest.raises(MediaError, match="cannot be written") as caught:
            make_demo_clip(path, **SMALL)
        assert caught.value.hint
        assert caught.value.__cause__ is not None
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.mkdir()
    with pytest.raises(MediaError, match="cannot be written"):
        make_demo_clip(target, **SMALL)
    assert list(tmp_path.iterdir()) == [target]
    assert not list(target.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, DatasetError("damaged")], ids=repr)
def test_nothing_half_written_stays(
    error: BaseException | type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"earlier clip")
    real = demo_clip._video_frame

    def interrupted(pixels: np.ndarray, index: int, rate: int) -> av.VideoFrame:
        if index == 5:
            raise error
        return real(pixels, index, rate)

    monkeypatch.setattr(demo_clip, "_video_frame", interrupted)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        make_demo_clip(target, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert target.read_bytes() == b"earlier clip"
    monkeypatch.undo()
    make_demo_clip(target, **SMALL)
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) == SMALL["frames"]
