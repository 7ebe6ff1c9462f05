"""The probe of PyAV, apart from the others as their file is imported without it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..video.codecs import codec_facts, ffmpeg_version


def codecs() -> dict[str, Any]:
    """What FFmpeg decodes and encodes here, as plain values."""
    facts = {codec: dataclasses.asdict(found) for codec, found in codec_facts().items()}
    return {"version": ffmpeg_version(), "codecs": facts}
