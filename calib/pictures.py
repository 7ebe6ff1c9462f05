"""Pictures to calibrate on, read one at a time from files, folders and videos."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, MediaError
from ..runtime.video.formats import MUXERS
from ..validate.datasets import SUFFIXES, Picture, read_picture
from .scenes import choose_frames, read_frames

MOST_KEPT = 256 << 20
"""Bytes of frames that are kept for the second reading: decoding a video takes long."""

_KINDS = f"pictures end in {', '.join(SUFFIXES)}; videos in {', '.join(MUXERS)}"


@dataclass(frozen=True)
class NamedPicture:
    """A picture and what to call it in messages; ``pixels`` is H×W×3 uint8 RGB."""

    name: str
    pixels: Picture


class PictureSource(Protocol):
    """Pictures that can be read more than once."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Names of the files that could not be read so far, with the reasons."""

    def read(self, wanted: Collection[str] | None = None) -> Iterator[NamedPicture]:
        """The pictures, or those of the names ``wanted``; names are unique."""


class HeldPictures:
    """Pictures that are in memory."""

    def __init__(self, pictures: Sequence[NamedPicture]) -> None:
        self.skipped: dict[str, str] = {}
        self._pictures = tuple(pictures)

    def read(self, wanted: Collection[str] | None = None) -> Iterator[NamedPicture]:
        """The pictures, or those of the names ``wanted``."""
        return (p for p in self._pictures if wanted is None or p.name in wanted)


class Together:
    """The pictures of several sources, one after the other."""

    def __init__(self, *sources: PictureSource) -> None:
        self._sources = sources

    @property
    def skipped(self) -> Mapping[str, str]:
        """Names of the files that could not be read so far, with the reasons."""
        return {name: why for source in self._sources for name, why in source.skipped.items()}

    def read(self, wanted: Collection[str] | None = None) -> Iterator[NamedPicture]:
        """The pictures, or those of the names ``wanted``."""
        return chain.from_iterable(source.read(wanted) for source in self._sources)


class PictureFiles:
    """Pictures and videos on disk, read one at a time; only some frames of videos are kept.

    Attributes:
        skipped: Names of the damaged files, with the reasons; grows while reading.
    """

    def __init__(self, files: Mapping[Path, bool], strict: bool) -> None:
        """Take files, each with whether the user named it."""
        self.skipped: dict[str, str] = {}
        self._files = dict(files)
        self._strict = strict
        self._chosen: dict[Path, tuple[int, ...]] = {}
        self._kept: dict[str, NamedPicture] = {}
        self._room = MOST_KEPT

    def __len__(self) -> int:
        return len(self._files)

    def read(self, wanted: Collection[str] | None = None) -> Iterator[NamedPicture]:
        """Read the pictures, and up to 16 frames of each video; or those of the names ``wanted``.

        A damaged file goes to ``skipped``, unless the user named it, or wants none skipped.

        Raises:
            DatasetError: Such a picture is damaged.
            MediaError: Such a video is.
        """
        for file, named in self._files.items():
            if str(file) in self.skipped:
                continue
            try:
                yield from self._read(file, wanted)
            except (DatasetError, MediaError) as exc:
                if named or self._strict:
                    raise
                self.skipped[str(file)] = exc.message

    def _read(self, file: Path, wanted: Collection[str] | None) -> Iterator[NamedPicture]:
        if file.suffix.lower() in SUFFIXES:
            if wanted is None or str(file) in wanted:
                yield NamedPicture(str(file), read_picture(file))
            return
        if file not in self._chosen:  # decodes all that is looked at, so damage shows here
            self._chosen[file] = choose_frames(file)
        names = {number: f"{file} frame {number + 1}" for number in self._chosen[file]}
        wanted_names = [name for name in names.values() if wanted is None or name in wanted]
        if all(name in self._kept for name in wanted_names):
            yield from (self._kept[name] for name in wanted_names)
            return
        numbers = [number for number, name in names.items() if name in wanted_names]
        for number, pixels in read_frames(file, numbers):
            picture = NamedPicture(names[number], pixels)
            if self._room >= pixels.nbytes and picture.name not in self._kept:
                self._kept[picture.name] = picture
                self._room -= pixels.nbytes
            yield picture


def load_pictures(paths: Sequence[Path], strict: bool = False) -> PictureFiles:
    """Find pictures and videos, and all that lie in and below folders; none is opened yet.

    Args:
        paths: Files and folders. A file that is named here has to be whole.
        strict: Whether those found in folders have to be whole too.

    Raises:
        DatasetError: A path is missing or of no known kind, or nothing was found.
    """
    files: dict[Path, bool] = {}
    for path in paths:
        named = not path.is_dir()
        for file in [path] if named else _below(path):
            files[file] = files.get(file, False) or named
    for path, named in files.items():
        if named and not path.exists():
            raise DatasetError(f"there is no {path}", "check the path")
        if named and not _is_known(path):
            raise DatasetError(f"{path} is no picture or video of a known kind", _KINDS)
    if not files:
        raise DatasetError(
            f"no pictures found in {', '.join(map(str, paths)) or 'an empty list'}", _KINDS
        )
    return PictureFiles(files, strict)


def _below(folder: Path) -> list[Path]:
    """The pictures and videos in a folder and its folders, whatever order the disk has."""
    return sorted(
        p for p in folder.rglob("*") if _is_known(p) and p.is_file() and not p.name.startswith(".")
    )


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, *MUXERS)


def as_input(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn uint8 N×H×W×3 into the exported model's float32 N×3×H×W in [0, 1]."""
    planar: NDArray[np.float32] = frames.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(planar / np.float32(255))
