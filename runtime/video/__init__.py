"""Videos: decode, upscale and encode at once, with times, audio and colour kept."""

from __future__ import annotations

from .formats import MUXERS, default_output
from .options import Progress, VideoOptions, VideoResult
from .pipeline import upscale_video

__all__ = [
    "MUXERS",
    "Progress",
    "VideoOptions",
    "VideoResult",
    "default_output",
    "upscale_video",
]
