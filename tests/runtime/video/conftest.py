"""Clips made on the spot, and engines that need no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from srdeploy.runtime.session import Frames, Session


class Repeat(Session):
    """Nearest neighbour; optionally slow by turns, or failing at a call."""

    target = "test"

    def __init__(
        self,
        scale: int = 2,
        parallel: int = 1,
        jitter: float = 0.0,
        at_call: Callable[[int], None] | None = None,
    ) -> None:
        self.scale, self.parallel = scale, parallel
        self.calls = self.concurrent = self.most_concurrent = 0
        self.shapes: set[tuple[int, ...]] = set()
        self._jitter, self._at_call = jitter, at_call

    def _upscale(self, frames: Frames) -> Frames:
        self.calls += 1
        self.concurrent += 1
        self.most_concurrent = max(self.most_concurrent, self.concurrent)
        self.shapes.add(frames.shape)
        try:
            if self._at_call is not None:
                self._at_call(self.calls)
            if self._jitter:
                time.sleep(self._jitter * (self.calls % 3))
            return frames.repeat(self.scale, 1).repeat(self.scale, 2)
        finally:
            self.concurrent -= 1


@dataclass(frozen=True)
class Times:
    """A packet in seconds, and its bytes."""

    pts: Fraction | None
    dts: Fraction | None
    duration: Fraction
    data: bytes


def packets(path: Path, kind: str) -> list[Times]:
    """Packets of the first stream of a kind, in the order of the file."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        base = stream.time_base

        def seconds(value: int | None) -> Fraction | None:
            return None if value is None else value * base

        return [
            Times(seconds(p.pts), seconds(p.dts), (p.duration or 0) * base, bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


def shown(path: Path) -> list[Fraction]:
    """Times at which decoded video frames are shown, in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def moving(count: int, width: int, height: int) -> list[NDArray[np.uint8]]:
    """RGB frames of smooth colour with a box that moves: easy to encode, all different."""
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([x * 200 // width + 20, y * 200 // height + 20, (x + y) % 200], -1)
    frames = []
    for i in range(count):
        frame = ground.astype(np.uint8)
        left = (i * 3) % max(1, width - 8)
        frame[height // 4 : height // 2, left : left + 8] = (250, 30, 30)
        frames.append(frame)
    return frames


def write_clip(
    path: Path,
    count: int = 12,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    time_base: Fraction | None = None,
    times: Sequence[int] | None = None,
    audio: str | None = None,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any, Any], None] | None = None,
    frames: Sequence[av.VideoFrame] | None = None,
) -> Path:
    """Encode a clip; ``times`` in units of ``time_base``, audio half as long again."""
    base = time_base or Fraction(1, rate)
    pictures = frames or [
        av.VideoFrame.from_ndarray(p, format="rgb24") for p in moving(count, *size)
    ]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = (*size, pixel_format)
        stream.time_base = stream.codec_context.time_base = base
        if path.suffix in (".mp4", ".mov"):
            container.container_options["movie_timescale"] = str(base.denominator)
        sound: Any = container.add_stream(audio, rate=48000) if audio else None
        if prepare is not None:
            prepare(container, stream)
        for i, picture in enumerate(pictures):
            picture.pts = times[i] if times is not None else i
            picture.time_base = base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_tone(container, sound, len(pictures) * 3 // 2 / rate)
    return path


def _write_tone(container: Any, stream: Any, seconds: float) -> None:
    size = 960  # a frame length that Opus and AAC both take, the latter after buffering
    context = stream.codec_context
    fifo = av.AudioFifo()
    wave = np.sin(np.arange(int(seconds * 48000)) / 20).astype(np.float32) / 4
    for start in range(0, len(wave) - size, size):
        block = np.stack([wave[start : start + size]] * 2)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        fifo.write(frame)
    resampler = av.AudioResampler(format=context.format, layout="stereo", rate=48000)
    length = context.frame_size or size
    while (frame := fifo.read(length)) is not None:
        for ready in resampler.resample(frame):
            container.mux(stream.encode(ready))
    container.mux(stream.encode(None))


@pytest.fixture(name="Repeat")
def _repeat() -> type[Repeat]:
    return Repeat


@pytest.fixture(name="write_clip")
def _write_clip() -> Callable[..., Path]:
    return write_clip


@pytest.fixture(name="packets")
def _packets() -> Callable[[Path, str], list[Times]]:
    return packets


@pytest.fixture(name="shown")
def _shown() -> Callable[[Path], list[Fraction]]:
    return shown
