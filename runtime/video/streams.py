"""How the output's streams are set up: size, colour, rotation, times, metadata."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import MediaError
from .formats import ISO_MEDIA, ROTATING, Y4M, Encoder, muxer_of
from .source import VideoFormat

# written anew by the muxer, or true of the old encoding only
_STALE = frozenset(
    (
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "alpha_mode",
        "duration",
        "vendor_id",
    )
)
_STALE_STARTS = ("bps", "number_of_", "_statistics")
_MILLISECONDS, _LARGEST_UNIT = 1000, 2**31


def check_output(source: Path | BinaryIO, output: Path | BinaryIO) -> None:
    """Refuse an output that is the source, a folder, in no folder, or of no known kind.

    Raises:
        MediaError: So it is.
    """
    if not isinstance(output, Path):
        return
    if output.is_dir():
        example = output / f"{source.stem if isinstance(source, Path) else 'video'}.mp4"
        raise MediaError(f"{output} is a folder", f"name a file in it, such as {example}")
    if not output.parent.is_dir():
        raise MediaError(
            f"{output} could not be written: {os.strerror(errno.ENOENT)}: {output.parent}",
            "make the folder first",
        )
    if isinstance(source, Path) and output.exists() and output.samefile(source):
        raise MediaError(f"{output} is the source itself", "name another output")
    muxer_of(output)


def check_rotation(output: Path | BinaryIO, source: VideoFormat, muxer: str) -> None:
    """Refuse a container that would lay a rotated video on its side.

    Raises:
        MediaError: So it would.
    """
    if source.display_matrix is None or muxer in ROTATING:
        return
    name = output if isinstance(output, Path) else "standard output"
    raise MediaError(
        f"{name}: the source is stored rotated, which the container {muxer} cannot say",
        "write it as .mp4, .mov or .mkv",
    )


def pixel_format_for(encoder: Encoder, muxer: str, size: tuple[int, int], notes: list[str]) -> str:
    """4:2:0 as everywhere, except for an odd size that the codec only takes in 4:4:4.

    Raises:
        MediaError: The codec takes no odd size at all.
    """
    width, height = size
    if muxer == Y4M or encoder.odd_size or not (width % 2 or height % 2):
        return "yuv420p"
    if not encoder.full_chroma:
        raise MediaError(
            f"{encoder.name} cannot encode the odd size {width}×{height}",
            "choose another --codec, such as libvpx-vp9",
        )
    notes.append(
        f"written as 4:4:4, because {encoder.name} takes no 4:2:0 of the odd size "
        f"{width}×{height}; some players cannot show it"
    )
    return "yuv444p"


def muxer_options(muxer: str, source: VideoFormat) -> dict[str, str]:
    """FFmpeg's options of a container, such that it stores the source's times."""
    if muxer == "mpegts":
        return {"mpegts_copyts": "1"}
    if muxer not in ISO_MEDIA:
        return {}
    # A stream's delay is stored in a unit of its own, by default the millisecond.
    unit = math.lcm(_MILLISECONDS, *(start.denominator for start in source.starts))
    return {"movie_timescale": str(unit)} if unit < _LARGEST_UNIT else {}


def declare_pixels(context: Any, source: VideoFormat) -> None:
    """Declare colour and pixel shape to an encoder."""
    colour = source.colour
    context.colorspace, context.color_range = colour.matrix, colour.range
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    if source.sample_aspect_ratio is not None:
        context.sample_aspect_ratio = source.sample_aspect_ratio


def declare(stream: Any, source: VideoFormat, scale: int) -> None:
    """Declare rotation on a video stream."""
    if source.display_matrix is not None:
        matrix = list(source.display_matrix)
        # its translation is in pixels of the picture, which has grown
        matrix[6], matrix[7] = matrix[6] * scale, matrix[7] * scale
        stream.set_display_matrix(matrix)


def still_true(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata that is still true of the output."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _STALE and not key.lower().startswith(_STALE_STARTS)
    }
