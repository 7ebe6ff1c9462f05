"""What can be asked of a video run, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class VideoOptions:
    """How a video is encoded and cut.

    Attributes:
        codec: Encoder: ``libx264``, ``libx265``, ``libsvtav1``, ``libvpx-vp9``, ``ffv1``;
            None takes VP9 for WebM and H.264 elsewhere.
        crf: Constant rate factor, lower is better and larger; None takes the codec's default.
        preset: Speed by its x264 name, ``ultrafast`` … ``placebo``, mapped for other codecs.
        tile: Largest tile in input pixels, None for whole frames.
        halo: Input pixels around each tile, at least the network's receptive radius.
        allow_truncated: Take what decodes of a file that is cut short or damaged, instead of
            failing.
        encoder_threads: Threads of the encoder; 0 lets it decide.
        resume: Digest of the engine, for a run that keeps finished parts where it fails and
            goes on from those of an earlier one; None to begin at the beginning.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str = "veryfast"
    tile: int | None = None
    halo: int = 32
    allow_truncated: bool = False
    encoder_threads: int = 0
    resume: str | None = None


@dataclass(frozen=True)
class Progress:
    """State of a run.

    Attributes:
        done: Frames written.
        total: Frames expected, estimated from the container; None if unknown.
        fps: Frames written per second since the start.
    """

    done: int
    total: int | None
    fps: float


@dataclass(frozen=True)
class VideoResult:
    """What a finished run did.

    Attributes:
        frames: Frames written, as many as were decoded.
        seconds: Wall-clock time of the whole run.
        fps: Frames a second, without those of an earlier run.
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        codec: Encoder that was used.
        rate: Average frame rate of the source, None if unknown.
        engine_seconds: Time inside the engine, summed over its concurrent calls.
        engine_busy_seconds: Time during which at least one call was inside the engine.
        peak_in_flight: Most frames that were between decoder and encoder at once.
        notes: What the output lacks of the source or should be known, one sentence each.
    """

    frames: int
    seconds: float
    fps: float
    width: int
    height: int
    codec: str
    rate: Fraction | None
    engine_seconds: float
    engine_busy_seconds: float
    peak_in_flight: int
    notes: tuple[str, ...] = ()
