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
from .degradation import MARGIN, RealWorld, window
from .picture_cache import NO_VIDEOS, Progress, Videos, open_pictures


def find_pictures(paths: Iterable[Path], videos: Videos = NO_VIDEOS) -> list[Path]:
    """Files to train on: those that are named, and all in and below folders, in a stable order.

    Args:
        paths: Pictures, videos and folders of them. A file that is found twice counts once.
        videos: Which files are videos; by default none is.

    Raises:
        DatasetError: A path does not exist, is of no known kind, or is a folder that holds
            nothing to train on.
    """
    known = (*SUFFIXES, *videos.suffixes)
    kinds = f"files that end in {', '.join(known)}"
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DatasetError(f"there is no {path}", f"give folders to train on, with {kinds}")
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        usable = [
            p
            for p in below
            if p.suffix.lower() in known and p.is_file() and not p.name.startswith(".")
        ]
        if not usable:
            what = "holds no pictures" if path.is_dir() else "is no picture"
            raise DatasetError(f"{path} {what} to train on", f"give folders of {kinds}")
        found += usable
    if not found:
        raise DatasetError("no pictures to train on were named", f"give folders of {kinds}")
    return list(dict.fromkeys(found))


class PatchSampler:
    """Random pairs of LR and HR patches from pictures in a memory-mapped file.

    Sampling is a pure function of ``seed`` and the step number, so that a run that is
    resumed sees the patches that an uninterrupted one would have seen.

    Args:
        files: Pictures and videos; what is smaller than a patch is left out and counted.
        scale: Upscaling factor.
        patch: Edge of the LR patch in pixels.
        seed: Of the sampling.
        progress: Told how many files are decoded, and how many there are.
        videos: How frames are taken of videos.
        world: Makes LR of the HR patches; None for LR as the literature makes it.

    Attributes:
        pairs: LR (H×W×3) and HR (sH×sW×3) of each usable picture or frame, uint8.
        skipped: Why others are left out, one sentence each.

    Raises:
        DatasetError: No picture is large enough.
        OutputError: The decoded pictures cannot be kept.
    """

    def __init__(
        self,
        files: list[Path],
        scale: int,
        patch: int,
        seed: int = 0,
        progress: Progress = lambda _done, _total: None,
        videos: Videos = NO_VIDEOS,
        world: RealWorld | None = None,
    ) -> None:
        self.scale, self.patch, self.seed, self.world = scale, patch, seed, world
        opened = open_pictures(files, scale, progress, videos)
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
                f"none of {len(files)} files can be used: {self.skipped[0]}",
                f"they must be readable and at least {patch * scale} pixels in each direction",
            )
        areas = np.array([lr.shape[0] * lr.shape[1] for lr, _ in self.pairs], dtype=float)
        self.shares = areas / areas.sum()

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """LR (size×3×p×p) and HR (size×3×sp×sp) for a step, float32 in [0, 1]."""
        rng = np.random.default_rng((self.seed, step))
        lows, highs = [], []
        for place, index in enumerate(self._drawn(rng, size)):
            lr, hr = self.pairs[index]
            p, s = self.patch, self.scale
            y = int(rng.integers(lr.shape[0] - p + 1))
            x = int(rng.integers(lr.shape[1] - p + 1))
            turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
            if self.world is None:
                lows.append(_turn(lr[y : y + p, x : x + p], turns, mirror))
            else:
                around = window(hr, (y * s, x * s), (p * s, p * s), MARGIN * s)
                # numpy takes (seed, step, 0) for (seed, step), which the places are drawn from
                own = np.random.default_rng((self.seed, step, place + 1))
                lows.append(self.world.shrink(_turn(around, turns, mirror), s, own))
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
