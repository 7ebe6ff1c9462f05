"""OCA as a TensorRT plugin whose kernel is compiled ahead of time and travels in the engine."""

# No "from __future__ import annotations": tensorrt.plugin reads the annotations as types.

from typing import TypeAlias

import tensorrt.plugin as trtp

from .. import NAMESPACE
from ..compile import compile_kernel
from ..tensorrt_launch import (
    Kernel,
    constant,
    dtype_name,
    io_types,
    kernel_of,
    launch_parameters,
)
from . import PLUGINS
from .contract import check, check_for_kernel
from .kernel import programs, source

PLUGIN = f"{NAMESPACE}::{PLUGINS[0]}"
_Desc: TypeAlias = trtp.TensorDesc


def register(capability: str) -> None:
    """Register the plugin in this process.

    Args:
        capability: Of the GPU that engines are built for, ``8.6``.
    """

    def shapes(
        q: _Desc, k: _Desc, v: _Desc, bias: _Desc, window: int, overlap: int, heads: int
    ) -> _Desc:
        return q.like()

    def autotune(
        q: _Desc,
        k: _Desc,
        v: _Desc,
        bias: _Desc,
        window: int,
        overlap: int,
        heads: int,
        outputs: tuple[_Desc],
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(io_types("T", "T", "T", "T", "T"), "LINEAR", [])]

    def implement(
        q: _Desc,
        k: _Desc,
        v: _Desc,
        bias: _Desc,
        window: int,
        overlap: int,
        heads: int,
        outputs: tuple[_Desc],
        tactic: int,
    ) -> Kernel:
        n, height, width, channels = (q.shape_expr[axis] for axis in range(4))
        # N, H and W may be symbols: the kernel does not depend on them
        dense = (1, window, window, constant(channels, "channels of q"))
        table = tuple(constant(bias.shape_expr[axis], "table of biases") for axis in range(2))
        shape = check(dict.fromkeys("qkv", dense), table, window, overlap, heads)
        check_for_kernel(shape)
        dtype = dtype_name(q.dtype)
        kernel = compile_kernel(source(shape, dtype), capability)
        windows = trtp.cdiv(height, window) * trtp.cdiv(width, window)
        launch = launch_parameters(kernel, windows * programs(shape, dtype), n)
        return kernel_of(kernel, launch, [height, width, channels])

    trtp.register(PLUGIN)(shapes)
    trtp.autotune(PLUGIN)(autotune)
    trtp.aot_impl(PLUGIN)(implement)
