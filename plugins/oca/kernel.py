"""OCA in Triton: one program for some queries of a window, one head.

The keys of the larger window pass by in blocks, read where they lie in the map; the softmax
is kept up as they do (Milakov and Gimelshein, "Online normalizer calculation for softmax",
arXiv:1805.02867; Dao et al., "FlashAttention", arXiv:2205.14135), so that no score is ever
stored. Sums and softmax are float32.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ..arithmetic import dot, to_type
from ..compile import TRITON_TYPES, KernelSource
from .contract import LARGEST_HEAD_DIM, OcaShape

LOG2_E = tl.constexpr(1.4426950408889634)

WARPS = 4
STAGES = 2


@triton.jit
def oca_kernel(
    q,
    k,
    v,
    bias,
    height,
    width,
    pitch,
    out,
    WINDOW: tl.constexpr,
    OVERLAP: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Attend from BLOCK_Q queries of one window and head.

    Args:
        q: N×H×W×C, pixels ``pitch`` elements apart; ``k`` and ``v`` likewise.
        k: Keys.
        v: Values.
        bias: (E + K - 1)²×HEADS, of the type of ``q``.
        height: H.
        width: W.
        pitch: Elements from one pixel to the next in q, k and v; C where they are dense.
        out: N×H×W×C, dense.
        WINDOW: E.
        OVERLAP: K - E.
        HEADS: Of the map.
        HEAD_DIM: Channels of a head.
        BLOCK_Q: Queries of a program, a power of two.
        BLOCK_K: Keys at a time, a power of two.
        BLOCK_D: At least HEAD_DIM, a power of two.

    The grid is (windows · heads · blocks of queries, N).
    """
    KEY_WINDOW: tl.constexpr = WINDOW + OVERLAP
    KEYS: tl.constexpr = KEY_WINDOW * KEY_WINDOW
    TABLE_EDGE: tl.constexpr = WINDOW + KEY_WINDOW - 1
    BLOCKS: tl.constexpr = (WINDOW * WINDOW + BLOCK_Q - 1) // BLOCK_Q

    place = tl.program_id(0)
    block = place % BLOCKS
    head = (place // BLOCKS) % HEADS
    window = place // (BLOCKS * HEADS)
    across = (width + WINDOW - 1) // WINDOW
    top = (window // across) * WINDOW
    left = (window % across) * WINDOW
    frame = tl.program_id(1).to(tl.int64) * height * width

    channel = tl.arange(0, BLOCK_D)
    is_channel = channel < HEAD_DIM
    query = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    query_y = query // WINDOW
    query_x = query % WINDOW
    q_y = top + query_y
    q_x = left + query_x
    q_pixel = frame + q_y.to(tl.int64) * width + q_x
    is_query = (query < WINDOW * WINDOW) & (q_y < height) & (q_x < width)
    q_mask = is_query[:, None] & is_channel[None, :]
    at_head = head * HEAD_DIM + channel
    queries = tl.load(q + q_pixel[:, None] * pitch + at_head[None, :], mask=q_mask, other=0.0)

    # row of the bias table = of the key - of the query, from its end where negative
    query_row = query_y * TABLE_EDGE + query_x + (OVERLAP - 1) * (TABLE_EDGE + 1)
    scale = LOG2_E / tl.sqrt(HEAD_DIM * 1.0)
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    weighted = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for first in range(0, KEYS, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K)
        key_y = key // KEY_WINDOW
        key_x = key % KEY_WINDOW
        k_y = top - OVERLAP // 2 + key_y
        k_x = left - OVERLAP // 2 + key_x
        k_pixel = frame + k_y.to(tl.int64) * width + k_x
        is_key = key < KEYS
        # a pixel beyond the map is a key of zeros, not none
        on_map = is_key & (k_y >= 0) & (k_y < height) & (k_x >= 0) & (k_x < width)
        keys = tl.load(
            k + k_pixel[None, :] * pitch + at_head[:, None],
            mask=on_map[None, :] & is_channel[:, None],
            other=0.0,
        )
        row = (key_y * TABLE_EDGE + key_x)[None, :] - query_row[:, None]
        row = tl.where(row < 0, row + TABLE_EDGE * TABLE_EDGE, row)
        known = is_key[None, :] & (query < WINDOW * WINDOW)[:, None]
        position = tl.load(bias + row * HEADS + head, mask=known, other=0.0).to(tl.float32)
        scores = dot(queries, keys) * scale + position * LOG2_E
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(highest - higher)
        total = total * fade + tl.sum(weights, 1)
        values = tl.load(
            v + k_pixel[:, None] * pitch + at_head[None, :],
            mask=on_map[:, None] & is_channel[None, :],
            other=0.0,
        )
        weighted = weighted * fade[:, None] + dot(to_type(weights, values.dtype), values)
        highest = higher
    attended = to_type(weighted / total[:, None], out.dtype.element_ty)
    o_pixel = q_pixel[:, None] * (HEADS * HEAD_DIM)
    tl.store(out + o_pixel + at_head[None, :], attended, mask=q_mask)


def constants(shape: OcaShape, dtype: str) -> dict[str, int]:
    """The kernel's compile-time arguments for maps of a type (numpy's name)."""
    # what a block holds in shared memory stays under 48 KiB, which every GPU gives
    most_queries, most_keys = (64, 32) if dtype == "float32" else (128, 64)
    if shape.head_dim > 32:
        most_queries, most_keys = most_queries // 2, most_keys // 2
    return {
        "WINDOW": shape.window,
        "OVERLAP": shape.overlap,
        "HEADS": shape.heads,
        "HEAD_DIM": shape.head_dim,
        "BLOCK_Q": _block(shape.window**2, most_queries),
        "BLOCK_K": _block(shape.key_window**2, most_keys),
        "BLOCK_D": _block(shape.head_dim, LARGEST_HEAD_DIM),
    }


def _block(size: int, largest: int) -> int:
    return int(min(max(triton.next_power_of_2(size), 16), largest))


def programs(shape: OcaShape, dtype: str) -> int:
    """Programs of one window."""
    return shape.heads * math.ceil(shape.window**2 / constants(shape, dtype)["BLOCK_Q"])


def grid(shape: OcaShape, dtype: str) -> tuple[int, int]:
    """Programs along both axes of the launch."""
    return shape.windows_down * shape.windows_across * programs(shape, dtype), shape.batch


def source(shape: OcaShape, dtype: str) -> KernelSource:
    """The kernel for maps of a type (numpy's name) of these channels and windows."""
    pointer = f"*{TRITON_TYPES[dtype]}"
    arguments = {"q": pointer, "k": pointer, "v": pointer, "bias": pointer}
    arguments |= {"height": "i32", "width": "i32", "pitch": "i32", "out": pointer}
    return KernelSource(oca_kernel, arguments, constants(shape, dtype), WARPS, STAGES)
