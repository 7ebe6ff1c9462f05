"""What ``srdeploy train`` learns from: frames of videos, and LR as the world makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..calib.scenes import choose_among, read_frames, thumbnails
from ..runtime.video.formats import MUXERS
from ..runtime.video.round_trip import through_h264
from ..train.data import PatchSampler, find_pictures
from ..train.degradation import MARGIN, RealWorld, window
from ..train.picture_cache import Videos
from ..train.validation import Pair
from ..validate.datasets import Picture
from ..validate.resize import modcrop
from . import Say

MOST_FRAMES = 32
"""Of one video."""

LAST_FRAME = 10_000
"""Decoding stops here where key frames are too few to choose among."""

APART = 3.0
"""Of two frames whose 16×16 thumbnails differ by less code values, one is left out: in a clip
of a fixed camera, 377 frames long, 15 of 32 remain, and about 20 where scenes change."""


def frames_to_train_on(video: Path) -> Iterator[tuple[int, Picture]]:
    """Up to 32 frames of a video, spread over its scenes, without those that look alike.

    Where there are enough key frames they are chosen among: they are spread over all of the
    clip, encoders put them where scenes begin and give them most bits, and a film is read in
    a minute. Of other clips every frame is decoded, up to the 10,000th.

    Yields:
        Its number from 1 on, counted among those that were looked at, and H×W×3 uint8 RGB.

    Raises:
        MediaError: The video is damaged.
    """
    small = thumbnails(video, None, only_keys=True)
    only_keys = len(small) >= MOST_FRAMES
    if not only_keys:
        small = thumbnails(video, LAST_FRAME)
    chosen = choose_among(small, MOST_FRAMES, APART)
    for number, pixels in read_frames(video, chosen, only_keys):
        yield number + 1, pixels


VIDEOS = Videos(tuple(MUXERS), f"1 {MOST_FRAMES} {LAST_FRAME} {APART}", frames_to_train_on)


def world_of(degradation: str) -> RealWorld | None:
    """What makes LR for a name of ``recipe.DEGRADATIONS``; None for LR as the literature has it."""
    return RealWorld(through_h264) if degradation == "real" else None


def open_sampler(
    paths: Sequence[Path],
    scale: int,
    patch: int,
    world: RealWorld | None,
    say: Say,
    seed: int = 0,
) -> PatchSampler:
    """A sampler of pictures, videos and folders of them.

    Args:
        paths: Used as HR.
        scale: Upscaling factor.
        patch: Edge of an LR patch in pixels.
        world: Makes LR; None for LR as the literature has it.
        say: Takes progress.
        seed: Of the sampling.

    Raises:
        DatasetError: There is nothing to train on.
        OutputError: The decoded pictures cannot be kept.
    """

    def progress(done: int, total: int) -> None:
        if done in (1, total) or done % 100 == 0:
            say(f"decoded {done} of {total} files, which is done once")

    files = find_pictures(paths, VIDEOS)
    return PatchSampler(files, scale, patch, seed, progress, VIDEOS, world)


def degrade(pairs: Sequence[Pair], scale: int, world: RealWorld) -> list[Pair]:
    """Validation pictures with LR as the world makes it, the same in every run."""
    degraded: list[Pair] = []
    for place, (name, _, whole) in enumerate(pairs):
        high = modcrop(whole, scale)
        height, width = high.shape[:2]
        around = window(high, (0, 0), (height, width), MARGIN * scale)
        degraded.append((name, world.shrink(around, scale, np.random.default_rng(place)), high))
    return degraded
