"""A few frames through an encoder and back, in memory: what a codec does to pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from ...errors import MediaError
from ..session import Frames
from .colour import BT601, LIMITED, SITING, Colour, RgbDecoder, YuvEncoder
from .formats import ENCODERS, encoder_options
from .source import reason_of

_FORMAT = "yuv420p"
_COLOUR = Colour(BT601, LIMITED)


def through_h264(frames: Frames, crf: int, preset: str = "veryfast") -> Frames:
    """Frames as they look after x264 in 4:2:0, predicted from one another as in a video.

    The same frames give the same result: one thread encodes, another none.

    Args:
        frames: T×H×W×3 uint8 RGB, of consecutive times, 25 a second.
        crf: Constant rate factor, 0 to 51.
        preset: Of x264.

    Returns:
        T×H×W×3 uint8 RGB.

    Raises:
        MediaError: This FFmpeg has no x264, or it refuses the frames.
    """
    height, width = frames.shape[1:3]
    # 4:2:0 has no odd sizes
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    options = encoder_options(ENCODERS["libx264"], crf, preset)
    try:
        packets = _encode(padded, options)
        decoder: Any = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1
        decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    except (av.FFmpegError, ValueError) as exc:  # an unknown codec is a ValueError
        raise MediaError(
            f"{len(frames)} frames of {width}×{height} cannot be passed through H.264:"
            f" {reason_of(exc)}",
            "srdeploy doctor lists the codecs that are here",
        ) from exc
    if len(decoded) != len(frames):
        raise MediaError(f"H.264 gave {len(decoded)} of {len(frames)} frames back")
    to_rgb = RgbDecoder()
    return np.stack([to_rgb(frame)[:height, :width] for frame in decoded])


def _encode(frames: Frames, options: dict[str, str]) -> list[Any]:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = _FORMAT, Fraction(1, 25), 1
    encoder.options = options | SITING
    to_yuv = YuvEncoder(_COLOUR, _FORMAT)
    packets = []
    for time, pixels in enumerate(frames):
        frame = to_yuv(pixels)
        frame.pts, frame.time_base = time, encoder.time_base
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None)]
