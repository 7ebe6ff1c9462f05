"""What is asked in processes apart from this one; each returns plain values."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import gpu_facts, shared_libraries
from ..execution_providers import PROVIDERS, problems


def package(module: str) -> dict[str, str]:
    """Import a package: its version and folder; empty where it is not installed."""
    if not _installed(module):
        return {}
    imported = importlib.import_module(module)
    return {"version": _version_of(module), "path": str(getattr(imported, "__file__", "") or "")}


def torch() -> dict[str, str]:
    """What :func:`package` gives of PyTorch, whose import takes longer than all else together.

    Its extension module is loaded instead, and with it all of its libraries. Where that fails,
    the import has its say, as it looks for libraries in more places than the loader does.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return package("torch")
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    files = [Path(spec.origin).with_name(f"_C{suffix}") for suffix in suffixes]
    try:
        ctypes.CDLL(str(next(file for file in files if file.is_file())))
        version = importlib.metadata.version("torch")
    except (OSError, StopIteration, importlib.metadata.PackageNotFoundError):
        return package("torch")
    return {"version": version, "path": spec.origin, "checked": "its libraries load"}


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False


def _version_of(module: str) -> str:
    """As the module says it itself, or the package that it is in, or pip of that."""
    name = module
    while name:
        if version := getattr(sys.modules[name], "__version__", ""):
            return str(version)
        name = name.rpartition(".")[0]
    top = module.partition(".")[0]
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, [])
        return next((importlib.metadata.version(name) for name in names), "")


def gpus() -> list[dict[str, Any]]:
    """All GPUs with their memory in bytes.

    Raises:
        TargetUnavailable: There is no driver or no GPU.
    """
    return [
        {
            "name": gpu.name,
            "capability": gpu.capability,
            "driver": gpu.driver,
            "total": gpu_facts.total_memory(index),
            "free": gpu_facts.free_memory(index),
        }
        for index, gpu in enumerate(gpu_facts.gpus())
    ]


def driver() -> str:
    """Version of CUDA that the driver speaks.

    Raises:
        TargetUnavailable: There is no driver.
    """
    return gpu_facts.driver_version()


def library(soname: str) -> dict[str, str]:
    """Load a library: its version as it says it itself, and where it lies; empty without it."""
    if not shared_libraries.load(soname):
        return {}
    loaded = ctypes.CDLL(soname)
    path = shared_libraries.path_of(soname)
    return {"version": _library_version(loaded), "path": str(path or "")}


def _library_version(loaded: ctypes.CDLL) -> str:
    """Each of the libraries has a function of its own for it."""
    if hasattr(loaded, "cudaRuntimeGetVersion"):
        number = ctypes.c_int()
        loaded.cudaRuntimeGetVersion(ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"
    if hasattr(loaded, "cudnnGetVersion"):
        return _dotted(int(loaded.cudnnGetVersion()))
    if hasattr(loaded, "getInferLibVersion"):
        return _dotted(int(loaded.getInferLibVersion()))
    return ""


def _dotted(number: int) -> str:
    """``101601`` as 10.16.1 and ``91002`` as 9.10.2: two digits each from the right."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def onnxruntime() -> dict[str, str]:
    """ONNX Runtime's version, its CUDA's, and the libnvinfer that it is linked to."""
    installed = _onnx_session().installed()
    linked = installed.folder / PROVIDERS["tensorrt"].library
    sonames = shared_libraries.needed(linked) if linked.is_file() else ()
    return {
        "version": installed.version,
        "cuda": installed.cuda,
        "tensorrt": next((s for s in sonames if s.startswith("libnvinfer.so.")), ""),
    }


def providers() -> dict[str, tuple[tuple[str, str], ...]]:
    """What keeps each of ONNX Runtime's GPU providers from running, and what to do about it."""
    installed = _onnx_session().installed()
    return {name: problems(installed, name) for name in PROVIDERS}


def _onnx_session() -> ModuleType:
    """Imported when it is asked for: ONNX Runtime may not be there."""
    return importlib.import_module(f"{_package()}.runtime.onnx_session")


def _package() -> str:
    return __package__.removesuffix(".runtime.doctor")


def target_names() -> list[str]:
    """Ids of all targets."""
    targets = importlib.import_module(f"{_package()}.runtime.targets")
    return list(targets.target_names())
