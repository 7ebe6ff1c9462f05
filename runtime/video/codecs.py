"""Which codecs the FFmpeg of PyAV has, and which encoders really open on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av

CODECS = {
    "h264": ("libx264", "libopenh264", "h264"),
    "hevc": ("libx265", "hevc"),
    "av1": ("libsvtav1", "libaom-av1", "librav1e", "libdav1d", "av1"),
    "vp9": ("libvpx-vp9", "vp9"),
    "prores": ("prores_ks", "prores"),
    "ffv1": ("ffv1",),
}
HARDWARE = ("nvenc", "qsv", "vaapi", "amf", "videotoolbox", "v4l2m2m", "mf")


@dataclass(frozen=True)
class CodecFacts:
    """What can be done in one codec.

    Attributes:
        decoders: Names, software.
        encoders: Names, software.
        hardware: Encoders of graphics cards and CPUs that open here.
        closed: Such encoders that FFmpeg knows and that do not open.
    """

    decoders: tuple[str, ...]
    encoders: tuple[str, ...]
    hardware: tuple[str, ...]
    closed: tuple[str, ...]


def ffmpeg_version() -> str:
    """Of the libraries that PyAV brings, by its libavcodec."""
    return ".".join(str(part) for part in av.library_versions["libavcodec"])


def codec_facts() -> dict[str, CodecFacts]:
    """What is here for each of :data:`CODECS`."""
    return {codec: _facts(codec, names) for codec, names in CODECS.items()}


def _facts(codec: str, names: tuple[str, ...]) -> CodecFacts:
    hardware = [f"{codec}_{kind}" for kind in HARDWARE if _known(f"{codec}_{kind}", "w")]
    opening = [name for name in hardware if _opens(name)]
    return CodecFacts(
        tuple(name for name in names if _known(name, "r")),
        tuple(name for name in names if _known(name, "w")),
        tuple(opening),
        tuple(name for name in hardware if name not in opening),
    )


def _known(name: str, mode: str) -> bool:
    try:
        return bool(av.Codec(name, mode).name == name)  # type: ignore[arg-type]
    except ValueError:  # av.codec.codec.UnknownCodecError is one
        return False


def _opens(name: str) -> bool:
    context = av.CodecContext.create(name, "w")
    try:
        context.width, context.height = 256, 256  # type: ignore[attr-defined]
        context.pix_fmt = "yuv420p"  # type: ignore[attr-defined]
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
