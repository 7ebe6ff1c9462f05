"""Frames of a video that show all of it: a few from every scene.

A cut is a change between two frames that is large, much larger than most changes around it, as
what moves fast changes every frame, and larger than each of them, as a fade is many changes. A
fade of equal steps counts as one cut. Scenes of fewer frames than :data:`AROUND` may be missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.video.reader import VideoReader
from ..runtime.video.source import Picture as VideoPicture
from ..validate.datasets import Picture

MOST_FRAMES = 16
LAST_FRAME = 2000
"""Decoding stops here: a film would take longer to read than to calibrate on."""

LEAST_CHANGE = 8.0
"""Of a cut: mean change of a 16×16 thumbnail, in code values."""

TIMES_AROUND = 4.0
"""Of a cut: how many times the median change of the frames around it."""

AROUND = 6
"""Frames to each side of a change that it is compared with."""

_THUMBNAIL = (16, 16)
Thumbnails = NDArray[np.uint8]
"""N×16×16×3 RGB, 0…255."""


def choose_frames(video: Path, most: int = MOST_FRAMES) -> tuple[int, ...]:
    """Numbers, from 0 on, of up to ``most`` frames spread over the scenes of a video.

    Only the first 2,000 frames are looked at; no frame is kept.

    Raises:
        MediaError: The video is damaged.
    """
    return choose_among(thumbnails(video, LAST_FRAME), most)


def thumbnails(video: Path, last: int | None, only_keys: bool = False) -> Thumbnails:
    """Every frame of a video at 16×16 pixels, which tells scenes apart.

    Args:
        video: The file.
        last: Decoding stops after so many frames; None for all.
        only_keys: Whether frames that are no key frames are passed over.

    Returns:
        N×16×16×3 uint8, at least one.

    Raises:
        MediaError: The video is damaged.
    """
    return np.stack(
        [
            np.asarray(Image.fromarray(pixels).resize(_THUMBNAIL, Image.Resampling.BOX))
            for pixels in islice(_decoded(video, only_keys), last)
        ]
    )


def choose_among(small: Thumbnails, most: int, apart: float = 0.0) -> tuple[int, ...]:
    """Numbers of up to ``most`` frames spread over the scenes.

    Args:
        small: What :func:`thumbnails` gave.
        most: How many at most.
        apart: Of two frames that differ by less, the later one is left out: mean change of the
            thumbnail, in code values.
    """
    frames = small.astype(np.float32)
    changes = [_change(a, b) for a, b in pairwise(frames)]
    kept: list[int] = []
    for number in spread(find_scenes(changes), most):
        if all(_change(frames[number], frames[other]) >= apart for other in kept):
            kept.append(number)
    return tuple(kept)


def _change(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    return float(np.abs(after - before).mean())


def read_frames(
    video: Path, numbers: Collection[int], only_keys: bool = False
) -> Iterator[tuple[int, Picture]]:
    """The frames of these numbers, in order, one held at a time.

    Args:
        video: The file.
        numbers: As they were chosen.
        only_keys: Whether key frames alone were counted.

    Raises:
        MediaError: The video is damaged.
    """
    last = max(numbers, default=-1)
    for number, pixels in enumerate(islice(_decoded(video, only_keys), last + 1)):
        if number in numbers:
            yield number, pixels


def _decoded(video: Path, only_keys: bool) -> Iterator[Picture]:
    with closing(VideoReader(video, only_keys=only_keys)) as reader:
        yield from (item.pixels for item in reader.items() if isinstance(item, VideoPicture))


def find_scenes(changes: Sequence[float]) -> tuple[range, ...]:
    """The scenes of a clip, as ranges of frame numbers; they cover it without gaps.

    Args:
        changes: From each frame to the next, so one fewer than frames.
    """
    cuts = [0]
    for index, change in enumerate(changes):
        before = changes[max(index - AROUND, 0) : index]
        after = changes[index + 1 : index + 1 + AROUND]
        usual = float(np.median([*before, *after])) if len(changes) > 1 else 0.0
        is_peak = change > max(before, default=0.0) and change >= max(after, default=0.0)
        if is_peak and change >= max(LEAST_CHANGE, TIMES_AROUND * usual):
            cuts.append(index + 1)
    ends = [*cuts[1:], len(changes) + 1]
    return tuple(range(start, end) for start, end in zip(cuts, ends, strict=True))


def spread(scenes: Sequence[range], most: int) -> tuple[int, ...]:
    """Up to ``most`` frame numbers: no scene gets two before every scene has one.

    Where there are more scenes than frames, every so many scenes give one.
    """
    if len(scenes) > most:
        scenes = [scenes[(2 * place + 1) * len(scenes) // (2 * most)] for place in range(most)]
    counts = [1] * len(scenes)
    for _ in range(most - len(scenes)):
        longer = [i for i, scene in enumerate(scenes) if counts[i] < len(scene)]
        if not longer:
            break
        counts[min(longer, key=lambda i: (counts[i], -len(scenes[i]), i))] += 1
    return tuple(
        scene[(2 * place + 1) * len(scene) // (2 * count)]
        for scene, count in zip(scenes, counts, strict=True)
        for place in range(count)
    )
