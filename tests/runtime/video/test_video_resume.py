"""Runs that were cut short and go on: the same video, and only the missing frames computed."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from srdeploy.errors import DeviceLost, Interrupted, MediaError
from srdeploy.runtime.video import VideoOptions, parts, upscale_video
from srdeploy.runtime.video.parts import parts_folder

COUNT, PART = 23, 5
RESUME = VideoOptions(resume="engine a")


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_FRAMES", PART)


@pytest.fixture
def clip(write_clip, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write_clip(tmp_path / "in" / "clip.mp4", COUNT, audio="aac")


def lost_at(count: int) -> Callable[[int], None]:
    def fail(call: int) -> None:
        if call > count:
            raise DeviceLost("the GPU is gone")

    return fail


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.mark.parametrize("failures", [(0,), (3,), (17,), (12, 8), (COUNT,)])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_it_goes_on(
    clip: Path, tmp_path: Path, Repeat, packets, shown, ending: str, failures: tuple[int, ...]
) -> None:
    if ending == "avi" and failures != (17,):
        return
    output, whole, plain = (tmp_path / f"{n}.{ending}" for n in ("out", "whole", "plain"))
    done = 0
    for count in failures:
        if count == COUNT:
            continue
        with pytest.raises(DeviceLost):
            upscale_video(clip, output, Repeat(at_call=lost_at(count)), RESUME)
        assert not output.exists()
        kept = len(list(parts_folder(output).glob("*.part"))) * PART
        # what was upscaled may not have been encoded yet
        assert done <= kept <= done + count
        done = kept
        left = {"in", parts_folder(output).name} if kept else {"in"}
        assert {p.name for p in tmp_path.iterdir()} == left
    session = Repeat()
    result = upscale_video(clip, output, session, RESUME)
    assert session.calls == COUNT - done, "nothing twice"
    assert result.frames == COUNT
    assert any("earlier run" in note for note in result.notes) == bool(done)
    assert not parts_folder(output).exists()
    # the same as in one go, and as a plain run but for where keyframes are
    upscale_video(clip, whole, Repeat(), RESUME)
    assert packets(output, "video") == packets(whole, "video")
    upscale_video(clip, plain, Repeat())
    assert shown(output) == shown(plain)
    assert packets(output, "audio") == packets(plain, "audio")
    apart = [
        np.abs(a.astype(int) - b).mean()
        for a, b in zip(decoded(output), decoded(plain), strict=True)
    ]
    assert max(apart) < 1.5, "every frame is at its place"


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1"])
def test_codecs(clip: Path, tmp_path: Path, Repeat, shown, codec: str) -> None:
    output = tmp_path / "out.mkv"
    options = VideoOptions(resume="e", codec=codec)
    with pytest.raises(DeviceLost):
        upscale_video(clip, output, Repeat(at_call=lost_at(16)), options)
    upscale_video(clip, output, Repeat(), options)
    assert len(decoded(output)) == COUNT
    plain = tmp_path / "plain.mkv"
    upscale_video(clip, plain, Repeat(), VideoOptions(codec=codec))
    assert shown(output) == shown(plain)


def test_uneven_times(write_clip, tmp_path: Path, Repeat, shown) -> None:
    """Where encoders reorder frames and gaps vary, times of decoding still grow."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([1, 1, 2, 40], COUNT)).tolist()
    clip = write_clip(tmp_path / "vfr.mp4", COUNT, time_base=Fraction(1, 100), times=times)
    output, plain = tmp_path / "out.mp4", tmp_path / "plain.mp4"
    slow = VideoOptions(preset="slow", resume="e")
    upscale_video(clip, output, Repeat(), slow)
    upscale_video(clip, plain, Repeat(), VideoOptions(preset="slow"))
    assert shown(output) == shown(plain)
    with av.open(str(output)) as container:
        found = [(p.dts, p.pts) for p in container.demux(video=0) if p.size]
    assert all(a[0] < b[0] for a, b in pairwise(found))
    assert all(dts <= pts for dts, pts in found)


@pytest.mark.parametrize(
    "other", [VideoOptions(resume="engine b"), VideoOptions(resume="engine a", crf=30)]
)
def test_parts_of_another_run_are_not_used(clip: Path, tmp_path: Path, Repeat, other) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(DeviceLost):
        upscale_video(clip, output, Repeat(at_call=lost_at(15)), RESUME)
    session = Repeat()
    result = upscale_video(clip, output, session, other)
    assert session.calls == COUNT
    assert any("were removed" in note for note in result.notes)


def test_a_damaged_part(clip: Path, tmp_path: Path, Repeat) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(DeviceLost):
        upscale_video(clip, output, Repeat(at_call=lost_at(15)), RESUME)
    part = min(parts_folder(output).glob("*.part"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(MediaError, match="is damaged: its length is wrong") as caught:
        upscale_video(clip, output, Repeat(), RESUME)
    assert "remove the folder" in caught.value.hint
    assert not output.exists()
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_an_interruption_keeps_parts(clip: Path, tmp_path: Path, Repeat) -> None:
    output = tmp_path / "out.mp4"

    def interrupt(progress) -> None:
        if progress.done > PART:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        upscale_video(clip, output, Repeat(jitter=0.03), RESUME, interrupt)
    kept = len(list(parts_folder(output).glob("*.part"))) * PART
    assert kept >= PART
    assert f"interrupted; the first {kept} frames are kept" in caught.value.message
    assert str(parts_folder(output)) in caught.value.message
    assert caught.value.hint == f"the same command goes on from frame {kept + 1}"
    session = Repeat()
    upscale_video(clip, output, session, RESUME)
    assert session.calls == COUNT - kept


def test_an_interruption_before_the_first_part_keeps_none(
    clip: Path, tmp_path: Path, Repeat
) -> None:
    output = tmp_path / "out.mp4"

    def interrupt(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=f"before the first {PART} frames") as caught:
        upscale_video(clip, output, Repeat(jitter=0.5), RESUME, interrupt)
    assert caught.value.hint == "the same command begins again"
    assert not parts_folder(output).exists()


def test_a_stream_cannot_be_resumed(clip: Path, Repeat) -> None:
    with pytest.raises(MediaError, match="cannot be resumed"):
        upscale_video(clip, io.BytesIO(), Repeat(), RESUME)
