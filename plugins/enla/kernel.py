"""ENLA in Triton: two kernels, with a sum of the chunks between them.

The first adds up [V, 1]·φ(K)ᵀ over chunks of pixels, one program a chunk and some channels of
V; the chunks are added in a fixed order afterwards, so that the result is the same in every
run. The second multiplies the sums by φ(Q). φ is never stored. Features and sums are float32;
where the maps are 16-bit, the products of features are TF32.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..arithmetic import dot, dot_tf32, to_tf32, to_type
from ..compile import TRITON_TYPES, KernelSource
from .contract import LARGEST_EMBEDDING, EnlaShape

CHUNK_PIXELS = 1024
"""Of a chunk: few enough for many programs, many enough that their sums are little data."""

# The operands of a product lie in at most 48 KiB of shared memory, which every GPU gives
# without being asked for more.
LARGEST_BLOCK_C = 128
LARGEST_BLOCK_M = 64
WARPS = 4
CONTEXT_STAGES = 2
APPLY_STAGES = 1

# The random features are exp(Fx - |x|²/2) + ε; the published factor 1/√m cancels.


@triton.jit
def _features(maps, frame, pixel, is_pixel, f, pixels, EMBEDDED, EPS, BLOCK_E):
    """φ of some pixels, features×pixels float32; ``f`` is features×BLOCK_E."""
    channel = tl.arange(0, BLOCK_E)
    x = tl.load(
        maps + (frame * EMBEDDED + channel[:, None]) * pixels + pixel[None, :],
        mask=(channel < EMBEDDED)[:, None] & is_pixel[None, :],
        other=0.0,
    )
    x_float = x.to(tl.float32)
    return tl.exp(dot(f, x) - tl.sum(x_float * x_float, 0)[None, :] * 0.5) + EPS


@triton.jit
def _projection(projection, row, FEATURES, EMBEDDED, BLOCK_E):
    """Some rows of F, rows×BLOCK_E, zeros around it."""
    column = tl.arange(0, BLOCK_E)
    return tl.load(
        projection + row[:, None] * EMBEDDED + column[None, :],
        mask=(row < FEATURES)[:, None] & (column < EMBEDDED)[None, :],
        other=0.0,
    )


@triton.jit
def enla_context_kernel(
    k,
    v,
    projection,
    pixels,
    sums,
    EMBEDDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    FEATURES: tl.constexpr,
    EPS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Add up [V, 1]·φ(K)ᵀ over a chunk of pixels, for some channels of V and some features.

    Args:
        k: Keys, N×c×pixels.
        v: Values, N×C×pixels.
        projection: F, m×c.
        pixels: H·W.
        sums: Float32 N×chunks×(C + 1)×m.
        EMBEDDED: c.
        CHANNELS: C.
        FEATURES: m.
        EPS: Added to each exponential.
        CHUNK: Pixels of a chunk, a multiple of BLOCK_P.
        BLOCK_C: Channels of V of a program, a power of two.
        BLOCK_E: At least c, a power of two.
        BLOCK_M: Features of a program, a power of two.
        BLOCK_P: Pixels at a time, a power of two.

    The grid is (chunks · blocks of channels · blocks of features, N).
    """
    BLOCKS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    FEATURE_BLOCKS: tl.constexpr = (FEATURES + BLOCK_M - 1) // BLOCK_M
    place = tl.program_id(0)
    feature = (place % FEATURE_BLOCKS) * BLOCK_M + tl.arange(0, BLOCK_M)
    block = (place // FEATURE_BLOCKS) % BLOCKS
    chunk = place // (FEATURE_BLOCKS * BLOCKS)
    chunks = (pixels + CHUNK - 1) // CHUNK
    frame = tl.program_id(1).to(tl.int64)
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    f = _projection(projection, feature, FEATURES, EMBEDDED, BLOCK_E)
    context = tl.zeros([BLOCK_C, BLOCK_M], tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    for first in range(0, CHUNK, BLOCK_P):
        pixel = chunk * CHUNK + first + tl.arange(0, BLOCK_P)
        is_pixel = pixel < pixels
        features = _features(k, frame, pixel, is_pixel, f, pixels, EMBEDDED, EPS, BLOCK_E)
        features = tl.where(is_pixel[None, :], features, 0.0)
        values = tl.load(
            v + (frame * CHANNELS + channel[:, None]) * pixels + pixel[None, :],
            mask=(channel < CHANNELS)[:, None] & is_pixel[None, :],
            other=0.0,
        )
        if values.dtype == tl.float32:
            context += dot(values, tl.trans(features))
        else:  # 16-bit floats are exact in TF32; what is rounded is so in both sums
            features = to_tf32(features)
            context += dot_tf32(values.to(tl.float32), tl.trans(features))
        total += tl.sum(features, 1)
    rows = sums + (frame * chunks + chunk) * ((CHANNELS + 1) * FEATURES) + feature
    is_feature = feature < FEATURES
    tl.store(
        rows[None, :] + channel[:, None] * FEATURES,
        context,
        mask=(channel < CHANNELS)[:, None] & is_feature[None, :],
    )
    if block == 0:
        tl.store(rows + CHANNELS * FEATURES, total, mask=is_feature)


@triton.jit
def enla_apply_kernel(
    q,
    projection,
    context,
    pixels,
    out,
    EMBEDDED: tl.constexpr,
    CHANNELS: tl.constexpr,
    FEATURES: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Multiply the sums by φ(Q) and divide by the normaliser.

    Args:
        q: Queries, N×c×pixels.
        projection: F, m×c.
        context: Float32 N×(C + 1)×m, summed over the chunks.
        pixels: H·W.
        out: N×C×pixels.
        EMBEDDED: c.
        CHANNELS: C.
        FEATURES: m.
        EPS: Added to each exponential.
        BLOCK_C: Channels of a program, a power of two.
        BLOCK_E: At least c, a power of two.
        BLOCK_M: Features at a time, a power of two.
        BLOCK_P: Pixels of a program, a power of two.

    The grid is (blocks of pixels · blocks of channels, N).
    """
    BLOCKS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    block = tl.program_id(0) % BLOCKS
    pixel = (tl.program_id(0) // BLOCKS) * BLOCK_P + tl.arange(0, BLOCK_P)
    is_pixel = pixel < pixels
    frame = tl.program_id(1).to(tl.int64)
    channel = block * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < CHANNELS
    numerator = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
    denominator = tl.zeros([BLOCK_P], tl.float32)
    for first in range(0, FEATURES, BLOCK_M):
        feature = first + tl.arange(0, BLOCK_M)
        is_feature = feature < FEATURES
        f = _projection(projection, feature, FEATURES, EMBEDDED, BLOCK_E)
        features = _features(q, frame, pixel, is_pixel, f, pixels, EMBEDDED, EPS, BLOCK_E)
        rows = context + frame * ((CHANNELS + 1) * FEATURES) + feature
        summed = tl.load(
            rows[None, :] + channel[:, None] * FEATURES,
            mask=is_channel[:, None] & is_feature[None, :],
            other=0.0,
        )
        total = tl.load(rows + CHANNELS * FEATURES, mask=is_feature, other=0.0)
        if q.dtype.element_ty == tl.float32:
            numerator += dot(summed, features)
        else:
            features = to_tf32(features)
            numerator += dot_tf32(to_tf32(summed), features)
        denominator += tl.sum(total[:, None] * features, 0)
    attended = numerator / denominator[None, :]
    tl.store(
        out + (frame * CHANNELS + channel[:, None]) * pixels + pixel[None, :],
        to_type(attended, out.dtype.element_ty),
        mask=is_channel[:, None] & is_pixel[None, :],
    )


def context_constants(shape: EnlaShape, eps: float) -> dict[str, int | float]:
    """Compile-time arguments of the first kernel."""
    return _constants(shape, eps) | {"CHUNK": CHUNK_PIXELS, "BLOCK_P": 32}


def apply_constants(
    shape: EnlaShape, eps: float, dtype: str, capability: str
) -> dict[str, int | float]:
    """Compile-time arguments of the second kernel for maps of a type (numpy's name)."""
    return _constants(shape, eps) | {"BLOCK_P": apply_pixels(dtype, capability)}


def apply_pixels(dtype: str, capability: str) -> int:
    """Pixels of a program of the second kernel; fewer where the operands take more room."""
    return 32 if dtype == "float32" or capability == "7.5" else 64


def _constants(shape: EnlaShape, eps: float) -> dict[str, int | float]:
    return {
        "EMBEDDED": shape.embedded,
        "CHANNELS": shape.channels,
        "FEATURES": shape.features,
        "EPS": eps,
        "BLOCK_C": _block(shape.channels, LARGEST_BLOCK_C),
        "BLOCK_E": _block(shape.embedded, LARGEST_EMBEDDING),
        "BLOCK_M": _block(shape.features, LARGEST_BLOCK_M),
    }


def _block(size: int, largest: int) -> int:
    return int(min(max(triton.next_power_of_2(size), 16), largest))


def chunks(shape: EnlaShape) -> int:
    """Chunks of pixels of a frame."""
    return math.ceil(shape.pixels / CHUNK_PIXELS)


def context_programs(shape: EnlaShape) -> int:
    """Programs of the first kernel for one chunk."""
    blocks = math.ceil(shape.features / _block(shape.features, LARGEST_BLOCK_M))
    return apply_programs(shape) * blocks


def apply_programs(shape: EnlaShape) -> int:
    """Programs of the second kernel for :func:`apply_pixels` pixels."""
    return math.ceil(shape.channels / _block(shape.channels, LARGEST_BLOCK_C))


def context_grid(shape: EnlaShape) -> tuple[int, int]:
    """Programs along both axes of the first launch."""
    return chunks(shape) * context_programs(shape), shape.batch


def apply_grid(shape: EnlaShape, dtype: str, capability: str) -> tuple[int, int]:
    """Programs along both axes of the second launch."""
    blocks = math.ceil(shape.pixels / apply_pixels(dtype, capability))
    return blocks * apply_programs(shape), shape.batch


def context_source(shape: EnlaShape, eps: float, dtype: str) -> KernelSource:
    """The first kernel for maps of a type (numpy's name) of these channels."""
    pointer = f"*{TRITON_TYPES[dtype]}"
    arguments = {"k": pointer, "v": pointer, "projection": pointer}
    arguments |= {"pixels": "i32", "sums": "*fp32"}
    constants = context_constants(shape, eps)
    return KernelSource(enla_context_kernel, arguments, constants, WARPS, CONTEXT_STAGES)


def apply_source(shape: EnlaShape, eps: float, dtype: str, capability: str) -> KernelSource:
    """The second kernel likewise, for a compute capability."""
    pointer = f"*{TRITON_TYPES[dtype]}"
    arguments = {"q": pointer, "projection": pointer, "context": "*fp32"}
    arguments |= {"pixels": "i32", "out": pointer}
    constants = apply_constants(shape, eps, dtype, capability)
    return KernelSource(enla_apply_kernel, arguments, constants, WARPS, APPLY_STAGES)
