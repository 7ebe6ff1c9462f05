"""Compiles a CUDA driver with chosen answers, so that its real callers run without a GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("stub_driver.c")


def build_driver(
    folder: Path, init: int = 0, version: int = 13000, count: int = 2, retain: int = 0
) -> Path:
    """Compile ``libcuda.so.1`` into a folder of its own and return its path.

    Args:
        folder: Where to.
        init: What cuInit returns.
        version: What cuDriverGetVersion tells, 13000 for CUDA 13.0.
        count: Number of GPUs, at most 2.
        retain: What taking the primary context returns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libcuda.so.1"
    state = {"INIT": init, "VERSION": version, "COUNT": count, "RETAIN": retain}
    defines = [f"-D{name}={value}" for name, value in state.items()]
    command = ["cc", "-shared", "-fPIC", "-w", *defines, "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library
