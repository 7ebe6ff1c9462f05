"""The OCA kernel on numpy arrays, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import KERNEL_DTYPES, check_dtypes
from ..compile import compile_kernel
from ..compiled import Launcher
from . import kernel
from .contract import check, check_for_kernel

Array = NDArray[Any]


def oca(
    gpu: Launcher,
    q: Array,
    k: Array,
    v: Array,
    bias: Array,
    window: int,
    overlap: int,
    heads: int,
) -> Array:
    """Compute ``srdeploy::oca`` on a GPU; arguments as of the torch op.

    Raises:
        PluginError: An argument is out of range; nothing is launched then.
    """
    arrays = {"q": q, "k": k, "v": v, "bias": bias}
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    dtype = check_dtypes("oca", dtypes, KERNEL_DTYPES)
    shape = check({"q": q.shape, "k": k.shape, "v": v.shape}, bias.shape, window, overlap, heads)
    check_for_kernel(shape)
    compiled = compile_kernel(kernel.source(shape, dtype), gpu.capability)
    out = np.empty(q.shape, q.dtype)
    sizes = (shape.height, shape.width, shape.channels)
    gpu.run(compiled, kernel.grid(shape, dtype), (q, k, v, bias, *sizes, out), (out,))
    return out
