"""Runs the ENLA kernels on torch tensors.

They lie on a GPU, or on the CPU where the environment variable ``TRITON_INTERPRET`` was 1 when
Triton was imported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import kernel
from .contract import EnlaShape, check_for_kernels


def launch(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float, shape: EnlaShape
) -> Tensor:
    """Attend; arguments as of :func:`~srdeploy.plugins.enla.op.enla`, checked by it.

    Raises:
        PluginError: The kernels cannot take so many channels or features.
    """
    check_for_kernels(shape)
    q, k, v, projection = (t.contiguous() for t in (q, k, v, projection))
    dtype = str(q.dtype).removeprefix("torch.")
    capability = "{}.{}".format(*torch.cuda.get_device_capability(q.device)) if q.is_cuda else ""
    sums = q.new_empty(
        (shape.batch, kernel.chunks(shape), shape.channels + 1, shape.features),
        dtype=torch.float32,
    )
    out = v.new_empty(v.shape)
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call] # Triton launches on the current one
        kernel.enla_context_kernel[kernel.context_grid(shape)](
            k,
            v,
            projection,
            shape.pixels,
            sums,
            **kernel.context_constants(shape, eps),
            num_warps=kernel.WARPS,
            num_stages=kernel.CONTEXT_STAGES,
        )
        kernel.enla_apply_kernel[kernel.apply_grid(shape, dtype, capability)](
            q,
            projection,
            sums.sum(1),
            shape.pixels,
            out,
            **kernel.apply_constants(shape, eps, dtype, capability),
            num_warps=kernel.WARPS,
            num_stages=kernel.APPLY_STAGES,
        )
    return out
