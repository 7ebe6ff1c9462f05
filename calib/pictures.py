"""Calibration sets: pictures from files, folders and videos, cut to crops of one size.

The network's input is a low-resolution frame, and so is a calibration picture: crops are
fed as they are, never shrunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..runtime.video.formats import MUXERS
from ..runtime.video.reader import VideoReader
from ..runtime.video.source import Picture as VideoPicture
from ..validate.datasets import SUFFIXES, Picture, read_picture

MOST_FRAMES = 16
LAST_FRAME = 2000
"""Decoding stops here: a film would take longer to read than to calibrate on."""

_KINDS = f"pictures end in {', '.join(SUFFIXES)}; videos in {', '.join(MUXERS)}"

Crops = NDArray[np.uint8]
"""N×H×W×3 RGB, 0…255."""

# Roberts' R2 sequence: the steps in y and x that spread points most evenly over a square
# (the plastic number and its square, inverted).
_STEP = np.array([0.7548776662466927, 0.5698402909980532])


@dataclass(frozen=True)
class NamedPicture:
    """A picture and what to call it in messages; ``pixels`` is H×W×3 uint8 RGB."""

    name: str
    pixels: Picture


class Origin(NamedTuple):
    """Where a crop was cut: the picture's name, and the first row and column in its pixels."""

    picture: str
    top: int
    left: int


def load_pictures(paths: Sequence[Path]) -> tuple[NamedPicture, ...]:
    """Read pictures and videos, and all that lie in and below folders, in a stable order.

    A video gives up to 16 frames, spread over its first 2,000.

    Raises:
        DatasetError: A path is missing, damaged or of no known kind, or nothing was found.
        MediaError: A video is damaged.
    """
    files = dict.fromkeys(file for path in paths for file in _files(path))
    if not files:
        raise DatasetError(
            f"no pictures found in {', '.join(map(str, paths)) or 'an empty list'}", _KINDS
        )
    return tuple(picture for file in files for picture in _read(file))


def _files(path: Path) -> list[Path]:
    """The pictures and videos that ``path`` stands for."""
    if path.is_dir():
        return sorted(
            p
            for p in path.rglob("*")
            if _is_known(p) and p.is_file() and not p.name.startswith(".")
        )
    if not path.exists():
        raise DatasetError(f"there is no {path}", "check the path")
    if not _is_known(path):
        raise DatasetError(f"{path} is no picture or video of a known kind", _KINDS)
    return [path]


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, *MUXERS)


def _read(file: Path) -> list[NamedPicture]:
    if file.suffix.lower() in SUFFIXES:
        return [NamedPicture(str(file), read_picture(file))]
    return _frames(file)


def _frames(video: Path) -> list[NamedPicture]:
    """Frames at even distances; their number is not known before, so the distance doubles."""
    kept: list[NamedPicture] = []
    step = 1
    with closing(VideoReader(video)) as reader:
        pictures = (item for item in reader.items() if isinstance(item, VideoPicture))
        for number, picture in enumerate(islice(pictures, LAST_FRAME)):
            if number % step:
                continue
            if len(kept) == MOST_FRAMES:
                kept, step = kept[::2], 2 * step
            kept.append(NamedPicture(f"{video} frame {number + 1}", picture.pixels))
    return kept


def too_small(pictures: Sequence[NamedPicture], size: tuple[int, int]) -> tuple[str, ...]:
    """Names of the pictures that hold no crop of ``size`` (height, width)."""
    return tuple(p.name for p in pictures if not _fits(p, size))


def make_crops(
    pictures: Sequence[NamedPicture],
    size: tuple[int, int] = (80, 120),
    count: int = 100,
    seed: int = 0,
) -> Crops:
    """Cut ``count`` crops, as many from each picture as from any other (±1).

    Inside a picture they spread evenly. What :func:`too_small` lists gives none. The result
    is a function of the arguments alone.

    Args:
        pictures: Where to cut.
        size: (height, width) of a crop in pixels.
        count: How many; where it is below the number of pictures, some give none.
        seed: Of the order of the pictures and of the first crop's place in each.

    Raises:
        DatasetError: No picture is large enough.
    """
    return cut_crops(pictures, size, count, seed)[0]


def cut_crops(
    pictures: Sequence[NamedPicture], size: tuple[int, int], count: int, seed: int = 0
) -> tuple[Crops, tuple[Origin, ...]]:
    """Do what :func:`make_crops` does, and say where each crop is from.

    Raises:
        DatasetError: No picture is large enough.
    """
    usable = [picture for picture in pictures if _fits(picture, size)]
    height, width = size
    if not usable or count < 1:
        raise DatasetError(
            f"no calibration crops: {count} of {width}×{height} pixels were asked for,"
            f" {len(usable)} of {len(pictures)} pictures are that large",
            f"give pictures of at least {width}×{height} pixels",
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(usable))
    starts = generator.random((len(usable), 2))
    crops = np.empty((count, height, width, 3), np.uint8)
    origins = []
    for index in range(count):
        turn, place = divmod(index, len(usable))
        name, pixels = usable[order[place]].name, usable[order[place]].pixels
        free = np.array(pixels.shape[:2]) - size + 1
        top, left = ((starts[place] + turn * _STEP) % 1.0 * free).astype(int)
        crops[index] = pixels[top : top + height, left : left + width]
        origins.append(Origin(name, int(top), int(left)))
    return crops, tuple(origins)


def _fits(picture: NamedPicture, size: tuple[int, int]) -> bool:
    height, width = picture.pixels.shape[0], picture.pixels.shape[1]
    return bool(height >= size[0] and width >= size[1])


def digest(crops: Crops) -> str:
    """SHA-256 over the crops' shape and pixels, hexadecimal."""
    sha256 = hashlib.sha256(repr(crops.shape).encode())
    sha256.update(np.ascontiguousarray(crops).data)
    return sha256.hexdigest()


def as_input(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn uint8 N×H×W×3 into the exported model's float32 N×3×H×W in [0, 1]."""
    planar: NDArray[np.float32] = frames.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(planar / np.float32(255))
