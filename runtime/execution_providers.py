"""The execution providers of ONNX Runtime on NVIDIA GPUs, and what they need.

ONNX Runtime lists a provider that it was built with, and where a library of it is missing it
prints a line and runs on the CPU. So what a provider needs is looked for before a session is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import TargetUnavailable
from ..installation import install, uninstall
from ..spec import Gpu
from . import gpu_facts, shared_libraries

CPU = "cpu"


@dataclass(frozen=True)
class Provider:
    """An execution provider for NVIDIA GPUs.

    Attributes:
        title: What ONNX Runtime calls it.
        library: Its file, beside ONNX Runtime's own.
        opens: Sonames that it opens by itself, by their beginning.
    """

    title: str
    library: str
    opens: tuple[str, ...]


PROVIDERS: Mapping[str, Provider] = {
    # convolutions are cuDNN's; since 1.31 it is opened when the first is made
    "cuda": Provider(
        "CUDAExecutionProvider", "libonnxruntime_providers_cuda.so", ("libcudnn.so.9",)
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider", "libonnxruntime_providers_tensorrt.so", ("libcudnn.so.9",)
    ),
}


@dataclass(frozen=True)
class OnnxRuntime:
    """An installed ONNX Runtime.

    Attributes:
        folder: Where its libraries are.
        version: Of ONNX Runtime.
        cuda: Version of CUDA that it was built for; empty for none.
    """

    folder: Path
    version: str
    cuda: str


def require(installed: OnnxRuntime, name: str, device: int = 0) -> Gpu:
    """The GPU that a provider runs on.

    Raises:
        TargetUnavailable: It cannot run here; says all that is missing and what brings it.
    """
    what = f"ONNX Runtime {installed.version} cannot use its {name} provider"
    if found := problems(installed, name):
        causes, fixes = (dict.fromkeys(part) for part in zip(*found, strict=True))
        raise TargetUnavailable(f"{what}: {'; '.join(causes)}", "; ".join(fixes))
    gpus = gpu_facts.gpus()
    if device >= len(gpus):
        raise TargetUnavailable(
            f"{what}: there is no GPU {device}, this machine has {len(gpus)}",
            "nvidia-smi -L lists the GPUs",
        )
    return gpus[device]


def problems(installed: OnnxRuntime, name: str) -> tuple[tuple[str, str], ...]:
    """What keeps a provider from running here, each with what to do about it."""
    provider = PROVIDERS[name]
    library = installed.folder / provider.library
    if not library.is_file():
        if os.name != "posix":  # the files have other names there, and say nothing to us
            return _driver_problems(installed.cuda)
        # both write into one folder: what goes with the first would be missing in the second
        fix = f"{uninstall('onnxruntime', 'onnxruntime-gpu')} && {install('onnxruntime-gpu')}"
        return (("it was built without", fix),)
    missing = shared_libraries.load_needed(library, provider.opens)
    absent = [name for name in missing if name != "libcuda.so.1"]  # the driver's own
    groups: dict[str, list[str]] = {}
    for soname in absent:
        groups.setdefault(_brings(soname, installed), []).append(soname)
    lacking = ((f"{', '.join(sonames)} missing", fix) for fix, sonames in groups.items())
    return (*_driver_problems(installed.cuda), *lacking)


def _driver_problems(cuda: str) -> tuple[tuple[str, str], ...]:
    try:
        gpu_facts.gpus()
    except TargetUnavailable as exc:
        return ((exc.message, exc.hint),)
    # libraries of a CUDA run on every driver of the same major version
    if problem := gpu_facts.driver_problem(f"{cuda.partition('.')[0]}.0" if cuda else ""):
        return ((problem, gpu_facts.NEWER_DRIVER),)
    return ()


def _brings(soname: str, installed: OnnxRuntime) -> str:
    """The line that installs a library."""
    stem, _, version = soname.partition(".so.")
    if stem.startswith("libnv") and stem != "libnvrtc":  # libnvinfer, libnvonnxparser
        return install(f"tensorrt-cu{installed.cuda.partition('.')[0]}=={version}.*")
    if stem.startswith(("libcu", "libnvrtc")):
        return install(f"onnxruntime-gpu[cuda,cudnn]=={installed.version}")
    return f"install the package of your distribution that has {soname}"
