"""Checks of arguments that all ops share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import PluginError

KERNEL_DTYPES = ("float16", "bfloat16", "float32")
"""What the kernels take and give; they add up in float32."""

REFERENCE_DTYPES = (*KERNEL_DTYPES, "float64")
"""What the reference takes: float64 to check the others."""


def check_dtypes(op: str, dtypes: Mapping[str, str], allowed: Sequence[str]) -> str:
    """Check that all tensors have one type, and return it.

    Args:
        op: Name for the message.
        dtypes: Argument to numpy's name of its type.
        allowed: Names of the types that go.

    Raises:
        PluginError: A type does not go, or another argument has another type.
    """
    first, wanted = next(iter(dtypes.items()))
    for name, dtype in dtypes.items():
        if dtype not in allowed:
            raise PluginError(f"{op}: {name} is {dtype}, expected {', '.join(allowed)}")
        if dtype != wanted:
            raise PluginError(f"{op}: {name} is {dtype}, {first} is {wanted}; all must be equal")
    return wanted


def shown(shape: Sequence[int]) -> str:
    """``2×3×4``."""
    return "×".join(map(str, shape)) or "a scalar"
