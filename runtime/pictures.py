"""Pictures and folders of pictures: read, upscale, write.

The engine takes 8-bit RGB. What a picture holds beyond that is carried around it where the
output format allows (transparency, ICC profile, EXIF) and reported in ``notes`` where not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Interrupted, MediaError
from .picture_files import FORMATS, is_picture, read_picture, write_picture
from .session import Session
from .tiling import upscale_tiled
from .video.formats import MUXERS

__all__ = [
    "PictureResult",
    "check_output",
    "default_output",
    "is_picture",
    "upscale_folder",
    "upscale_picture",
]


@dataclass(frozen=True)
class PictureResult:
    """What became of one picture.

    Attributes:
        source: Its file.
        output: The file that was written.
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        seconds: Time for all of it.
        engine_seconds: Of these, inside the engine.
        notes: What the output lacks of the source, one sentence each.
    """

    source: Path
    output: Path
    width: int
    height: int
    seconds: float
    engine_seconds: float
    notes: tuple[str, ...] = ()


def default_output(source: Path, scale: int) -> Path:
    """``STEM_x4.EXT`` beside the input; for a folder ``NAME_x4`` beside it."""
    if source.is_dir():
        folder = source if source.name and source.name != ".." else source.resolve()
        return folder.with_name(f"{folder.name}_x{scale}")
    return source.with_name(f"{source.stem}_x{scale}{source.suffix}")


def check_output(source: Path, output: Path) -> None:
    """Refuse an output that a picture, or a folder of them, cannot have.

    Raises:
        MediaError: So it is.
    """
    if source.is_dir():
        _check_folder(source, output)
    else:
        _check_file(source, output)


def upscale_picture(
    source: Path, output: Path, session: Session, tile: int | None = None, halo: int = 32
) -> PictureResult:
    """Upscale a picture; EXIF orientation is applied.

    Args:
        source: PNG, JPEG, BMP, WebP or TIFF.
        output: The file to write; its ending chooses the format.
        session: The engine.
        tile: Largest tile in input pixels, None for the whole picture at once.
        halo: Input pixels around each tile, at least the network's receptive radius.

    Raises:
        MediaError: The source is missing, damaged or of a kind that cannot be turned into
            8-bit RGB, or the output cannot be written.
        EngineError: The engine failed.
    """
    began = time.perf_counter()
    _check_file(source, output)
    notes: list[str] = []
    picture = read_picture(source, notes)
    frames = picture.pixels[None]
    started = time.perf_counter()
    if tile is None:
        upscaled = session.upscale(frames)[0]
    else:
        upscaled = upscale_tiled(session, frames, tile, halo, session.parallel)[0]
    engine_seconds = time.perf_counter() - started
    write_picture(output, upscaled, picture, notes)
    height, width = upscaled.shape[:2]
    seconds = time.perf_counter() - began
    return PictureResult(source, output, width, height, seconds, engine_seconds, tuple(notes))


def upscale_folder(
    source: Path,
    output: Path,
    session: Session,
    tile: int | None = None,
    halo: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PictureResult, ...]:
    """Upscale all pictures of a folder into another, under the same names.

    Args:
        source: The folder; folders in it and files of other kinds are left alone.
        output: The folder to write into, made if missing.
        session: The engine.
        tile: As for :func:`upscale_picture`.
        halo: As for :func:`upscale_picture`.
        progress: Called with the pictures done and their total.

    Raises:
        MediaError: There is no picture, the output is the source or no folder, or pictures
            failed: these are all named, and the others are written.
        EngineError: The engine failed.
        Interrupted: The caller was, a ``KeyboardInterrupt``; it says how many are written.
    """
    pictures = _pictures_of(source)
    _make_folder(source, output)
    results: list[PictureResult] = []
    failures: list[MediaError] = []
    try:
        for done, path in enumerate(pictures, 1):
            try:
                results.append(upscale_picture(path, output / path.name, session, tile, halo))
            except MediaError as exc:
                failures.append(exc)
            if progress is not None:
                progress(done, len(pictures))
    except KeyboardInterrupt as exc:
        raise Interrupted(
            f"interrupted; {len(results)} of {len(pictures)} pictures are in {output}"
        ) from exc
    if failures:
        listed = "\n".join(f"  {failure.message}" for failure in failures)
        raise MediaError(
            f"{len(failures)} of {len(pictures)} pictures failed, the others are in {output}:\n"
            f"{listed}",
            failures[0].hint,
        ) from failures[0]
    return tuple(results)


def _pictures_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MediaError(f"{folder} is not a folder", "check the path")
    pictures = sorted(p for p in folder.iterdir() if p.is_file() and is_picture(p))
    if not pictures:
        raise MediaError(
            f"{folder} holds no picture", f"known kinds: {', '.join(ending for ending in FORMATS)}"
        )
    return pictures


def _check_folder(source: Path, output: Path) -> None:
    if output.exists() and output.samefile(source):
        raise MediaError(f"{output} is the source itself", "name another output folder")
    if output.is_dir():
        return
    meant = "a file" if output.exists() else "the name of a file"
    if output.exists() or output.suffix.lower() in {*FORMATS, *MUXERS}:
        raise MediaError(
            f"{output} is {meant}, and a folder of pictures gives a folder",
            "name a folder with -o, or leave -o out",
        )


def _make_folder(source: Path, output: Path) -> None:
    _check_folder(source, output)
    try:
        output.mkdir(exist_ok=True)
    except OSError as exc:
        raise MediaError(
            f"{output} could not be made: {exc.strerror}", "name a folder inside an existing one"
        ) from exc


def _check_file(source: Path, output: Path) -> None:
    if output.is_dir():
        raise MediaError(
            f"{output} is a folder", f"name a file in it, such as {output / source.name}"
        )
    if not is_picture(output):
        raise MediaError(
            f"{output}: a picture cannot be written as '{output.suffix or 'no ending'}'",
            f"give the output one of the endings {', '.join(FORMATS)}",
        )
    if not output.parent.is_dir():
        raise MediaError(
            f"{output} could not be written: there is no folder {output.parent}",
            "make the folder first",
        )
    if source.exists() and output.exists() and output.samefile(source):
        raise MediaError(f"{output} is the source itself", "name another output")
