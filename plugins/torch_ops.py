"""What the torch ops share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from ..errors import PluginError
from .arguments import KERNEL_DTYPES, REFERENCE_DTYPES, check_dtypes

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(op: Callable[P, R]) -> Callable[P, R]:
    """Run an op outside autocast, which would compute its float32 sums in 16 bits."""

    @wraps(op)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return op(*args, **kwargs)

    return run


def check_tensors(op: str, tensors: Mapping[str, Tensor]) -> None:
    """Check that all tensors have one type that goes, and are on one device.

    Raises:
        PluginError: One does not; it is named.
    """
    first, wanted = next(iter(tensors.items()))
    dtypes = {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}
    check_dtypes(op, dtypes, KERNEL_DTYPES if wanted.is_cuda else REFERENCE_DTYPES)
    for name, tensor in tensors.items():
        if tensor.device != wanted.device:
            raise PluginError(
                f"{op}: {name} is on {tensor.device}, {first} on {wanted.device}",
                "all tensors must be on one device",
            )


def accurate(x: Tensor) -> Tensor:
    """The tensor in the type that sums are in: float32, of float64 float64."""
    return x if x.dtype == torch.float64 else x.float()
