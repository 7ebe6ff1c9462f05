"""Backends, networks, frames and engines that the tests of GPUs share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from srdeploy import data
from srdeploy.bench.built import Backend, Engine
from srdeploy.bench.subject import Subject, load_subject
from srdeploy.errors import OutOfDeviceMemory, TargetUnavailable
from srdeploy.export.pixels import with_pixels
from srdeploy.models import all_variants
from srdeploy.runtime import gpu_facts
from srdeploy.runtime.session import Frames
from srdeploy.runtime.store import EngineStore
from srdeploy.spec import Precision, ShapeRange, TensorRtOptions
from srdeploy.validate.resize import shrink

CPU = "onnxruntime"
ON_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime:cuda")
BACKENDS: list[Any] = [CPU, *(pytest.param(name, marks=pytest.mark.gpu) for name in ON_GPU)]
TINY = [variant.name for _, variant in all_variants() if variant.tiny]
SMALLEST = "vapsr-tiny-x4"
SHAPES = ShapeRange((16, 16), (40, 56), (128, 128))

subject = cache(load_subject)


def cases(names: list[str], smallest: str) -> list[Any]:
    """(backend, name): all on the GPU's backends; of those on the CPU's all but one are slow."""
    on_cpu = [
        pytest.param(CPU, name, marks=[] if name == smallest else pytest.mark.slow)
        for name in names
    ]
    on_gpu = itertools.product(ON_GPU, names)
    return [*on_cpu, *(pytest.param(*case, marks=pytest.mark.gpu) for case in on_gpu)]


def open_backend(name: str, store: EngineStore) -> Backend:
    """A backend that runs here; skips with the reason where it does not."""
    try:
        backend = Backend.named(name, store)
    except TargetUnavailable as exc:
        pytest.skip(f"{name}: {exc.message}")
    if reason := backend.target.runs_here():
        pytest.skip(f"{name}: {reason}")
    if name == "tensorrt-rtx":
        from srdeploy.runtime.targets.tensorrt_rtx import known_capabilities

        gpu = gpu_facts.gpus()[0]
        if gpu.capability not in known_capabilities():
            pytest.skip(f"{name}: it has no kernels for {gpu}")
    return backend


def engine_of(
    backend: Backend,
    name: str,
    precision: Precision,
    *profiles: ShapeRange,
    options: TensorRtOptions | None = None,
) -> Engine:
    """A tiny network's engine, by default for :data:`SHAPES`."""
    made: Subject = subject(name)
    lowered, rest = made.lowered(backend.target, precision)
    return backend.build(
        with_pixels(lowered), made.spec, precision, rest, profiles or [SHAPES], options
    )


@cache
def pairs(scale: int) -> list[tuple[Frames, Frames]]:
    """A piece of each bundled proof picture: LR of 1×40×56×3, and HR."""
    made = []
    for picture in data.pictures("proof"):
        pixels = picture.read()
        top, left = (pixels.shape[0] - 40 * scale) // 2, (pixels.shape[1] - 56 * scale) // 2
        hr = pixels[top : top + 40 * scale, left : left + 56 * scale]
        made.append((shrink(hr, scale)[None], hr[None]))
    return made


def noise(count: int, height: int, width: int) -> list[Frames]:
    """Frames that differ."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, height, width, 3), np.uint8) for _ in range(count)]


def memory_in_use(backend: Backend) -> int:
    """Bytes of the GPU that are not free; for a backend of the CPU those of this process."""
    if backend.device == "cuda":
        return gpu_facts.total_memory() - gpu_facts.free_memory()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def device_filled(leaving: int) -> Iterator[None]:
    """Take the GPU's memory but for about so many bytes."""
    from srdeploy.runtime.cuda import CudaDevice, CudaMemory  # needs a driver to be imported

    device = CudaDevice(0)
    blocks: list[CudaMemory] = []
    size = 1 << 30
    try:
        with device.current():
            while size >= leaving // 4:
                try:
                    while gpu_facts.free_memory() - size >= leaving:
                        blocks.append(device.allocate(size))
                except OutOfDeviceMemory:
                    pass  # fragmented: smaller blocks may fit
                size //= 2
        yield
    finally:
        with device.current():
            for block in blocks:
                block.free()
        device.close()
