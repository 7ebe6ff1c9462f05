"""Whatever goes wrong: one clear error, no hanging thread, nothing half-written."""

from __future__ import annotations

import _thread
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from srdeploy.errors import EngineError, MediaError
from srdeploy.interruption import interruptible
from srdeploy.runtime.video import VideoOptions, upscale_video
from srdeploy.runtime.video.partial import PartialFile
from srdeploy.runtime.video.reader import VideoReader
from srdeploy.runtime.video.writer import VideoWriter

FAST = VideoOptions(preset="ultrafast")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """After every test here: no thread of a run, and no partial file."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert [p.name for p in tmp_path.rglob("*") if "partial" in p.name] == []


@pytest.fixture
def clip(tmp_path: Path, write_clip: Any) -> Path:
    made: Path = write_clip(tmp_path / "clip.mp4", count=60, audio="aac", size=(96, 64))
    return made


def fails(source: Any, output: Any, session: Any, match: str, **options: Any) -> MediaError:
    before = output.read_bytes() if output.is_file() else None
    with pytest.raises(MediaError, match=match) as caught:
        upscale_video(source, output, session, VideoOptions(preset="ultrafast", **options))
    assert (output.read_bytes() if output.is_file() else None) == before
    return caught.value


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("call", [1, 7, 60])
def test_a_failing_engine_stops_the_run(
    tmp_path: Path, Repeat: Any, clip: Path, parallel: int, call: int
) -> None:
    def at_call(number: int) -> None:
        if number == call:
            raise EngineError("device lost")

    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")
    with pytest.raises(EngineError, match="device lost"):
        upscale_video(clip, output, Repeat(2, parallel, at_call=at_call), FAST)
    assert output.read_bytes() == b"before"


def test_a_failing_encoder_stops_the_run(
    tmp_path: Path, Repeat: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, counter = VideoWriter.write, itertools.count()

    def failing(self: VideoWriter, item: Any) -> None:
        if next(counter) == 20:
            raise av.error.ExternalError(1, "encoder died")
        write(self, item)

    monkeypatch.setattr(VideoWriter, "write", failing)
    with pytest.raises(av.error.ExternalError):
        upscale_video(clip, tmp_path / "out.mp4", Repeat(jitter=0.001), FAST)
    assert not (tmp_path / "out.mp4").exists()


def test_a_failing_decoder_stops_the_run(
    tmp_path: Path, Repeat: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, counter = VideoReader._stamp, itertools.count()

    def failing(self: VideoReader, frame: av.VideoFrame) -> int:
        if next(counter) == 30:
            raise MemoryError
        return stamp(self, frame)

    monkeypatch.setattr(VideoReader, "_stamp", failing)
    with pytest.raises(MemoryError):
        upscale_video(clip, tmp_path / "out.mp4", Repeat(2, 2), FAST)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("call", [1, 30])
def test_an_interrupt_stops_the_run_and_removes_its_file(
    tmp_path: Path, Repeat: Any, clip: Path, call: int
) -> None:
    def at_call(number: int) -> None:
        if number == call:
            _thread.interrupt_main()
        if number >= call:
            threading.Event().wait(0.02)

    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")
    session = Repeat(2, 2, at_call=at_call)
    with pytest.raises(KeyboardInterrupt):
        upscale_video(clip, output, session, FAST)
    assert session.calls < 60
    assert output.read_bytes() == b"before"
    assert session.concurrent == 0  # the engine may now be closed


def test_a_signal_while_the_file_is_made_leaves_none(
    tmp_path: Path, Repeat: Any, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = PartialFile.__init__

    def interrupted(self: PartialFile, output: Path) -> None:
        made(self, output)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PartialFile, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt), interruptible():
        upscale_video(clip, tmp_path / "out.mp4", Repeat(2, 2), FAST)
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


def test_an_error_in_the_progress_callback_stops_the_run(
    tmp_path: Path, Repeat: Any, clip: Path
) -> None:
    def progress(_: object) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        upscale_video(clip, tmp_path / "out.mp4", Repeat(jitter=0.02), FAST, progress)
    assert not (tmp_path / "out.mp4").exists()


def test_the_encoder_that_has_gone_wrong_is_named(tmp_path: Path, Repeat: Any, clip: Path) -> None:
    class Huge(Repeat):  # type: ignore[misc, valid-type]
        def upscale(self, frames: Any) -> Any:
            raise AssertionError("the size is refused before a frame is upscaled")

    error = fails(clip, tmp_path / "out.mp4", Huge(300), "libx264")
    assert "codec" in error.hint


def test_sources_that_are_no_video(tmp_path: Path, Repeat: Any) -> None:
    output = tmp_path / "out.mp4"
    text = tmp_path / "text.mp4"
    text.write_text("this is not a video, whatever its name says\n" * 50)
    fails(text, output, Repeat(), "cannot be read as a video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    fails(empty, output, Repeat(), "cannot be read as a video")
    fails(tmp_path / "missing.mp4", output, Repeat(), "does not exist")
    fails(tmp_path, output, Repeat(), "is not a file")


def test_a_file_without_video_and_one_with_no_frame(tmp_path: Path, Repeat: Any) -> None:
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        silence = np.zeros((2, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    fails(sound, tmp_path / "out.mp4", Repeat(), "no video stream")
    bare = tmp_path / "bare.mp4"
    with av.open(str(bare), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        container.start_encoding()
    fails(bare, tmp_path / "out.mp4", Repeat(), "no video|cannot be read")


def test_playlists_and_pictures_are_refused(tmp_path: Path, Repeat: Any, clip: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n")
    fails(playlist, tmp_path / "out.mp4", Repeat(), "cannot be read as a video|not a video")
    concat = tmp_path / "concat.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    fails(concat, tmp_path / "out.mp4", Repeat(), "cannot be read as a video|not a video")
    picture = tmp_path / "picture.png"
    frame = av.VideoFrame(16, 16, "rgb24")
    frame.save(str(picture))
    fails(picture, tmp_path / "out.mp4", Repeat(), "not a video")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".webm"])
def test_a_file_that_is_cut_is_refused_unless_that_is_allowed(
    tmp_path: Path, Repeat: Any, write_clip: Any, ending: str
) -> None:
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(ending, "libx264")

    def prepare(container: Any, _: Any) -> None:
        if ending == ".mp4":  # the index in front, so that the rest still decodes
            container.container_options["movflags"] = "faststart"

    whole = write_clip(tmp_path / f"whole{ending}", codec=codec, count=40, prepare=prepare)
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 17 // 20])
    output = tmp_path / f"out{ending}"
    fails(cut, output, Repeat(), "cut short: it has [0-9,]+ of the")
    options = VideoOptions(preset="ultrafast", allow_truncated=True)
    result = upscale_video(cut, output, Repeat(), options)
    assert 1 <= result.frames < 40
    assert any("cut short" in note for note in result.notes)


@pytest.mark.parametrize("repair", ["shorter box", "zeros"])
def test_an_index_that_promises_more_frames_than_come_is_found(
    tmp_path: Path, Repeat: Any, write_clip: Any, repair: str
) -> None:
    """Cut, then patched up: the sizes of the boxes are right, the frames are not there."""

    def prepare(container: Any, _: Any) -> None:
        container.container_options["movflags"] = "faststart"

    whole = write_clip(tmp_path / "whole.mp4", count=40, prepare=prepare)
    data = whole.read_bytes()
    holed, output, start = tmp_path / "holed.mp4", tmp_path / "out.mp4", data.index(b"mdat") - 4
    cut = bytearray(data[: len(data) * 17 // 20])
    if repair == "zeros":
        holed.write_bytes(cut.ljust(len(data), b"\0"))
        fails(holed, output, Repeat(), "damaged: frame [0-9]+ cannot be decoded")
        return
    cut[start : start + 4] = (len(cut) - start).to_bytes(4, "big")
    holed.write_bytes(cut)
    fails(holed, output, Repeat(), "ends early: [0-9]+ of its 40 frames|damaged")
    options = VideoOptions(preset="ultrafast", allow_truncated=True)
    result = upscale_video(holed, output, Repeat(), options)
    assert 0 < result.frames < 40
    assert any("ends early" in note for note in result.notes)


def test_an_mp4_whose_index_is_missing(tmp_path: Path, Repeat: Any, clip: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    fails(cut, tmp_path / "out.mp4", Repeat(), "cut short")
    fails(cut, tmp_path / "out.mp4", Repeat(), "cannot be read", allow_truncated=True)


def test_a_change_of_size_in_the_middle_is_an_error(
    tmp_path: Path, Repeat: Any, write_clip: Any
) -> None:
    parts = [
        write_clip(tmp_path / f"{w}.ts", size=(w, 48), count=10, options={"bf": "0"})
        for w in (64, 80)
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(p.read_bytes() for p in parts))
    fails(joined, tmp_path / "out.mp4", Repeat(), "frame 11 is 80×48 pixels.*64×48")


def test_the_source_is_never_overwritten(tmp_path: Path, Repeat: Any, clip: Path) -> None:
    fails(clip, clip, Repeat(), "is the source itself")
    link = tmp_path / "link.mp4"
    link.symlink_to(clip)
    fails(clip, link, Repeat(), "is the source itself")
    hard = tmp_path / "hard.mp4"
    hard.hardlink_to(clip)
    fails(clip, hard, Repeat(), "is the source itself")


def test_outputs_that_cannot_be(tmp_path: Path, Repeat: Any, clip: Path) -> None:
    fails(clip, tmp_path / "none" / "out.mp4", Repeat(), "could not be written")
    assert str(tmp_path / "clip.mp4") in fails(clip, tmp_path, Repeat(), "is a folder").hint
    fails(clip, tmp_path / "out.png", Repeat(), "a video cannot be written as '.png'")
    fails(clip, tmp_path / "out.xyz", Repeat(), "cannot be written as '.xyz'")
    fails(clip, tmp_path / "out", Repeat(), "without ending")
    fails(clip, tmp_path / "out.mp4", Repeat(), "no encoder is called 'divx'", codec="divx")
    fails(clip, tmp_path / "out.webm", Repeat(), "webm takes no libx264", codec="libx264")
    fails(clip, tmp_path / "out.webm", Repeat(), "cannot hold the source's aac audio")
    fails(clip, tmp_path / "out.mp4", Repeat(), "crf must be 0 to 51", crf=60)
    with pytest.raises(MediaError, match="no preset is called 'fastest'"):
        upscale_video(clip, tmp_path / "out.mp4", Repeat(), VideoOptions(preset="fastest"))


def test_an_existing_output_is_replaced_at_the_end_only(
    tmp_path: Path, Repeat: Any, clip: Path
) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")
    seen: list[bytes] = []
    upscale_video(clip, output, Repeat(at_call=lambda _: seen.append(output.read_bytes())), FAST)
    assert set(seen) == {b"before"}
    assert output.stat().st_size > 1000


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from srdeploy.errors import MediaError
from srdeploy.runtime.session import Session
from srdeploy.runtime.video import VideoOptions, upscale_video

class Repeat(Session):
    scale, target = 2, "test"
    def _upscale(self, frames):
        return frames.repeat(2, 1).repeat(2, 2)

source, folder, whole = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 1, 20, 3000, whole // 2, whole - 3000, whole - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        upscale_video(source, folder / "out.mp4", Repeat(), VideoOptions(preset="ultrafast"))
    except MediaError as error:
        assert "could not be written" in error.message, error.message
    else:
        raise SystemExit(f"no error at {limit} bytes")
    assert list(folder.iterdir()) == [], (limit, list(folder.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (whole, resource.RLIM_INFINITY))
upscale_video(source, folder / "out.mp4", Repeat(), VideoOptions(preset="ultrafast"))
"""


def test_a_full_disk_at_any_moment_leaves_nothing(
    tmp_path: Path, Repeat: Any, clip: Path, repository: Path
) -> None:
    """A limit on the file's size stands in for the disk: writes fail at every stage."""
    output = tmp_path / "whole.mp4"
    upscale_video(clip, output, Repeat(), FAST)
    folder = tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(clip), str(folder), str(output.stat().st_size)],
        env={**os.environ, "PYTHONPATH": str(repository / ".src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (folder / "out.mp4").stat().st_size == output.stat().st_size


class _FullPipe(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_pipe_that_is_closed_is_a_media_error(clip: Path, Repeat: Any) -> None:
    with pytest.raises(MediaError, match="standard output could not be written: Broken pipe"):
        upscale_video(clip, _FullPipe(), Repeat(), FAST)  # type: ignore[arg-type]


def test_standard_input_that_is_no_yuv4mpeg(tmp_path: Path, Repeat: Any) -> None:
    with pytest.raises(MediaError, match="standard input cannot be read") as caught:
        upscale_video(io.BytesIO(b"RIFF" * 100), tmp_path / "out.mp4", Repeat(), FAST)
    assert "yuv4mpegpipe" in caught.value.hint


def test_y4m_goes_in_and_out_as_a_stream(
    tmp_path: Path, Repeat: Any, clip: Path, shown: Any
) -> None:
    pipe = io.BytesIO()
    result = upscale_video(clip, pipe, Repeat(2), FAST)
    assert result.frames == 60
    assert any("audio" in note for note in result.notes)
    header, rest = pipe.getvalue().split(b"\n", 1)
    assert header.startswith(b"YUV4MPEG2 W192 H128 F25:1 ")
    assert len(rest) == 60 * (len(b"FRAME\n") + 192 * 128 * 3 // 2)
    pipe.seek(0)
    output = tmp_path / "out.mp4"
    assert upscale_video(pipe, output, Repeat(1), FAST).frames == 60
    assert shown(output) == shown(clip)


def test_an_interruption_while_the_muxer_writes_is_not_lost(tmp_path: Path) -> None:
    """PyAV prints what its callbacks raise and goes on; the interruption comes again after it."""
    partial = PartialFile(tmp_path / "video.mp4")
    raw = partial._file

    class Interrupted:
        asked = False

        def write(self, data: memoryview) -> int:
            if not self.asked:
                self.asked = True
                raise KeyboardInterrupt
            return raw.write(data)

    partial._file = Interrupted()  # type: ignore[assignment]

    def write() -> None:
        assert partial.write(b"header") == 6
        for _ in range(1000):
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        write()
    partial._file = raw
    partial.seek(0)
    assert partial.read(10) == b"header"
    partial.discard()
    assert list(tmp_path.iterdir()) == []
