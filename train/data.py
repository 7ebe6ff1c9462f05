"""Training patches: cropped at random from pictures that were decoded once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DatasetError, TrainingError
from ..validate.datasets import SUFFIXES
from .picture_cache import Progress, open_pictures


def find_pictures(folders: Iterable[Path]) -> list[Path]:
    """All pictures below ``folders`` in a stable order.

    Raises:
        DatasetError: A folder does not exist or none holds a picture.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder", "give folders of pictures to train on")
        found += sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise DatasetError(
            "no pictures to train on found", f"give folders that hold {', '.join(SUFFIXES)} files"
        )
    return found


class PatchSampler:
    """Random pairs of LR and HR patches from pictures in a memory-mapped file.

    Sampling is a pure function of ``seed`` and the step number, so that a run that is
    resumed sees the patches that an uninterrupted one would have seen.

    Args:
        pictures: Files; what is smaller than a patch is left out and counted.
        scale: Upscaling factor.
        patch: Edge of the LR patch in pixels.
        seed: Of the sampling.
        progress: Told how many pictures are decoded, and how many there are.

    Raises:
        DatasetError: No picture is large enough.
        OutputError: The decoded pictures cannot be kept.
    """

    def __init__(
        self,
        pictures: list[Path],
        scale: int,
        patch: int,
        seed: int = 0,
        progress: Progress = lambda _done, _total: None,
    ) -> None:
        self.scale, self.patch, self.seed = scale, patch, seed
        opened = open_pictures(pictures, scale, progress)
        self.pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self.names: list[str] = []
        self.skipped = list(opened.skipped)
        for (lr, hr), name in zip(opened.pairs, opened.names, strict=True):
            if min(lr.shape[:2]) >= patch:
                self.pairs.append((lr, hr))
                self.names.append(name)
            else:
                self.skipped.append(f"{name}: {hr.shape[1]}×{hr.shape[0]} is too small")
        if not self.pairs:
            raise DatasetError(
                f"none of {len(pictures)} pictures can be used: {self.skipped[0]}",
                f"they must be readable and at least {patch * scale} pixels in each direction",
            )
        areas = np.array([lr.shape[0] * lr.shape[1] for lr, _ in self.pairs], dtype=float)
        self.shares = areas / areas.sum()

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """LR (size×3×p×p) and HR (size×3×sp×sp) for a step, float32 in [0, 1]."""
        rng = np.random.default_rng((self.seed, step))
        lows, highs = [], []
        for index in self._drawn(rng, size):
            lr, hr = self.pairs[index]
            p, s = self.patch, self.scale
            y = int(rng.integers(lr.shape[0] - p + 1))
            x = int(rng.integers(lr.shape[1] - p + 1))
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            lows.append(_turn(lr[y : y + p, x : x + p], turns, mirror))
            highs.append(_turn(hr[y * s : (y + p) * s, x * s : (x + p) * s], turns, mirror))
        return _tensor(lows), _tensor(highs)

    def names_of(self, step: int, size: int) -> list[str]:
        """The picture of each patch of :meth:`batch`."""
        rng = np.random.default_rng((self.seed, step))
        return [self.names[index] for index in self._drawn(rng, size)]

    def _drawn(self, rng: np.random.Generator, size: int) -> NDArray[np.intp]:
        return rng.choice(len(self.pairs), size=size, p=self.shares)


def _turn(patch: NDArray[np.uint8], turns: int, mirror: bool) -> NDArray[np.uint8]:
    turned: NDArray[np.uint8] = np.rot90(patch, turns)
    return turned[:, ::-1] if mirror else turned


def _tensor(patches: list[NDArray[np.uint8]]) -> Tensor:
    stacked = torch.from_numpy(np.stack(patches))
    if stacked.ndim != 4:
        raise TrainingError("patches of different sizes in one batch")
    return stacked.permute(0, 3, 1, 2).float().div_(255.0)
