"""Triton arithmetic that the kernels share."""

from __future__ import annotations

import triton
import triton.language as tl

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b):
    """Matrix product with float32 sums; float32 operands are not rounded.

    The interpreter of Triton 3.7 to 3.9 multiplies the codes of bfloat16 as integers. In
    float32 it gets what the hardware does: products of two 16-bit floats are exact there.
    """
    if _INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def dot_tf32(a, b):
    """Matrix product of float32 operands that :func:`to_tf32` has rounded, float32 sums."""
    return tl.dot(a, b, input_precision="tf32")


@triton.jit
def to_tf32(x):
    """Round float32 to the 10 bits of mantissa that TF32 has, halves away from zero.

    The hardware cuts the other bits off, which makes every operand smaller on average; rounded
    before, nothing is left to cut, and the interpreter computes what the hardware does.
    """
    bits = x.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)  # not what is no number: its bits might become one


@triton.jit
def to_type(x, kind):
    """Convert float32 to a 16-bit type, to the nearest, ties to even; float32 stays.

    The interpreter of Triton 3.7 to 3.9 cuts bits off on the way to bfloat16; rounded before,
    there is nothing to cut. The kernels' numbers are finite.
    """
    if _INTERPRETED and kind == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = bits.to(tl.float32, bitcast=True)
    return x.to(kind)
