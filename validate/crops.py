"""The windows in which an engine loses most, cut out while the pictures are in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .datasets import Picture
from .metrics import Plane, luma
from .resize import resize

EDGE = 144  # a multiple of every scale in use: 2, 3, 4, 6 and 8


@dataclass(frozen=True, eq=False)
class Crop:
    """One window of one picture, h×w×3 uint8 each, h and w at most :data:`EDGE`.

    Attributes:
        dataset: Name of the data set.
        picture: Name of the picture.
        drift: Of the whole picture, dB.
        left: Of the window in the HR picture, pixels.
        top: Of the window in the HR picture, pixels.
        bicubic: LR enlarged by plain interpolation.
        reference: What the reference made.
        engine: What the engine made.
        truth: HR.
    """

    dataset: str
    picture: str
    drift: float
    left: int
    top: int
    bicubic: Picture
    reference: Picture
    engine: Picture
    truth: Picture

    def difference(self, gain: int) -> Picture:
        """``gain`` times the engine's absolute difference from the reference."""
        apart = np.abs(self.engine.astype(np.int16) - self.reference.astype(np.int16))
        amplified: Picture = np.minimum(apart * gain, 255).astype(np.uint8)
        return amplified


class WorstCrops:
    """Keeps the ``count`` crops of the lowest drift; memory does not grow beyond them."""

    def __init__(self, dataset: str, count: int) -> None:
        self._dataset, self._count = dataset, count
        self._kept: list[Crop] = []

    def offer(
        self,
        picture: str,
        drift: float,
        lr: Picture,
        reference: Picture,
        engine: Picture,
        truth: Picture,
    ) -> None:
        """Cut the picture's worst window if it is among the worst so far."""
        if len(self._kept) == self._count and drift >= self._kept[-1].drift:
            return
        top, left = worst_window(reference, engine, truth)
        bicubic = resize(lr, *truth.shape[:2])
        window = np.s_[top : top + EDGE, left : left + EDGE]
        cut = (p[window].copy() for p in (bicubic, reference, engine, truth))
        self._kept.append(Crop(self._dataset, picture, drift, left, top, *cut))
        self._kept.sort(key=lambda crop: crop.drift)
        del self._kept[self._count :]

    def worst(self) -> tuple[Crop, ...]:
        """What is kept, lowest drift first."""
        return tuple(self._kept)


def worst_window(reference: Picture, engine: Picture, truth: Picture) -> tuple[int, int]:
    """Top and left of the window where the engine's squared error in Y grows most.

    That is where the drift comes from. Windows lie on a grid of an eighth of their edge.
    """
    y = luma(truth)
    excess = (luma(engine) - y) ** 2 - (luma(reference) - y) ** 2
    height, width = excess.shape
    tops, lefts = _grid(height), _grid(width)
    sums = _summed(excess)
    bottoms, rights = np.minimum(tops + EDGE, height), np.minimum(lefts + EDGE, width)
    totals = (
        sums[np.ix_(bottoms, rights)]
        - sums[np.ix_(tops, rights)]
        - sums[np.ix_(bottoms, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(int(np.argmax(totals)), totals.shape)
    return int(tops[row]), int(lefts[column])


def _grid(length: int) -> NDArray[np.intp]:
    """First pixels of the windows along an edge; the last one touches the end."""
    last = max(length - EDGE, 0)
    return np.append(np.arange(0, last, EDGE // 8), last)


def _summed(plane: Plane) -> Plane:
    """Sums over all rectangles that start at the origin, (H+1)×(W+1)."""
    return np.pad(plane.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
