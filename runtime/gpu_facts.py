"""The NVIDIA GPUs of this machine, asked of the driver itself: needs ctypes and nothing else.

What is known of a GPU must not depend on a package that is missing, as that is what is to be
said. The calls are those of the CUDA driver API, of which every driver since CUDA 3.2 has all.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import TargetUnavailable
from ..spec import Gpu

DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

# of CUresult and CUdevice_attribute in cuda.h
_NO_DEVICE, _OUT_OF_RANGE = 100, 101
_MAJOR, _MINOR = 75, 76

_GET_DRIVER = (
    "sudo ubuntu-drivers install",
    "elsewhere than on Ubuntu: https://www.nvidia.com/drivers",
)
DRIVER_FIXES = (*_GET_DRIVER, "a container sees it when it is started with --gpus all")
NEWER_DRIVER = "; ".join(_GET_DRIVER)
INSTALL_DRIVER = "; ".join(DRIVER_FIXES)
_HINTS = {
    34: "a stub of the CUDA toolkit was loaded: take its folder 'stubs' out of LD_LIBRARY_PATH",
    35: NEWER_DRIVER,
    46: "another process holds the GPU for itself alone: nvidia-smi shows which",
    _NO_DEVICE: "nvidia-smi lists the GPUs; the variable CUDA_VISIBLE_DEVICES may hide them",
    802: "start NVIDIA's fabric manager: sudo systemctl start nvidia-fabricmanager",
    803: "the driver was updated under a running kernel: restart the machine",
    804: "take the folder of CUDA's compatibility libraries out of LD_LIBRARY_PATH",
    999: "load the driver's kernel module: sudo modprobe nvidia_uvm; else restart the machine",
}


def gpus() -> tuple[Gpu, ...]:
    """All GPUs that CUDA sees, in its order; at least one.

    Raises:
        TargetUnavailable: There is no driver, no GPU, or the driver fails.
    """
    library = _driver()
    driver = _version(library)
    return tuple(_gpu(library, index, driver) for index in range(_count(library)))


def hardware(root: Path = Path("/")) -> bool:
    """Whether Linux sees an NVIDIA GPU in this machine, with a driver or without.

    Args:
        root: The folder that has ``sys``, ``dev`` and ``proc``.
    """
    # what the kernel's driver makes; WSL has no PCI, but a device for all GPUs of Windows
    made = (*(root / "dev").glob("nvidia*"), root / "proc/driver/nvidia", root / "dev/dxg")
    if any(path.exists() for path in made):
        return True
    return any(map(_is_nvidia_gpu, (root / "sys/bus/pci/devices").glob("*")))


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    # PCI's numbers: NVIDIA, and the class of displays, of which GPUs without a plug are too
    return vendor == "0x10de" and kind.startswith("0x03")


def driver_problem(needed: str = "") -> str | None:
    """What keeps CUDA from being used here, or None.

    Args:
        needed: Least version of CUDA that the driver must speak, ``13.0``.
    """
    try:
        driver = gpus()[0].driver
    except TargetUnavailable as exc:
        return exc.message
    if needed and _numbers(driver) < _numbers(needed):
        return f"the driver speaks CUDA {driver}, needed is {needed}"
    return None


def driver_version() -> str:
    """Version of CUDA that the driver speaks, ``13.0``; known without a GPU too.

    Raises:
        TargetUnavailable: There is no driver.
    """
    return _version(_load())


def total_memory(index: int = 0) -> int:
    """Memory of a GPU, bytes.

    Raises:
        TargetUnavailable: There is no such GPU, or no driver.
    """
    library = _driver()
    size = ctypes.c_size_t()
    _check(library, library.cuDeviceTotalMem_v2(ctypes.byref(size), _device(library, index)))
    return size.value


def free_memory(index: int = 0) -> int:
    """Memory of a GPU that nothing uses at this moment, bytes.

    It takes a context for the question, some hundred MB of memory that counts as used.

    Raises:
        TargetUnavailable: There is no such GPU, or no driver.
    """
    library = _driver()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _context(library, _device(library, index)):
        _check(library, library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    return free.value


def _load() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as exc:
        raise TargetUnavailable(f"there is no NVIDIA driver: {exc}", INSTALL_DRIVER) from exc


def _driver() -> ctypes.CDLL:
    """The driver, initialised, with a GPU at least."""
    library = _load()
    _check(library, library.cuInit(0))
    if not _count(library):
        raise _refusal(library, _NO_DEVICE)
    return library


def _count(library: ctypes.CDLL) -> int:
    count = ctypes.c_int()
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)))
    return count.value


def _version(library: ctypes.CDLL) -> str:
    number = ctypes.c_int()
    _check(library, library.cuDriverGetVersion(ctypes.byref(number)))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _device(library: ctypes.CDLL, index: int) -> ctypes.c_int:
    device = ctypes.c_int()
    result = library.cuDeviceGet(ctypes.byref(device), index)
    if result == _OUT_OF_RANGE:
        raise TargetUnavailable(
            f"there is no GPU {index}, the first is 0", "nvidia-smi -L lists the GPUs"
        )
    _check(library, result)
    return device


def _gpu(library: ctypes.CDLL, index: int, driver: str) -> Gpu:
    device = _device(library, index)
    name = ctypes.create_string_buffer(256)
    _check(library, library.cuDeviceGetName(name, len(name), device))
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        _check(library, library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
        numbers.append(str(number.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(numbers), driver)


@contextmanager
def _context(library: ctypes.CDLL, device: ctypes.c_int) -> Iterator[None]:
    """The device's primary context, current in this thread."""
    context = ctypes.c_void_p()
    _check(library, library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    try:
        _check(library, library.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)


def _check(library: ctypes.CDLL, result: int) -> None:
    if result:
        raise _refusal(library, result)


def _refusal(library: ctypes.CDLL, result: int) -> TargetUnavailable:
    hint = _HINTS.get(result, "nvidia-smi shows the state of the GPU and its driver")
    if result == _NO_DEVICE:
        return TargetUnavailable("the driver is here, but it sees no NVIDIA GPU", hint)
    text = ctypes.c_char_p()
    if library.cuGetErrorString(result, ctypes.byref(text)) or text.value is None:
        return TargetUnavailable(f"the NVIDIA driver fails with error {result}", hint)
    reason = text.value.decode(errors="replace")
    return TargetUnavailable(f"the NVIDIA driver fails with error {result}: {reason}", hint)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
