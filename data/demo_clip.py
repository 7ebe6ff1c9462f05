"""A short real video made from the bundled photographs, for trying srdeploy without one's own.

A camera glides over the photographs and zooms in slowly, one dissolves into the next, and a
quiet chord sounds. The same arguments give the same file with the same libraries.

PyAV is otherwise at home in ``runtime/video``; this file writes with it directly, because
data may not depend on runtime and the clip must not be made by the very code that it tries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from ..errors import MediaError
from . import SPLITS, pictures

SAMPLE_RATE = 48_000
_BT709 = 1  # the code of BT.709's primaries, transfer and matrix in ISO/IEC 23091-2
_LIMITED = 1  # AVCOL_RANGE_MPEG: luma from 16 to 235
_DISSOLVE = 0.4  # of a scene's length
_CHORD = (220.0, 277.183, 329.628, 440.0)  # A major, in Hz


@dataclass(frozen=True)
class _Scene:
    """A camera move over one photograph.

    ``start`` and ``end`` are (centre x, centre y, size) of the view as shares of the
    photograph; size 1 is the largest view of the clip's aspect ratio.
    """

    name: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]


_SCENES = (
    _Scene("china", (0.50, 0.54, 0.92), (0.40, 0.42, 0.76)),
    _Scene("flower", (0.57, 0.47, 0.92), (0.50, 0.51, 0.74)),
    _Scene("chelsea", (0.46, 0.53, 0.97), (0.50, 0.45, 0.84)),
)


def make_demo_clip(
    path: Path, *, width: int = 320, height: int = 180, frames: int = 72, rate: int = 24
) -> None:
    """Write an mp4 with H.264 video (yuv420p, BT.709, limited range) and AAC stereo sound.

    Args:
        path: The file to write; one that is there is replaced once the new one is complete.
        width: In pixels, even.
        height: In pixels, even.
        frames: Length of the video; the sound is as long.
        rate: Frames per second.

    Raises:
        MediaError: A size or length cannot be used, or the file cannot be written.
        DatasetError: A bundled photograph is damaged.
    """
    _check(width, height, frames, rate)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            _write(container, (width, height), frames, rate)
        partial.replace(path)
    except (OSError, av.FFmpegError) as exc:
        raise MediaError(
            f"the demo clip cannot be written to {path}: {exc}",
            "name a file in a folder that exists and that you may write to",
        ) from exc
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


def _check(width: int, height: int, frames: int, rate: int) -> None:
    if not all(64 <= edge <= 4096 and edge % 2 == 0 for edge in (width, height)):
        raise MediaError(
            f"a clip of {width}×{height} pixels cannot be made",
            "width and height must be even and from 64 to 4096",
        )
    if frames < 1 or not 1 <= rate <= 240:
        raise MediaError(
            f"a clip of {frames} frames at {rate} per second cannot be made",
            "it takes at least one frame, and from 1 to 240 frames per second",
        )


def _write(container: OutputContainer, size: tuple[int, int], frames: int, rate: int) -> None:
    video, audio = _add_video(container, size, rate), _add_audio(container)
    sound = _chord(round(Fraction(frames * SAMPLE_RATE, rate)))
    for index, pixels in enumerate(_pictures_over_time(size, frames)):
        container.mux(video.encode(_video_frame(pixels, index, rate)))
        first, end = (round(Fraction(i * SAMPLE_RATE, rate)) for i in (index, index + 1))
        container.mux(audio.encode(_audio_frame(sound[:, first:end], first)))
    container.mux(video.encode(None))
    container.mux(audio.encode(None))


def _add_video(container: OutputContainer, size: tuple[int, int], rate: int) -> VideoStream:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, rate)
    # The same file every time: x264 cuts its work by the number of threads, and its macroblock
    # tree was seen to give other bits from one run to the next with one thread too.
    stream.options = {"crf": "14", "preset": "slow", "threads": "1", "mbtree": "0"}
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED
    return stream


def _add_audio(container: OutputContainer) -> AudioStream:
    stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
    stream.bit_rate = 96_000
    return stream


def _video_frame(pixels: NDArray[np.uint8], index: int, rate: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
        interpolation="BICUBIC",
    )
    frame.color_primaries = frame.color_trc = frame.colorspace = _BT709
    frame.color_range = _LIMITED
    frame.pts, frame.time_base = index, Fraction(1, rate)
    return frame


def _audio_frame(samples: NDArray[np.float32], first: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), format="fltp", layout="stereo"
    )
    frame.sample_rate = SAMPLE_RATE
    frame.pts, frame.time_base = first, Fraction(1, SAMPLE_RATE)
    return frame


def _pictures_over_time(size: tuple[int, int], frames: int) -> Iterator[NDArray[np.uint8]]:
    """The clip's frames, H×W×3 uint8."""
    found = {p.name: p for split in SPLITS for p in pictures(split)}
    photographs = [Image.fromarray(found[scene.name].read()) for scene in _SCENES]
    for index in range(frames):
        now = (index + 0.5) / frames * len(_SCENES)
        current = int(now)
        mixed = _view(photographs, current, now, size)
        # Within half a dissolve of a scene's edge its neighbour shines through.
        edge = round(now)
        into = (now - edge) / _DISSOLVE + 0.5
        if 0 < edge < len(_SCENES) and 0 < into < 1:
            share = into * into * (3 - 2 * into)
            before, after = (_view(photographs, i, now, size) for i in (edge - 1, edge))
            mixed = before + share * (after - before)
        yield np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _view(
    photographs: list[Image.Image], index: int, now: float, size: tuple[int, int]
) -> NDArray[np.float32]:
    """What the camera of scene ``index`` sees at ``now`` (in scenes), resampled from its box.

    Its move spans the dissolves too, so that nothing stands still while it fades.
    """
    progress = (now - index + _DISSOLVE / 2) / (1 + _DISSOLVE)
    scene, photograph = _SCENES[index], photographs[index]
    x, y, zoom = (a + (b - a) * progress for a, b in zip(scene.start, scene.end, strict=True))
    largest = min(photograph.width / size[0], photograph.height / size[1])
    half_width, half_height = size[0] * largest * zoom / 2, size[1] * largest * zoom / 2
    centre_x = min(max(x * photograph.width, half_width), photograph.width - half_width)
    centre_y = min(max(y * photograph.height, half_height), photograph.height - half_height)
    box = (
        max(centre_x - half_width, 0.0),
        max(centre_y - half_height, 0.0),
        min(centre_x + half_width, float(photograph.width)),
        min(centre_y + half_height, float(photograph.height)),
    )
    # The box keeps its fractions of a pixel, and the filter widens as the view shrinks.
    seen = photograph.resize(size, Image.Resampling.LANCZOS, box=box)
    return np.asarray(seen, dtype=np.float32)


def _chord(samples: int) -> NDArray[np.float32]:
    """A soft chord, 2×samples in [-1, 1], that swells and fades; left and right beat slowly."""
    time = np.arange(samples) / SAMPLE_RATE
    sides = [
        sum(np.sin(2 * np.pi * (tone + side * 0.3) * time) for tone in _CHORD) for side in (-1, 1)
    ]
    swell = np.minimum(np.minimum(time, time[::-1]) / 0.4, 1.0)
    return (np.stack(sides) * swell * 0.04).astype(np.float32)
