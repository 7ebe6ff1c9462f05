"""YUV4MPEG2 from a pipe or a file: whole streams of every kind pass, and none that was cut."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from srdeploy.errors import MediaError
from srdeploy.runtime.video import VideoOptions, VideoResult, upscale_video

WIDTH, HEIGHT, COUNT = 48, 32, 3
LUMA = WIDTH * HEIGHT
KINDS = {
    "C420jpeg": LUMA * 3 // 2,
    "C420mpeg2 XYSCSS=420MPEG2": LUMA * 3 // 2,
    "C411": LUMA * 3 // 2,
    "C422": LUMA * 2,
    "C444": LUMA * 3,
    "C444alpha": LUMA * 4,
    "Cmono": LUMA,
    "Cmono10": LUMA * 2,
    "C420p10": LUMA * 3,
    "C422p12": LUMA * 4,
    "C444p16": LUMA * 6,
}
MARKS = (b"FRAME\n", b"FRAME Ip\n")


class Drip(io.RawIOBase):
    """A pipe whose writer is slow: every read gets a few bytes."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def read(self, size: int = -1) -> bytes:
        part, self._rest = self._rest[: min(size, 1000)], self._rest[min(size, 1000) :]
        return part


def head(kind: str = "C420jpeg") -> bytes:
    return f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 {kind}\n".encode()


def frame(kind: str = "C420jpeg", mark: bytes = MARKS[0]) -> bytes:
    return mark + b"\x60" * KINDS[kind]


def stored(content: bytes, how: str, folder: Path) -> Path | BinaryIO:
    if how == "pipe":
        return io.BytesIO(content)
    if how == "slow pipe":
        return Drip(content)  # type: ignore[return-value]
    path = folder / "in.y4m"
    path.write_bytes(content)
    return path


def upscale(source: Path | BinaryIO, folder: Path, session: Any, **options: Any) -> VideoResult:
    asked = VideoOptions(preset="ultrafast", **options)
    return upscale_video(source, folder / "out.mkv", session, asked)


@pytest.mark.parametrize("how", ["pipe", "slow pipe", "file"])
@pytest.mark.parametrize("mark", MARKS, ids=["plain", "with parameters"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_stream_passes(
    tmp_path: Path, Repeat: Any, kind: str, mark: bytes, how: str
) -> None:
    content = head(kind) + frame(kind, mark) * COUNT
    result = upscale(stored(content, how, tmp_path), tmp_path, Repeat())
    assert result.frames == COUNT
    assert not any("cut" in note for note in result.notes)


@pytest.mark.parametrize("how", ["pipe", "slow pipe", "file"])
@pytest.mark.parametrize("mark", MARKS, ids=["plain", "with parameters"])
@pytest.mark.parametrize("kept", [1, 5, 6, 10, -100, -1])
def test_a_last_frame_that_was_cut_is_an_error_unless_that_is_allowed(
    tmp_path: Path, Repeat: Any, kept: int, mark: bytes, how: str
) -> None:
    """Cut in the line before the frame, right after it, and in the pixels."""
    content = head() + frame(mark=mark) * COUNT + frame(mark=mark)[:kept]
    with pytest.raises(MediaError, match="is cut short") as caught:
        upscale(stored(content, how, tmp_path), tmp_path, Repeat())
    assert "--allow-truncated" in caught.value.hint
    assert not (tmp_path / "out.mkv").exists()
    again = stored(content, how, tmp_path)
    result = upscale(again, tmp_path, Repeat(), allow_truncated=True)
    assert result.frames == COUNT
    assert sum("is cut short" in note for note in result.notes) == 1


def test_a_file_that_was_cut_is_refused_before_a_frame_is_upscaled(
    tmp_path: Path, Repeat: Any
) -> None:
    session = Repeat()
    source = stored(head() + frame() * COUNT + frame()[:-1], "file", tmp_path)
    whole = len(head()) + (COUNT + 1) * len(frame())
    with pytest.raises(MediaError, match=f"it has {whole - 1:,} of the {whole:,} bytes"):
        upscale(source, tmp_path, session)
    assert session.calls == 0


def test_the_frame_that_a_pipe_ends_in_is_named(tmp_path: Path, Repeat: Any) -> None:
    with pytest.raises(MediaError, match="cut short: it ends in the middle of frame 4"):
        upscale(io.BytesIO(head() + frame() * COUNT + b"FRAME\n"), tmp_path, Repeat())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "nothing came from standard input"),
        (b"YUV4", "standard input is cut short: it ends in its header"),
        (head()[:-1], "standard input is cut short: it ends in its header"),
        (head(), "standard input has no video frame"),
        (head() + frame()[:3], "standard input has no video frame"),
        (head() + frame()[:-1], "standard input has no video frame"),
        (b"\0" * 3, "standard input cannot be read as a video"),
        (b"YUV4MPEG2 Wx\n", "standard input cannot be read as a video"),
    ],
)
def test_a_pipe_without_a_whole_frame(
    tmp_path: Path, Repeat: Any, content: bytes, told: str
) -> None:
    with pytest.raises(MediaError, match=told) as caught:
        upscale(Drip(content), tmp_path, Repeat())  # type: ignore[arg-type]
    assert "yuv4mpegpipe" in caught.value.hint
    with pytest.raises(MediaError, match="standard input"):
        upscale(Drip(content), tmp_path, Repeat(), allow_truncated=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_other_bytes_between_frames_are_damage(tmp_path: Path, Repeat: Any, how: str) -> None:
    content = head() + frame() * COUNT + b"x" * 200 + frame()
    with pytest.raises(MediaError, match="is damaged after frame 3"):
        upscale(stored(content, how, tmp_path), tmp_path, Repeat())
    again = stored(content, how, tmp_path)
    result = upscale(again, tmp_path, Repeat(), allow_truncated=True)
    assert result.frames == COUNT
    assert [note for note in result.notes if "cut short" in note] == []


@pytest.mark.parametrize("content", [b"", head(), head() + frame()[:100]], ids=len)
def test_an_interruption_while_nothing_comes(
    tmp_path: Path, Repeat: Any, capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    """PyAV prints what is no Exception, and takes it for the end of the stream."""

    class Waiting(Drip):
        def read(self, size: int = -1) -> bytes:
            if part := super().read(size):
                return part
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(Waiting(content), tmp_path, Repeat())  # type: ignore[arg-type]
    assert capfd.readouterr().err == ""
