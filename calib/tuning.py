"""Tuning windows: LR and HR pairs on which choices of the search are measured, in PSNR on Y."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import DatasetError
from ..runtime.targets.onnxruntime import graph_runner
from ..spec import TAIL
from ..validate.datasets import Picture
from ..validate.metrics import cut_border, luma, psnr
from ..validate.resize import modcrop, shrink
from .pictures import NamedPicture, as_input

WINDOWS = 16
"""How many there are: with 4 of them a choice of ranges fitted these and no others."""

# Place of a picture's window among all of them by falling texture. VapSR-S with 0 to 5 layers
# in float, mean drift on Set5 and Set14 −0.136 −0.083 −0.051 −0.039 dB; on windows of BSDS500
# at 0 −0.087 −0.051 −0.027 −0.027, 0.5 −0.082 −0.051 −0.031 −0.024, 0.75 −0.127 −0.085 −0.048
# −0.046, 1 −0.133 −0.093 −0.045 −0.047 dB.
TYPICAL = 0.75

# Of an LR picture in pixels: what is smaller is all border and padding.
_LEAST_EDGE = 16


@dataclass(frozen=True)
class TuningPair:
    """LR (H×W×3) and the HR (sH×sW×3) that it was made from, both uint8 RGB."""

    lr: Picture
    hr: Picture


Psnr = list[float]
"""PSNR-Y of each tuning window, dB."""


class Tuning:
    """Windows with their truth, and the PSNR of what a graph makes of them.

    Args:
        pairs: What to measure on.
        scale: Upscaling factor, and the border that PSNR leaves out.
        tail: Times the mean that the worst window may lose.

    Raises:
        DatasetError: There are no pairs.
    """

    def __init__(self, pairs: Sequence[TuningPair], scale: int, tail: float = TAIL) -> None:
        if not pairs:
            raise DatasetError("there are no tuning pictures", "give at least one")
        self.scale = scale
        self.tail = tail
        self.inputs = [as_input(pair.lr[None]) for pair in pairs]
        self._truth = [_plane(pair.hr, scale) for pair in pairs]
        sha256 = hashlib.sha256()
        for pair in pairs:
            for picture in (pair.lr, pair.hr):
                sha256.update(repr(picture.shape).encode() + np.ascontiguousarray(picture).data)
        self.digest = sha256.hexdigest()

    def psnr(self, outputs: Iterable[NDArray[np.float32]]) -> Psnr:
        """PSNR-Y in dB of 1×3×sH×sW outputs, one a window, clamped and rounded."""
        return [
            psnr(_plane(_pixels(upscaled[0]), self.scale), truth)
            for upscaled, truth in zip(outputs, self._truth, strict=True)
        ]

    def psnr_of(self, model: onnx.ModelProto) -> Psnr:
        """PSNR-Y in dB of a graph."""
        run = graph_runner(model)
        source, sink = model.graph.input[0].name, model.graph.output[0].name
        return self.psnr(run({source: frame})[sink] for frame in self.inputs)

    def drift(self, found: Psnr, reference: Psnr) -> float:
        """What choices are made by, dB: the mean drift, or that of the worst window divided by
        ``tail`` where this is lower. A mean alone hides a picture that loses much."""
        lost = np.subtract(found, reference)
        return float(min(lost.mean(), lost.min() / self.tail))


def mean_psnr(model: onnx.ModelProto, pairs: Sequence[TuningPair], scale: int) -> float:
    """Mean PSNR-Y in dB of a graph over ``pairs``; see :class:`Tuning`."""
    return float(np.mean(Tuning(pairs, scale).psnr_of(model)))


def tuning_pairs(
    pictures: Sequence[NamedPicture],
    scale: int,
    size: tuple[int, int] = (48, 72),
    count: int = WINDOWS,
) -> tuple[TuningPair, ...]:
    """Cut LR windows of typical texture, in turn from each picture.

    Whole pictures would take minutes, and what PSNR loses depends on the texture: a little
    noise shows in a smooth window and drowns in a textured one. Windows lie on a grid of half
    their size.

    Args:
        pictures: Taken as HR; LR is made as the literature makes it.
        scale: Upscaling factor.
        size: (height, width) of a window in LR pixels; a smaller picture is one window.
        count: How many windows at most.

    Raises:
        DatasetError: No picture is large enough to be measured.
    """
    windows = [_windows(modcrop(p.pixels, scale), scale, size) for p in pictures]
    in_turn = [w for row in zip_longest(*windows) for w in row if w is not None]
    if not in_turn or count < 1:
        raise DatasetError(
            f"none of {len(pictures)} tuning pictures can be measured at scale {scale}",
            f"each edge needs at least {_LEAST_EDGE * scale} pixels",
        )
    return tuple(in_turn[:count])


def _windows(hr: Picture, scale: int, size: tuple[int, int]) -> list[TuningPair]:
    """The picture's windows, that of the texture :data:`TYPICAL` first and its like next."""
    if min(hr.shape[:2]) < _LEAST_EDGE * scale:
        return []
    lr = shrink(hr, scale)
    height, width = (min(edge, length) for edge, length in zip(size, lr.shape, strict=False))
    found: list[tuple[float, TuningPair]] = []
    for top in range(0, lr.shape[0] - height + 1, max(height // 2, 1)):
        for left in range(0, lr.shape[1] - width + 1, max(width // 2, 1)):
            low = lr[top : top + height, left : left + width]
            s_top, s_left = top * scale, left * scale
            high = hr[s_top : s_top + height * scale, s_left : s_left + width * scale]
            found.append((_texture(low), TuningPair(low, high)))
    found.sort(key=lambda pair: -pair[0])
    typical = round(TYPICAL * (len(found) - 1))
    nearest = sorted(range(len(found)), key=lambda index: abs(index - typical))
    return [found[index][1] for index in nearest]


def _texture(picture: Picture) -> float:
    """Mean squared difference of neighbours in Y."""
    y = luma(picture)
    return float(np.mean(np.diff(y, axis=0) ** 2) + np.mean(np.diff(y, axis=1) ** 2))


def _pixels(planar: NDArray[np.float32]) -> Picture:
    """3×H×W in [0, 1] to H×W×3 uint8."""
    codes = np.rint(np.clip(planar, 0, 1) * np.float32(255)).astype(np.uint8)
    pixels: Picture = codes.transpose(1, 2, 0)
    return pixels


def _plane(picture: Picture, scale: int) -> NDArray[np.float64]:
    return cut_border(luma(picture), scale)
