"""ENLA as two TensorRT plugins, one for each kernel; the sum between them is TensorRT's own."""

# No "from __future__ import annotations": tensorrt.plugin reads the annotations as types.

from typing import TypeAlias

import tensorrt as trt
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
from .contract import EnlaShape, check, check_for_kernels
from .kernel import (
    CHUNK_PIXELS,
    apply_pixels,
    apply_programs,
    apply_source,
    context_programs,
    context_source,
)

CONTEXT, APPLY = (f"{NAMESPACE}::{name}" for name in PLUGINS)
_Desc: TypeAlias = trtp.TensorDesc


def register(capability: str) -> None:
    """Register both plugins in this process.

    Args:
        capability: Of the GPU that engines are built for, ``8.6``.
    """

    def context_shapes(k: _Desc, v: _Desc, projection: _Desc, eps: float) -> _Desc:
        chunks = trtp.cdiv(k.shape_expr[2] * k.shape_expr[3], CHUNK_PIXELS)
        n, rows, features = k.shape_expr[0], v.shape_expr[1] + 1, projection.shape_expr[0]
        return trtp.from_shape_expr((n, chunks, rows, features), trt.float32)

    def context_autotune(
        k: _Desc, v: _Desc, projection: _Desc, eps: float, outputs: tuple[_Desc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(io_types("T", "T", "T", "FP32"), "LINEAR", [])]

    def context_implement(
        k: _Desc, v: _Desc, projection: _Desc, eps: float, outputs: tuple[_Desc], tactic: int
    ) -> Kernel:
        channels = constant(v.shape_expr[1], "channels of v")
        shape = _shape(k, channels, projection, eps)
        kernel = compile_kernel(context_source(shape, eps, dtype_name(k.dtype)), capability)
        pixels = k.shape_expr[2] * k.shape_expr[3]
        grid = trtp.cdiv(pixels, CHUNK_PIXELS) * context_programs(shape)
        return kernel_of(kernel, launch_parameters(kernel, grid, k.shape_expr[0]), [pixels])

    def apply_shapes(q: _Desc, projection: _Desc, context: _Desc, eps: float) -> _Desc:
        out = q.like()
        out.shape_expr[1] = context.shape_expr[1] - 1
        return out

    def apply_autotune(
        q: _Desc, projection: _Desc, context: _Desc, eps: float, outputs: tuple[_Desc]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(io_types("T", "T", "FP32", "T"), "LINEAR", [])]

    def apply_implement(
        q: _Desc, projection: _Desc, context: _Desc, eps: float, outputs: tuple[_Desc], tactic: int
    ) -> Kernel:
        channels = constant(context.shape_expr[1], "rows of the context") - 1
        shape = _shape(q, channels, projection, eps)
        dtype = dtype_name(q.dtype)
        kernel = compile_kernel(apply_source(shape, eps, dtype, capability), capability)
        pixels = q.shape_expr[2] * q.shape_expr[3]
        grid = trtp.cdiv(pixels, apply_pixels(dtype, capability)) * apply_programs(shape)
        return kernel_of(kernel, launch_parameters(kernel, grid, q.shape_expr[0]), [pixels])

    for plugin, *functions in (
        (CONTEXT, context_shapes, context_autotune, context_implement),
        (APPLY, apply_shapes, apply_autotune, apply_implement),
    ):
        shapes, autotune, implement = functions
        trtp.register(plugin)(shapes)
        trtp.autotune(plugin)(autotune)
        trtp.aot_impl(plugin)(implement)


def _shape(embedding: _Desc, channels: int, projection: _Desc, eps: float) -> EnlaShape:
    """What the kernels depend on; not the batch and the size, which may be symbols."""
    embedded = constant(embedding.shape_expr[1], "channels of q and k")
    table = tuple(constant(projection.shape_expr[axis], "projection") for axis in range(2))
    one = (1, embedded, 1, 1)
    shape = check(one, one, (1, channels, 1, 1), table, eps)
    check_for_kernels(shape)
    return shape
