"""Installed versions that do not get on with each other, found from plain facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...installation import IN_PARTS, ONNXRUNTIME, install, uninstall
from ..gpu_facts import DRIVER_FIXES, NEWER_DRIVER
from .findings import Finding, State


@dataclass(frozen=True)
class Facts:
    """What is installed, as far as versions can clash.

    Attributes:
        distributions: Package of pip to its version.
        failed_imports: Module that is installed to the error of its import.
        libraries: Soname to version of the libraries that load.
        driver: Version of CUDA that the driver speaks; empty without a driver.
        ort_cuda: Version of CUDA that ONNX Runtime was built for; empty for none.
        ort_tensorrt: The libnvinfer that ONNX Runtime's TensorRT provider is linked to.
        gpu: Whether there is an NVIDIA GPU; without one its libraries are of no use.
    """

    distributions: Mapping[str, str] = field(default_factory=dict)
    failed_imports: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""
    ort_cuda: str = ""
    ort_tensorrt: str = ""
    gpu: bool = True


_TENSORRT = re.compile(r"(tensorrt([-_]cu\d+)?)([-_](bindings|libs))?")
"""A package that is TensorRT or a part of it, by the name of what brings all parts. Not one of its
family, such as tensorrt_rtx and tensorrt_lean, nor one that uses it."""

_Clash = tuple[str, ...]
"""Name, detail, and what ends it, a line each."""


def clashes(facts: Facts) -> tuple[Finding, ...]:
    """Each clash with the line that ends it."""
    found = [*_two_onnxruntimes(facts)]
    if facts.gpu:
        found += [
            *_tensorrt_of_onnxruntime(facts),
            *_numpy_of_tensorrt(facts),
            *_cuda_of_driver(facts),
            *_pycuda_without_driver(facts),
            *_bindings_without_libraries(facts),
        ]
    return tuple(Finding(name, State.BROKEN, detail, (*fixes,)) for name, detail, *fixes in found)


def _two_onnxruntimes(facts: Facts) -> Iterator[_Clash]:
    both = ("onnxruntime", "onnxruntime-gpu")
    if all(name in facts.distributions for name in both):
        versions = " and ".join(f"{name} {facts.distributions[name]}" for name in both)
        yield (
            "two ONNX Runtimes",
            f"{versions} write into one folder: which of them runs is chance",
            f"{uninstall(*both)} && {install(ONNXRUNTIME)}",
        )


def _tensorrt_of_onnxruntime(facts: Facts) -> Iterator[_Clash]:
    """The provider is linked to one major version."""
    wanted = facts.ort_tensorrt
    others = [name for name in facts.libraries if name.startswith("libnvinfer.so.")]
    _, installed = _tensorrt(facts)
    major = wanted.rpartition(".")[2]
    if not wanted or wanted in facts.libraries or not (others or installed):
        return
    if not others and installed.partition(".")[0] == major:
        return  # its libraries are missing, which is said elsewhere
    here = f"TensorRT {installed}" if installed else ", ".join(others)
    cuda = facts.ort_cuda.partition(".")[0]
    yield (
        "ONNX Runtime and TensorRT",
        f"ONNX Runtime's tensorrt provider is linked to {wanted}, here is {here};"
        " --target tensorrt uses that one, --provider tensorrt cannot",
        install(f"tensorrt-cu{cuda}=={major}.*"),
    )


def _numpy_of_tensorrt(facts: Facts) -> Iterator[_Clash]:
    (_, tensorrt), numpy = _tensorrt(facts), facts.distributions.get("numpy", "")
    if tensorrt and numpy and _numbers(tensorrt) < (11,) and _numbers(numpy) >= (2, 4):
        yield (
            "TensorRT and numpy",
            f"the plugins of TensorRT {tensorrt} do not get on with numpy {numpy}",
            install("numpy<2.4"),
        )


def _cuda_of_driver(facts: Facts) -> Iterator[_Clash]:
    if not (facts.driver and facts.ort_cuda):
        return
    if _numbers(facts.driver)[0] < _numbers(facts.ort_cuda)[0]:
        yield (
            "ONNX Runtime and the driver",
            f"ONNX Runtime was built for CUDA {facts.ort_cuda}, the driver speaks {facts.driver}",
            NEWER_DRIVER,
        )


def _pycuda_without_driver(facts: Facts) -> Iterator[_Clash]:
    if "pycuda" in facts.distributions and not facts.driver:
        yield (
            "pycuda",
            f"pycuda {facts.distributions['pycuda']} is installed, but there is no driver for it",
            *DRIVER_FIXES,
        )


def _bindings_without_libraries(facts: Facts) -> Iterator[_Clash]:
    error = facts.failed_imports.get("tensorrt", "")
    package, installed = _tensorrt(facts)
    if not installed or "libnv" not in error:
        return
    yield (
        "TensorRT's libraries",
        f"the bindings of TensorRT {installed} are installed without their libraries: {error}",
        install(f"{package}=={installed}", options=IN_PARTS),
    )


def _tensorrt(facts: Facts) -> tuple[str, str]:
    """The package that brings all of the installed TensorRT, and its version; empty for none."""
    for name, version in sorted(facts.distributions.items()):  # what brings the others is first
        if found := _TENSORRT.fullmatch(name):
            return found[1].replace("_", "-"), version
    return "", ""


def _numbers(version: str) -> tuple[int, ...]:
    parts = (part for part in version.split("+")[0].split("."))
    return tuple(int(part) for part in parts if part.isdigit())
