"""What Linux tells of the processor."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def processor_fields(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Fields of the first processor, such as ``model name`` and ``flags``; empty elsewhere."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def machine() -> str:
    """What times of engines on this machine hang on, in words."""
    name = processor_fields().get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} threads"
