"""What the TensorRT plugins share: types, symbolic sizes, and the form of a compiled kernel."""

# No "from __future__ import annotations": tensorrt.plugin reads the annotations as types.

from collections.abc import Sequence
from typing import Any

import tensorrt as trt
import tensorrt.plugin as trtp

from ..errors import PluginError
from .compiled import CompiledKernel

Kernel = tuple[str, str, trtp.KernelLaunchParams, trtp.SymExprs]
"""What ``aot_impl`` gives: name, PTX, launch, and scalars between inputs and outputs."""

LARGEST_SHARED_BYTES = 48 << 10
"""Shared memory that a GPU gives without being asked for more, which TensorRT may not do."""

_DTYPES = {trt.float16: "float16", trt.bfloat16: "bfloat16", trt.float32: "float32"}
_KINDS = "FP16|BF16|FP32"


def io_types(*kinds: str) -> str:
    """Types of inputs and outputs: ``T`` for the network's, all the same, or a fixed one."""
    times = _KINDS.count("|") + 1
    return ", ".join(_KINDS if kind == "T" else "|".join([kind] * times) for kind in kinds)


def dtype_name(dtype: trt.DataType) -> str:
    """numpy's name of a type.

    Raises:
        PluginError: No kernel is for it.
    """
    if dtype not in _DTYPES:
        raise PluginError(f"the plugins take {', '.join(_DTYPES.values())}, not {dtype}")
    return _DTYPES[dtype]


def constant(size: Any, what: str) -> int:
    """The number behind a size that the kernel is compiled for.

    Raises:
        PluginError: It is dynamic.
    """
    if not size.is_constant:
        raise PluginError(f"the {what} must not be dynamic: the kernel is compiled for it")
    return int(size.constant_value())


def launch_parameters(kernel: CompiledKernel, grid: Any, batch: Any) -> trtp.KernelLaunchParams:
    """A launch of (grid, batch) programs.

    Raises:
        PluginError: The kernel wants more shared memory than every launch has.
    """
    if kernel.shared_bytes > LARGEST_SHARED_BYTES:
        raise PluginError(
            f"{kernel.name} for compute capability {kernel.capability} wants"
            f" {kernel.shared_bytes} bytes of shared memory, a TensorRT plugin has"
            f" {LARGEST_SHARED_BYTES}",
            "build without the plugin: the op's body of standard operators is used then",
        )
    launch = trtp.KernelLaunchParams()
    launch.grid_x, launch.grid_y = grid, batch
    launch.block_x = kernel.threads
    launch.shared_mem = kernel.shared_bytes
    return launch


def kernel_of(
    kernel: CompiledKernel, launch: trtp.KernelLaunchParams, scalars: Sequence[Any]
) -> Kernel:
    """The answer of ``aot_impl``."""
    extra = trtp.SymIntExprs(len(scalars))
    for index, scalar in enumerate(scalars):
        extra[index] = trtp.SymInt32(scalar)
    return kernel.name, kernel.ptx, launch, extra
