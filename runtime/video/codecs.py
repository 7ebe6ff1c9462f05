"""What the FFmpeg of PyAV writes for ``--codec``, and which of the usual codecs it reads."""

from __future__ import annotations

from typing import Literal

import av

from .formats import ENCODERS

# codec -> its software decoders; FFmpeg's own av1 decodes on graphics cards only
DECODERS = {
    "h264": ("h264", "libopenh264"),
    "hevc": ("hevc",),
    "av1": ("libdav1d", "libaom-av1"),
    "vp9": ("vp9", "libvpx-vp9"),
    "prores": ("prores",),
    "ffv1": ("ffv1",),
}


def codecs() -> dict[str, str | dict[str, bool]]:
    """Version of libavcodec; whether each of our encoders and of the usual decoders is in it."""
    return {
        "version": ".".join(str(part) for part in av.library_versions["libavcodec"]),
        "encoders": {name: _known(name, "w") for name in ENCODERS},
        "decoders": {
            codec: any(_known(name, "r") for name in names) for codec, names in DECODERS.items()
        },
    }


def _known(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        return bool(av.Codec(name, mode).name == name)
    except ValueError:  # av.codec.codec.UnknownCodecError is one
        return False
