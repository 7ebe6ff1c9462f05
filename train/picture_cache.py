"""Training pictures and frames decoded and shrunk once, then read from a memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ..errors import DatasetError, MediaError, OutputError
from ..files import cache_folder
from ..validate.datasets import Picture, read_picture
from ..validate.resize import modcrop, shrink

FORMAT = 2
"""Of the files, and of the way in which pictures are read and LR is made."""

PIXELS, INDEX = "pixels.bin", "index.json"
Progress = Callable[[int, int], None]
"""Takes files done, and how many there are."""


@dataclass(frozen=True)
class Videos:
    """How frames are taken of videos, which only ``runtime/video`` can decode.

    Attributes:
        suffixes: Of the files that are videos.
        rule: Names the choice of frames. It is part of the cache's key.
        read: Gives the number, from 1 on, and the pixels of each chosen frame; raises
            ``MediaError`` where the video is damaged.
    """

    suffixes: tuple[str, ...]
    rule: str
    read: Callable[[Path], Iterator[tuple[int, Picture]]]


NO_VIDEOS = Videos((), "", lambda _: iter(()))


@dataclass(frozen=True)
class Pictures:
    """Pictures ready to be cropped.

    Attributes:
        pairs: LR and HR of each, H×W×3 uint8, views of a memory-mapped file.
        names: The file of each, and the number of a video's frame.
        skipped: Why others are left out, one sentence each.
    """

    pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    names: list[str]
    skipped: list[str]


def open_pictures(
    files: Sequence[Path],
    scale: int,
    progress: Progress = lambda _done, _total: None,
    videos: Videos = NO_VIDEOS,
) -> Pictures:
    """LR and HR of pictures and of frames of videos, from the cache where they are in it.

    The same files with the same sizes and times of change, in the same order and at the same
    scale, are decoded once. What is smaller than ``scale`` or damaged is left out.

    Args:
        files: Pictures and videos, used as HR.
        scale: LR is made smaller by this, as the literature does.
        progress: Told how far decoding is.
        videos: How frames are taken of them.

    Raises:
        OutputError: The cache cannot be written.
    """
    folder = cache_folder() / "training" / _key(files, scale, videos)
    with _sole(folder):  # a second run of the same pictures waits for the first
        kept = _read(folder)
        if kept is None:
            _write(folder, files, scale, progress, videos)
            kept = _read(folder)
            assert kept is not None  # it was written a moment ago
    return kept


def _key(files: Sequence[Path], scale: int, videos: Videos) -> str:
    facts: list[object] = [FORMAT, scale]
    for path in files:
        status = path.stat()
        facts.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
        if path.suffix.lower() in videos.suffixes:
            facts.append(videos.rule)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read(folder: Path) -> Pictures | None:
    """What is in a folder of the cache; None where it is missing or damaged."""
    try:
        index = json.loads((folder / INDEX).read_text())
        size = (folder / PIXELS).stat().st_size
        if size != index["size"]:
            return None
        pixels = np.memmap(folder / PIXELS, np.uint8, "r") if size else np.empty(0, np.uint8)
        pairs = [(_view(pixels, *lr), _view(pixels, *hr)) for lr, hr, _ in index["pairs"]]
        names = [str(name) for _, _, name in index["pairs"]]
        return Pictures(pairs, names, [str(line) for line in index["skipped"]])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _view(pixels: NDArray[np.uint8], start: int, height: int, width: int) -> NDArray[np.uint8]:
    return pixels[start : start + height * width * 3].reshape(height, width, 3)


def _write(
    folder: Path, files: Sequence[Path], scale: int, progress: Progress, videos: Videos
) -> None:
    """Decode everything into a folder beside the place, then rename it into its place."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir()
        pairs: list[object] = []
        skipped: list[str] = []
        with (partial / PIXELS).open("wb") as file:
            for done, path in enumerate(files, 1):
                start, added = file.tell(), []
                try:
                    for name, picture in _decoded(path, videos):
                        hr = modcrop(picture, scale)
                        if 0 in hr.shape:
                            raise DatasetError(f"{path}: smaller than {scale} pixels")
                        low = _append(file, shrink(hr, scale))
                        added.append([low, _append(file, hr), name])
                    pairs += added
                except (DatasetError, MediaError) as exc:
                    file.seek(start)  # frames before the damage
                    file.truncate()
                    skipped.append(exc.message)
                progress(done, len(files))
            size = file.tell()
        document = {"size": size, "pairs": pairs, "skipped": skipped}
        (partial / INDEX).write_text(json.dumps(document))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, else it would have been read
        partial.rename(folder)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _decoded(path: Path, videos: Videos) -> Iterator[tuple[str, Picture]]:
    """Names and pixels of what a file shows."""
    if path.suffix.lower() in videos.suffixes:
        yield from ((f"{path} frame {number}", pixels) for number, pixels in videos.read(path))
    else:
        yield str(path), read_picture(path)


def _append(file: BinaryIO, picture: NDArray[np.uint8]) -> list[int]:
    """Write a picture; returns where it starts, its height and its width."""
    start = file.tell()
    file.write(np.ascontiguousarray(picture).tobytes())
    return [start, *picture.shape[:2]]


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """Be the only process that looks at or writes a folder of the cache.

    Raises:
        OutputError: The cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        lock.acquire()
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    try:
        yield
    finally:
        lock.release()


def _unwritable(folder: Path, exc: OSError) -> OutputError:
    return OutputError(
        f"the decoded training pictures cannot be written to {folder}: {exc.strerror or exc}",
        "SRDEPLOY_CACHE names a folder with more space",
    )
