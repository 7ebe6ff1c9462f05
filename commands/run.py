"""``srdeploy run``: finds or makes an engine and upscales a video, a picture or a folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import MediaError
from ..runtime import pictures, video
from ..runtime.session import Session
from . import Say
from .choose_engine import EngineChoice, opened

FRAMES_IN_FLIGHT = 2


@dataclass(frozen=True)
class RunResult:
    """What was written.

    Attributes:
        output: File or folder.
        frames: Frames or pictures.
        seconds: Wall-clock time of the whole run, without what made the engine.
        video: Figures of a video run, None for pictures.
        notes: What should be known, one sentence each.
    """

    output: Path | BinaryIO
    frames: int
    seconds: float
    video: video.VideoResult | None
    notes: tuple[str, ...]


def run(
    source: Path | BinaryIO,
    output: Path | BinaryIO | None,
    engine: Path | EngineChoice | None,
    options: video.VideoOptions,
    say: Say,
    progress: Callable[[int, int | None, str], None],
) -> RunResult:
    """Upscale a video, a picture or a folder of pictures.

    Args:
        source: What to upscale; a binary stream gives a video as YUV4MPEG2.
        output: File or folder to write, or for a video a binary stream that takes
            YUV4MPEG2; None for ``STEM_xS`` beside the source.
        engine: Engine or bundle to use, and where; None for the best here, built if there
            is none.
        options: Encoding of videos, and the tile that larger frames are cut into.
        say: Takes lines for the user.
        progress: Takes what is done, what there is in all, and the speed.

    Raises:
        SrDeployError: The source or the engine cannot be used; nothing is written then.
    """
    if isinstance(source, Path) and not source.exists():
        raise MediaError(f"there is no file or folder {source}", "check the path")
    still = is_still(source)
    _check_output(source, output, still)
    choice = engine if isinstance(engine, EngineChoice) else EngineChoice(engine)
    parallel = 1 if still else FRAMES_IN_FLIGHT
    with opened(choice, options, parallel, say) as (session, options):
        target = output
        if target is None:
            assert isinstance(source, Path)
            target = _default_output(source, session.scale)
        if still:
            assert isinstance(source, Path)
            assert isinstance(target, Path)
            return _run_pictures(source, target, session, options, progress)
        result = video.upscale_video(
            source,
            target,
            session,
            options,
            lambda state: progress(state.done, state.total, speed(state.fps)),
        )
        return RunResult(target, result.frames, result.seconds, result, result.notes)


def is_still(source: Path | BinaryIO) -> bool:
    """Whether it is a picture or a folder of pictures."""
    return isinstance(source, Path) and (source.is_dir() or pictures.is_picture(source))


def _check_output(source: Path | BinaryIO, output: Path | BinaryIO | None, still: bool) -> None:
    """Refuse an output that the source cannot have, before an engine is built for it."""
    if output is None:
        if not isinstance(source, Path):
            raise MediaError("a stream has no name to make one of", "name the output with -o")
    elif not still:
        video.check_output(source, output)
    elif not isinstance(output, Path):
        raise MediaError("pictures cannot be written to a stream", "name a file with -o")
    else:
        assert isinstance(source, Path)
        pictures.check_output(source, output)


def speed(frames_per_second: float) -> str:
    """Frames a second, or below one the seconds that a frame takes; empty before the first."""
    if frames_per_second <= 0:
        return ""
    if frames_per_second < 1:
        return f"{1 / frames_per_second:.1f} s a frame"
    return f"{frames_per_second:.1f} frames/s"


def _run_pictures(
    source: Path,
    target: Path,
    session: Session,
    options: video.VideoOptions,
    progress: Callable[[int, int | None, str], None],
) -> RunResult:
    began = time.perf_counter()
    if source.is_dir():
        done = pictures.upscale_folder(
            source,
            target,
            session,
            options.tile,
            options.halo,
            lambda count, total: progress(count, total, ""),
        )
        notes = tuple(f"{r.output.name}: {note}" for r in done for note in r.notes)
    else:
        done = (pictures.upscale_picture(source, target, session, options.tile, options.halo),)
        notes = done[0].notes
    seconds = time.perf_counter() - began
    return RunResult(target, len(done), seconds, None, (*notes, *session.notes))


def _default_output(source: Path, scale: int) -> Path:
    if source.is_dir() or pictures.is_picture(source):
        return pictures.default_output(source, scale)
    return video.default_output(source, scale)
