"""What a reader must know of a machine to believe its numbers."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..runtime import gpu_facts
from .recording import attempt

PACKAGES = (
    "torch",
    "triton",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
    "pycuda",
    "cuda-bindings",
    "numpy",
)
_QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,memory.total"


def facts() -> dict[str, Any]:
    """Date, processor, package versions and GPUs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "packages": dict(_versions(PACKAGES)),
        "gpus": attempt(lambda: [str(gpu) for gpu in gpu_facts.gpus()]),
        "nvidia_smi": nvidia_smi(),
    }


def nvidia_smi() -> dict[str, str]:
    """Driver, clocks and power limit as nvidia-smi tells them, or why it does not."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError as exc:
        told = f"nvidia-smi: {exc.strerror}"
    return {_QUERY: told.strip()}


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
