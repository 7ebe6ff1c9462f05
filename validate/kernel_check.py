"""Whether an engine's kernels compute its graph: both on pictures made to tell them apart.

Photographs rarely bring sums to their limits; edges over the full range, saturated flats and noise
of the extremes do. What is compared is the engine as it executes with its graph as it is written,
Q/DQ pairs and all, in float32: not the engine with the network, whose difference is drift.

Kernels that add in another order move int8 codes by one, which a network may amplify: on a
chequerboard of single pixels the authors' VapSR-S x4 differs by up to 2.8 code values on average in
ONNX Runtime, whose sums are exact, and by 4.5 where OpenVINO computes the rest in bf16. It does so
where it amplifies int8's own rounding as well. So a frame may differ as much as its int8 graph
differs from the network: where sums saturate, a blue flat differs by 9, its graph by less than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.session import Frames, Session

BOUND = 2.0
"""Code values of 255, on average over a frame, that kernels may differ from their graph anyway."""

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


@dataclass(frozen=True)
class KernelDifference:
    """How far kernels are from their graph, on the frame on which that is most for what it may be.

    Attributes:
        apart: Code values of 255, on average over the frame.
        bound: What they may be.
    """

    apart: float
    bound: float

    @property
    def finding(self) -> str:
        """What is wrong with kernels that differ so; empty where nothing is."""
        if self.apart <= self.bound:
            return ""
        return (
            f"its kernels do not compute its graph: {self.apart:.1f} code values apart, on average"
            f" over a picture made to tell; up to {self.bound:.1f} are rounding"
        )


def kernel_difference(
    engines: Sequence[Session], written: Session, network: Session, frames: Frames
) -> KernelDifference:
    """Compare an engine with its graph as it is written.

    Args:
        engines: As it executes, in each way that it is opened.
        written: The same graph, computed as it is written.
        network: In float32.
        frames: What all of them upscale, one after the other.
    """
    found = []
    for frame in frames:
        theirs, true = (session.upscale(frame[None]).astype(int) for session in (written, network))
        bound = max(BOUND, float(np.abs(theirs - true).mean()))
        for engine in engines:
            apart = np.abs(engine.upscale(frame[None]).astype(int) - theirs)
            found.append(KernelDifference(float(apart.mean()), bound))
    return max(found, key=lambda difference: difference.apart / difference.bound)
