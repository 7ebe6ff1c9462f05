"""Containers and encoders: what goes into which, and how quality is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import MediaError

# file ending -> FFmpeg's muxer
MUXERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
    ".m2ts": "mpegts",
    ".flv": "flv",
    ".3gp": "3gp",
}
Y4M = "yuv4mpegpipe"
ISO_MEDIA = frozenset({"mp4", "mov", "3gp"})
# these muxers store a display matrix; others would play a rotated video lying on its side
ROTATING = ISO_MEDIA | {"matroska", "webm"}
# these take two packets of one time; the others refuse the second
EQUAL_TIMES = frozenset({"matroska", "webm"})
# these count frames instead of storing a time for each
FIXED_RATE = frozenset({"avi", Y4M})

Options = tuple[tuple[str, str], ...]
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)


@dataclass(frozen=True)
class Encoder:
    """An encoder and its scale of quality.

    Attributes:
        name: FFmpeg's name.
        crf: Default constant rate factor; None for a lossless encoder.
        worst: Largest constant rate factor.
        speeds: Options for each of ``PRESETS``.
        odd_size: Whether 4:2:0 frames may have an odd width or height.
        full_chroma: Whether 4:4:4 is taken.
        fixed: Options that are always set.
    """

    name: str
    crf: int | None
    worst: int
    speeds: tuple[Options, ...]
    odd_size: bool
    full_chroma: bool
    fixed: Options = ()


def _one_option(name: str, values: tuple[str, ...]) -> tuple[Options, ...]:
    return tuple(((name, value),) for value in values)


# Up to veryfast VP9 runs in its realtime mode: measured at 720p on 2 cores, 95 frames a second
# instead of 26 in 'good' mode, for files 1.9 times as large at the same crf.
_VP9 = tuple(
    (("deadline", mode), ("cpu-used", speed))
    for mode, speed in [
        *(("realtime", speed) for speed in "876"),
        *(("good", speed) for speed in "5432100"),
    ]
)
_SVT = _one_option("preset", ("13", "12", "10", "9", "8", "7", "6", "4", "2", "1"))
_X26X = _one_option("preset", PRESETS)
# Without it x264 gives another stream on CPUs with AVX2, and does not repeat itself on those with
# AVX-512: of 40 runs over the same frames of 96×64 18 differed, of 720p none. It costs 0 to 3 % of
# the encoder's time.
_X264_REPEATABLE = (("x264-params", "cpu-independent=1"),)
ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder("libx264", 18, 51, _X26X, False, True, _X264_REPEATABLE),
        Encoder("libx265", 20, 51, _X26X, False, True, (("x265-params", "log-level=error"),)),
        Encoder("libvpx-vp9", 24, 63, _VP9, True, True, (("row-mt", "1"), ("b", "0"))),
        Encoder("libsvtav1", 26, 63, _SVT, False, False),
        Encoder("ffv1", None, 0, (), True, True, (("level", "3"), ("slicecrc", "1"))),
    )
}


def muxer_of(output: Path) -> str:
    """FFmpeg's muxer for a file name.

    Raises:
        MediaError: The ending is none that can be written.
    """
    try:
        return MUXERS[output.suffix.lower()]
    except KeyError:
        raise MediaError(
            f"{output}: a video cannot be written as '{output.suffix or 'a file without ending'}'",
            f"give the output one of the endings {', '.join(MUXERS)}",
        ) from None


def encoder_of(codec: str | None, muxer: str) -> Encoder:
    """The encoder that was asked for, or the container's usual one.

    Raises:
        MediaError: No encoder is called so.
    """
    name = codec or ("libvpx-vp9" if muxer == "webm" else "libx264")
    if name not in ENCODERS:
        raise MediaError(
            f"no encoder is called '{name}'", f"known ones: {', '.join(sorted(ENCODERS))}"
        )
    return ENCODERS[name]


def encoder_options(encoder: Encoder, crf: int | None, preset: str) -> dict[str, str]:
    """FFmpeg's options for a quality and a speed.

    Raises:
        MediaError: The quality or the speed is none that the encoder knows.
    """
    options = dict(encoder.fixed)
    if preset not in PRESETS:
        raise MediaError(f"no preset is called '{preset}'", f"known ones: {', '.join(PRESETS)}")
    if encoder.crf is None:
        if crf is not None:
            raise MediaError(f"{encoder.name} is lossless and takes no crf", "leave crf out")
        return options
    quality = encoder.crf if crf is None else crf
    if not 0 <= quality <= encoder.worst:
        raise MediaError(
            f"crf must be 0 to {encoder.worst} for {encoder.name}, got {quality}",
            f"{encoder.crf} is the default; lower is better and larger",
        )
    options["crf"] = str(quality)
    options.update(encoder.speeds[PRESETS.index(preset)])
    return options


def default_output(source: Path, scale: int) -> Path:
    """``STEM_x4.EXT`` beside the input; containers that cannot be written become ``.mkv``."""
    suffix = source.suffix if source.suffix.lower() in MUXERS else ".mkv"
    return source.with_name(f"{source.stem}_x{scale}{suffix}")
