"""What is asked of this machine, where, and what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...installation import ONNXRUNTIME
from .apart import Answer

BASE: Mapping[str, str] = {
    "numpy": "numpy",
    "click": "click",
    "filelock": "filelock",
    "jinja2": "jinja2",
    "onnx": "onnx",
    "onnxruntime": ONNXRUNTIME,
    "av": "av",
    "PIL": "pillow",
    "rich": "rich",
    "safetensors": "safetensors",
}
"""Module to what pip calls it."""

MAIN = "main"


@dataclass(frozen=True)
class Extra:
    """A package that not everybody needs.

    Attributes:
        title: For people.
        extra: Of srdeploy, which brings it.
        process: Where it is asked: those of one name share a process.
        gpu: Whether it is for NVIDIA GPUs only.
    """

    title: str
    extra: str
    process: str = MAIN
    gpu: bool = False


# TensorRT and TensorRT-RTX may not be in one process. pycuda finds libraries there that other
# packages loaded, and would not find them alone.
EXTRAS: Mapping[str, Extra] = {
    "openvino": Extra("OpenVINO", "openvino"),
    "tensorrt": Extra("TensorRT for Python", "tensorrt", "tensorrt", gpu=True),
    "tensorrt_rtx": Extra("TensorRT-RTX", "tensorrt-rtx"),
    "pycuda.driver": Extra("pycuda", "cuda", "cuda", gpu=True),
    "cuda.bindings.driver": Extra("cuda-bindings", "cuda", "cuda", gpu=True),
    "torch": Extra("PyTorch", "torch"),
    "triton": Extra("Triton", "kernels", gpu=True),
}
"""Module to what it is."""

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "CUDA runtime": ("libcudart.so.13", "libcudart.so.12"),
    "cuDNN": ("libcudnn.so.9",),
    "TensorRT": ("libnvinfer.so.11", "libnvinfer.so.10"),
}
"""Shared libraries for NVIDIA GPUs: name for people to sonames, newest first."""


def extra_of(target: str) -> tuple[str, Extra | None]:
    """The package of a target, whose file is called as it: its module, and what it is."""
    module = target.replace("-", "_")
    return module, EXTRAS.get(module)


@dataclass(frozen=True)
class Answers:
    """All that was answered; what was not asked is not in it.

    Attributes:
        gpu: Whether there is an NVIDIA GPU.
        driver: Version of CUDA that the driver speaks.
        gpus: The GPUs with their memory.
        base: By module of :data:`BASE`.
        extras: By module of :data:`EXTRAS`.
        libraries: By soname.
        onnxruntime: Its version, and what it was built for.
        providers: What keeps its GPU providers from running, by name; nothing without a GPU.
        codecs: Encoders and decoders.
        targets: Ids of all targets; nothing where the base install is broken.
        selftests: By target, ``onnxruntime with cuda`` for one of its providers.
    """

    gpu: bool
    driver: Answer
    gpus: Answer
    base: Mapping[str, Answer]
    extras: Mapping[str, Answer]
    libraries: Mapping[str, Answer]
    onnxruntime: Answer
    providers: Answer
    codecs: Answer
    targets: Answer
    selftests: Mapping[str, Answer]
