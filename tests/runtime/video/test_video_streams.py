"""What surrounds the pictures: further streams, metadata, rotation, shape of pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from srdeploy.errors import MediaError
from srdeploy.runtime.video import VideoOptions, upscale_video

FAST = VideoOptions(preset="ultrafast")
SUBTITLES = """1
00:00:00,000 --> 00:00:00,200
Good evening.

2
00:00:00,250 --> 00:00:00,400
And good night.
"""


def rotation(path: Path) -> int:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).rotation


def remux(
    source: Path, output: Path, *extra: Path, change: Callable[..., None] | None = None
) -> Path:
    """All streams of some files in one, unchanged."""
    inputs = [av.open(str(p)) for p in (source, *extra)]
    with av.open(str(output), "w") as container:
        copies = {
            (i, s.index): container.add_stream_from_template(s, opaque=True)
            for i, c in enumerate(inputs)
            for s in c.streams
        }
        if change is not None:
            change(container, *copies.values())
        for i, c in enumerate(inputs):
            for packet in c.demux():
                if packet.size:
                    packet.stream = copies[i, packet.stream.index]
                    container.mux(packet)
    for c in inputs:
        c.close()
    return output


@pytest.fixture
def subtitles(tmp_path: Path) -> Path:
    path = tmp_path / "text.srt"
    path.write_text(SUBTITLES)
    return path


def test_metadata_languages_and_chapters_are_kept(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", audio="aac", count=25)

    def change(container: Any, video: Any, sound: Any) -> None:
        container.metadata.update(title="Rain", artist="Nobody", encoder="old")
        video.metadata["language"], sound.metadata["language"] = "nld", "fra"
        half = {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000)}
        container.set_chapters(
            [
                {**half, "metadata": {"title": "One"}},
                {**half, "id": 2, "start": 500, "end": 1000, "metadata": {"title": "Two"}},
            ]
        )

    source = remux(clip, tmp_path / "a.mkv", change=change)
    upscale_video(source, tmp_path / "b.mkv", Repeat(), FAST)
    with av.open(str(tmp_path / "b.mkv")) as made:
        tags = {key.lower(): value for key, value in made.metadata.items()}
        assert (tags["title"], tags["artist"]) == ("Rain", "Nobody")
        assert tags["encoder"] != "old"
        assert [s.metadata["language"] for s in made.streams] == ["nld", "fra"]
        assert [c["metadata"]["title"] for c in made.chapters()] == ["One", "Two"]


def test_subtitles_and_second_audio_are_copied(
    tmp_path: Path, Repeat: Any, write_clip: Any, subtitles: Path, packets: Any
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", audio="aac", count=25)
    other = write_clip(tmp_path / "other.mkv", audio="libopus", count=5)
    with av.open(str(other)) as container:
        assert len(container.streams) == 2
    source = remux(clip, tmp_path / "a.mkv", subtitles, other)
    result = upscale_video(source, tmp_path / "b.mkv", Repeat(), FAST)
    assert packets(tmp_path / "b.mkv", "subtitle") == packets(source, "subtitle")
    assert len(packets(source, "subtitle")) == 2
    with av.open(str(tmp_path / "b.mkv")) as made:
        assert [s.type for s in made.streams] == ["video", "audio", "subtitle", "audio"]
        assert [s.name for s in made.streams.audio] == ["aac", "opus"]
    assert result.notes == ("1 further video stream(s) were left out",)


def test_subtitles_that_the_container_refuses_are_dropped_and_named(
    tmp_path: Path, Repeat: Any, write_clip: Any, subtitles: Path, packets: Any
) -> None:
    clip = write_clip(tmp_path / "clip.mkv", audio="aac", time_base=Fraction(1, 1000))
    source = remux(clip, tmp_path / "a.mkv", subtitles)
    result = upscale_video(source, tmp_path / "b.mp4", Repeat(), FAST)
    assert any("subtitle, s" in n and "left out" in n for n in result.notes), result.notes
    assert len(packets(tmp_path / "b.mp4", "audio")) == len(packets(source, "audio"))


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_rotation_is_kept(
    tmp_path: Path, Repeat: Any, write_clip: Any, degrees: int, ending: str
) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees)

    source = write_clip(tmp_path / "a.mp4", count=3, prepare=prepare)
    output = tmp_path / f"b{ending}"
    result = upscale_video(source, output, Repeat(), FAST)
    assert abs(rotation(output)) == abs(rotation(source)) == abs(degrees)
    assert rotation(output) == rotation(source) or abs(degrees) == 180
    assert (result.width, result.height) == (128, 96)


def test_rotation_that_the_container_cannot_hold_is_an_error(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.set_display_rotation(90)

    source = write_clip(tmp_path / "a.mp4", count=3, prepare=prepare)
    with pytest.raises(MediaError, match="stored rotated"):
        upscale_video(source, tmp_path / "b.avi", Repeat(), FAST)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_the_shape_of_pixels_is_kept(
    tmp_path: Path, Repeat: Any, write_clip: Any, ending: str
) -> None:
    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    source = write_clip(tmp_path / "a.mp4", count=3, prepare=prepare)
    output = tmp_path / f"b{ending}"
    upscale_video(source, output, Repeat(3), FAST)
    with av.open(str(output)) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_a_cover_is_not_taken_for_the_video(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    cover = tmp_path / "cover.mov"
    picture = av.VideoFrame.from_ndarray(np.full((30, 20, 3), 99, np.uint8), format="rgb24")
    write_clip(
        cover, size=(20, 30), codec="png", pixel_format="rgb24", frames=[picture], options={}
    )
    clip = write_clip(tmp_path / "clip.mp4", count=5)

    def change(_: Any, picture: Any, __: Any) -> None:
        picture.disposition = Disposition.attached_pic

    source = remux(cover, tmp_path / "a.mp4", clip, change=change)
    with av.open(str(source)) as container:
        covers = [bool(s.disposition & Disposition.attached_pic) for s in container.streams]
        assert sorted(covers) == [False, True]
    result = upscale_video(source, tmp_path / "b.mp4", Repeat(), FAST)
    assert (result.frames, result.width, result.height) == (5, 128, 96)
    with av.open(str(tmp_path / "b.mp4")) as made:
        kept = [s for s in made.streams.video if s.disposition & Disposition.attached_pic]
        assert [(s.width, s.height) for s in kept] == [(20, 30)]


def test_an_interlaced_source_is_noted(tmp_path: Path, Repeat: Any, write_clip: Any) -> None:
    source = write_clip(tmp_path / "a.mp4", count=4, options={"x264-params": "interlaced=1:tff=1"})
    result = upscale_video(source, tmp_path / "b.mp4", Repeat(), FAST)
    assert any("interlaced" in note for note in result.notes)


THREADS = Path("/proc/self/task")


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1"])
def test_every_encoder_writes_matroska_without_a_word(
    tmp_path: Path, Repeat: Any, write_clip: Any, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_clip(tmp_path / "a.mkv", count=8, size=(96, 96))
    capfd.readouterr()
    options = VideoOptions(codec=codec, preset="veryfast")
    result = upscale_video(source, tmp_path / "b.mkv", Repeat(), options)
    assert result.codec == codec
    assert result.frames == 8
    with av.open(str(tmp_path / "b.mkv")) as made:
        assert len(list(made.decode(video=0))) == 8
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such policies here")
def test_no_encoder_takes_the_machine_for_itself(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    """SVT-AV1 as root asks for real-time threads, the calling one included."""
    found: set[int] = set()

    class Watching(Repeat):  # type: ignore[misc,valid-type]
        def _upscale(self, frames: Any) -> Any:
            found.update(os.sched_getscheduler(int(t.name)) for t in THREADS.iterdir())
            return super()._upscale(frames)

    source = write_clip(tmp_path / "a.mkv", count=8, size=(96, 96))
    upscale_video(source, tmp_path / "b.mkv", Watching(), VideoOptions(codec="libsvtav1"))
    assert found == {os.SCHED_OTHER}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
