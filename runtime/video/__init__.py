"""Videos: decode, upscale and encode at once, with times, audio and colour kept."""

from __future__ import annotations

from .formats import MUXERS, default_output
from .options import Progress, VideoOptions, VideoResult
from .pipeline import upscale_video
from .streams import check_output

__all__ = [
    "MUXERS",
    "Progress",
    "VideoOptions",
    "VideoResult",
    "check_output",
    "default_output",
    "upscale_video",
]
