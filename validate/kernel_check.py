"""Whether an engine's kernels compute its graph: both on pictures made to tell them apart.

Photographs rarely bring sums to their limits; edges over the full range, saturated flats and noise
of the extremes do. What is compared is the engine as it executes with its graph as it is written,
Q/DQ pairs and all, in float32: not the engine with the network, whose difference is drift.
"""

from __future__ import annotations

import numpy as np

from ..runtime.session import Frames, Session

BOUND = 2.0
"""Code values of 255, on average over a frame, from which kernels do not compute the graph.
Rounding in another order moves int8 codes by one: VapSR-S x4 (the authors' weights, ONNX Runtime)
differs by up to 1.4, in single pixels of noise by 30; where its int8 sums saturate, by 9 on a
blue flat."""

_LEVELS = (0, 255)


def adversarial_frames(height: int = 48, width: int = 64) -> Frames:
    """Pictures that bring sums to their limits, N×H×W×3.

    Args:
        height: In pixels.
        width: Likewise.
    """
    y, x = np.mgrid[:height, :width]
    corners = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
    flats = [np.broadcast_to(np.array(c), (height, width, 3)) for c in corners]
    # blocks of two saturated colours that meet in edges, at three sizes
    blocks = [
        np.where(((x // size + y // size) % 2)[..., None], corners[c], corners[7 - c])
        for size, c in ((1, 0), (4, 1), (16, 2))
    ]
    stripes = [np.where((x // 3 % 2)[..., None], corners[c], corners[7 - c]) for c in (3, 4)]
    ramp = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 255 - x * 255 // width], -1)
    noise = np.random.default_rng(0).choice(_LEVELS, (2, height, width, 3))
    return np.stack([*flats, *blocks, *stripes, ramp, *noise]).astype(np.uint8)


def kernel_difference(engine: Session, written: Session, frames: Frames) -> float:
    """Difference of an engine from its graph as it is written: code values, on average over the
    frame that differs most.

    Args:
        engine: As it executes.
        written: The same graph, computed as it is written.
        frames: What both upscale, one after the other.
    """
    worst = 0.0
    for frame in frames:
        ours, theirs = (session.upscale(frame[None]).astype(int) for session in (engine, written))
        worst = max(worst, float(np.abs(ours - theirs).mean()))
    return worst


def finding(difference: float | None) -> str:
    """What is wrong with kernels that differ so; empty where nothing is."""
    if difference is None or difference <= BOUND:
        return ""
    return (
        f"its kernels do not compute its graph: {difference:.1f} code values apart, on average"
        f" over a picture made to tell; up to {BOUND:g} are rounding"
    )
