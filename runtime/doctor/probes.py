"""What is asked in processes of their own; each returns plain values."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
from typing import Any

from .. import gpu_facts, shared_libraries


def package(module: str) -> dict[str, str]:
    """Import a package: its version and folder; empty where it is not installed."""
    top = module.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        return {}
    if importlib.util.find_spec(module) is None:
        return {}
    imported = importlib.import_module(module)
    version = getattr(imported, "__version__", "") or _version_of(top)
    return {"version": str(version), "path": str(getattr(imported, "__file__", "") or "")}


def _version_of(top: str) -> str:
    for name in importlib.metadata.packages_distributions().get(top, []):
        return importlib.metadata.version(name)
    return ""


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


def onnxruntime() -> dict[str, Any]:
    """ONNX Runtime, and of each GPU provider what keeps it from running."""
    session = importlib.import_module(f"{_package()}.runtime.onnx_session")
    providers = importlib.import_module(f"{_package()}.runtime.execution_providers")
    installed = session.installed()
    found = {name: providers.problems(installed, name) for name in providers.PROVIDERS}
    linked = installed.folder / providers.PROVIDERS["tensorrt"].library
    sonames = shared_libraries.needed(linked) if linked.is_file() else ()
    return {
        "version": installed.version,
        "cuda": installed.cuda,
        "tensorrt": next((s for s in sonames if s.startswith("libnvinfer.so.")), ""),
        "providers": found,
    }


def _package() -> str:
    return __package__.removesuffix(".runtime.doctor")


def target_names() -> list[str]:
    """Ids of all targets."""
    targets = importlib.import_module(f"{_package()}.runtime.targets")
    return list(targets.target_names())
