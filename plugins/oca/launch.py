"""Runs the OCA kernel on torch tensors.

They lie on a GPU, or on the CPU where the environment variable ``TRITON_INTERPRET`` was 1 when
Triton was imported.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import kernel
from .contract import OcaShape, check_for_kernel


def launch(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, shape: OcaShape) -> Tensor:
    """Attend; arguments as of :func:`~srdeploy.plugins.oca.op.oca`, checked by it.

    Args:
        q: Queries, N×H×W×C; thirds of one N×H×W×3C map are taken as they lie.
        k: Keys.
        v: Values.
        bias: Table of position biases.
        shape: What the check returned.

    Raises:
        PluginError: The heads are too wide for the kernel.
    """
    check_for_kernel(shape)
    maps = (q, k, v)
    pitch = q.stride(2)
    rows = (shape.height * shape.width * pitch, shape.width * pitch, pitch, 1)
    if any(t.stride() != rows for t in maps):
        q, k, v = (t.contiguous() for t in maps)
        pitch = shape.channels
    out = q.new_empty(q.shape)
    dtype = str(q.dtype).removeprefix("torch.")
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call] # Triton launches on the current one
        kernel.oca_kernel[kernel.grid(shape, dtype)](
            q,
            k,
            v,
            bias.contiguous(),
            shape.height,
            shape.width,
            pitch,
            out,
            **kernel.constants(shape, dtype),
            num_warps=kernel.WARPS,
            num_stages=kernel.STAGES,
        )
    return out
