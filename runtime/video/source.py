"""The source as a file: whether it is whole and a video, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition

from ...errors import MediaError
from ..session import Frames
from .colour import HDR_TRANSFERS, Colour, colour_of
from .formats import Y4M
from .truncation import declared_size, size_in_frames

# Playlists name other files and addresses: a video from a stranger must not open them.
PLAYLISTS = frozenset({"hls", "dash", "concat", "imf", "sdp", "rtsp"})
Y4M_HINT = "standard input takes YUV4MPEG2: ffmpeg -i VIDEO -f yuv4mpegpipe -"
_Y4M_MAGIC, _Y4M_LONGEST_HEADER = b"YUV4MPEG2", 256
_IDENTITY = (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        pts: Time of display in units of the video stream's time base.
        duration: In the same units; 0 if unknown.
        pixels: H×W×3 uint8 RGB.
    """

    pts: int
    duration: int
    pixels: Frames


@dataclass(frozen=True)
class VideoFormat:
    """What the first frame and its stream say of the video.

    Attributes:
        width: In pixels.
        height: In pixels.
        time_base: Seconds per unit of ``Picture.pts``.
        rate: Average frame rate, None if unknown.
        colour: Matrix, range, primaries and transfer.
        sample_aspect_ratio: Shape of a pixel, None if unknown.
        display_matrix: Rotation and mirroring for display, 9 integers as in ISO/IEC
            14496-12; None for upright.
        starts: When the video and each copied stream begin, in seconds.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction | None
    colour: Colour
    sample_aspect_ratio: Fraction | None
    display_matrix: tuple[int, ...] | None
    starts: tuple[Fraction, ...]


class Pipe:
    """A binary stream that shows FFmpeg nothing but ``read``: pipes cannot seek.

    Attributes:
        taken: Bytes read so far.
    """

    name = "standard input"

    def __init__(self, stream: BinaryIO) -> None:
        self.taken = 0
        self._stream = stream
        self._head = b""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            InterruptedError: In place of a ``KeyboardInterrupt``, which PyAV, that calls this,
                would drop.
        """
        try:
            data = self._stream.read(size)
        except KeyboardInterrupt as exc:
            raise InterruptedError from exc
        self.taken += len(data)
        self._head += data[: _Y4M_LONGEST_HEADER - len(self._head)]
        return data

    def refusal(self, cause: Exception) -> MediaError:
        """What to tell of a stream that is no video."""
        if not self.taken:
            return MediaError(
                f"nothing came from {self.name}",
                f"see what the program before the pipe says; {Y4M_HINT}",
            )
        cut = b"\n" not in self._head and self._head.startswith(_Y4M_MAGIC[: self.taken])
        reason = (
            "is cut short: it ends in its header"
            if cut
            else f"cannot be read as a video: {reason_of(cause)}"
        )
        return MediaError(f"{self.name} {reason}", Y4M_HINT)


def name_of(source: Path | Pipe) -> str:
    """What to call a source in messages."""
    return str(source) if isinstance(source, Path) else source.name


def missing_part(source: Path) -> str | None:
    """What is missing of a file by its own headers, as a clause; None where it is whole.

    Raises:
        MediaError: It is missing, no file, or cannot be read.
    """
    if not source.exists():
        raise MediaError(f"{source} does not exist", "check the path")
    if not source.is_file():
        raise MediaError(f"{source} is not a file", "name a video file")
    try:
        wanted, size = declared_size(source), source.stat().st_size
    except OSError as exc:
        raise MediaError(f"{source} cannot be read: {exc.strerror}") from exc
    return _shortage(size, wanted, "that its headers name")


def missing_of_frame(source: Path, end: int, frame_bytes: int) -> str | None:
    """What is missing of a YUV4MPEG2 file's last frame, as a clause; None where it is whole.

    Args:
        source: The file.
        end: Where one of its frames ends.
        frame_bytes: Of each frame, without the line before it.

    Raises:
        MediaError: It cannot be read.
    """
    try:
        wanted, size = size_in_frames(source, end, frame_bytes), source.stat().st_size
    except OSError as exc:
        raise MediaError(f"{source} cannot be read: {exc.strerror}") from exc
    return _shortage(size, wanted, "that its last frame needs")


def _shortage(size: int, wanted: int | None, by: str) -> str | None:
    if wanted is None or wanted <= size:
        return None
    return f"is cut short: it has {size:,} of the {wanted:,} bytes {by}"


def open_source(source: Path | Pipe) -> Any:
    """PyAV's container of a source.

    Raises:
        MediaError: It is no video, or something that names other files.
        KeyboardInterrupt: It came while a pipe was read.
    """
    try:
        if isinstance(source, Path):
            # 'file:' keeps names with a colon from being read as addresses
            container = av.open(
                f"file:{source}",
                container_options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        else:
            container = av.open(source, "r", format=Y4M)
    except InterruptedError as exc:
        raise KeyboardInterrupt from exc
    except (av.FFmpegError, OSError, ValueError) as exc:
        if isinstance(source, Pipe):
            raise source.refusal(exc) from exc
        raise MediaError(
            f"{source} cannot be read as a video: {reason_of(exc)}",
            "check that it plays, for instance with ffplay",
        ) from exc
    kind = container.format.name
    if kind in PLAYLISTS or kind.endswith("_pipe") or kind in ("image2", "tty"):
        container.close()
        raise MediaError(
            f"{name_of(source)} is not a video but of the kind '{kind}'", "name a video file"
        )
    return container


def choose_stream(container: Any, name: str) -> av.VideoStream:
    """The default video stream that is not a cover.

    Raises:
        MediaError: There is none, or no decoder for it.
    """
    videos = [s for s in container.streams.video if not is_cover(s)]
    if not videos:
        raise MediaError(f"{name} has no video stream", "name a file with video")
    default = [s for s in videos if s.disposition & Disposition.default]
    stream: av.VideoStream = (default or videos)[0]
    if stream.codec_context is None:
        raise MediaError(
            f"{name}: this FFmpeg cannot decode its video stream",
            "convert it first, for instance with ffmpeg -c:v libx264 -crf 0",
        )
    return stream


def describe(
    frame: av.VideoFrame, stream: av.VideoStream, starts: tuple[Fraction, ...]
) -> VideoFormat:
    """The format of a video by its first frame.

    Raises:
        MediaError: Its colour cannot be converted.
    """
    ratio = stream.sample_aspect_ratio
    return VideoFormat(
        frame.width,
        frame.height,
        Fraction(stream.time_base or Fraction(1, 90000)),
        Fraction(stream.average_rate) if stream.average_rate else None,
        colour_of(frame),
        Fraction(ratio) if ratio else None,
        _display_matrix(frame),
        starts,
    )


def losses(frame: av.VideoFrame, stream: av.VideoStream) -> list[str]:
    """What 8-bit RGB does not hold of the source, one sentence each."""
    notes = []
    components = frame.format.components
    if max((c.bits for c in components), default=8) > 8:
        notes.append(f"the source has {components[0].bits} bits, the output 8")
    if any(c.is_alpha for c in components) or "alpha_mode" in map(str.lower, stream.metadata):
        notes.append("transparency was left out")
    if frame.color_trc in HDR_TRANSFERS:
        notes.append("the source is HDR: its values were upscaled as they are")
    if frame.interlaced_frame:
        notes.append("the source is interlaced: deinterlace it first for a good result")
    return notes


def is_cover(stream: Any) -> bool:
    """Whether a video stream is the picture of a cover."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    side_data: Any = frame.side_data
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    values = tuple(int(v) for v in np.frombuffer(bytes(data), np.int32)[:9])
    return None if values == _IDENTITY else values


def reason_of(exc: Exception) -> str:
    """FFmpeg's words for an error, without its numbers."""
    return str(getattr(exc, "strerror", None) or exc)
