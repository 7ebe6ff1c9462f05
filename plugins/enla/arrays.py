"""The ENLA kernels on numpy arrays, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import KERNEL_DTYPES, check_dtypes
from ..compile import compile_kernel
from ..compiled import Launcher
from . import kernel
from .contract import check, check_for_kernels

Array = NDArray[Any]


def enla(gpu: Launcher, q: Array, k: Array, v: Array, projection: Array, eps: float) -> Array:
    """Compute ``srdeploy::enla`` on a GPU; arguments as of the torch op.

    The chunks are added on the CPU, in their order.

    Raises:
        PluginError: An argument is out of range; nothing is launched then.
    """
    arrays = {"q": q, "k": k, "v": v, "projection": projection}
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    dtype = check_dtypes("enla", dtypes, KERNEL_DTYPES)
    shape = check(q.shape, k.shape, v.shape, projection.shape, eps)
    check_for_kernels(shape)
    first = compile_kernel(kernel.context_source(shape, eps, dtype), gpu.capability)
    second = compile_kernel(kernel.apply_source(shape, eps, dtype, gpu.capability), gpu.capability)
    rows, features = shape.channels + 1, shape.features
    sums = np.empty((shape.batch, kernel.chunks(shape), rows, features), np.float32)
    gpu.run(first, kernel.context_grid(shape), (k, v, projection, shape.pixels, sums), (sums,))
    context = sums.sum(1)
    out = np.empty(v.shape, v.dtype)
    arguments = (q, projection, context, shape.pixels, out)
    gpu.run(second, kernel.apply_grid(shape, dtype, gpu.capability), arguments, (out,))
    return out
