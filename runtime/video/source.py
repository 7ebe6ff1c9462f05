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
from .truncation import declared_size

# Playlists name other files and addresses: a video from a stranger must not open them.
PLAYLISTS = frozenset({"hls", "dash", "concat", "imf", "sdp", "rtsp"})
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


def name_of(source: Path | BinaryIO) -> str:
    """What to call a source in messages."""
    return str(source) if isinstance(source, Path) else "standard input"


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
    if wanted is None or wanted <= size:
        return None
    return f"is cut short: it has {size:,} of the {wanted:,} bytes that its headers name"


def open_source(source: Path | BinaryIO) -> Any:
    """PyAV's container of a source.

    Raises:
        MediaError: It is no video, or something that names other files.
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
            container = av.open(_Pipe(source), "r", format=Y4M)
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise MediaError(
            f"{name_of(source)} cannot be read as a video: {reason_of(exc)}",
            "check that it plays, for instance with ffplay"
            if isinstance(source, Path)
            else "standard input takes YUV4MPEG2: ffmpeg -i VIDEO -f yuv4mpegpipe -",
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


class _Pipe:
    """A binary stream that shows FFmpeg nothing but ``read``: pipes cannot seek."""

    def __init__(self, stream: BinaryIO) -> None:
        self.name = "standard input"
        self.read = stream.read


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
