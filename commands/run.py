"""``srdeploy run``: finds or makes an engine and upscales a video, a picture or a folder."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .. import data
from ..errors import EngineError, MediaError, SrDeployError
from ..runtime import pictures, video
from ..runtime.session import Session
from ..spec import Manifest
from . import DEFAULT_MODEL, DEFAULT_SCALE, Say
from .build_engine import BuildOptions, build_engine
from .export import ExportOptions, export
from .newest import newest_engine, newest_model
from .opening import open_or_rebuild

FRAMES_IN_FLIGHT = 2


@dataclass(frozen=True)
class RunResult:
    """What was written.

    Attributes:
        output: File or folder.
        frames: Frames or pictures.
        video: Figures of a video run, None for pictures.
        notes: What should be known, one sentence each.
    """

    output: Path | BinaryIO
    frames: int
    video: video.VideoResult | None
    notes: tuple[str, ...]


def open_or_build(engine: Path | None, say: Say, parallel: int = 1) -> tuple[Session, Manifest]:
    """Open the engine or bundle that was named, else the newest here, else make what is missing.

    Raises:
        SrDeployError: Nothing can be opened or made.
    """
    path = engine or newest_engine(Path())
    if path is None:
        if (other := newest_engine(Path(), runnable=False)) is not None:
            say(f"{other} is here, but this machine cannot run it")
        model = newest_model(Path()) or _make_model(say)
        say(f"building an engine from {model} …")
        path = build_engine(model, BuildOptions(), None, say).path
        say(f"wrote {path}")
    elif engine is None:
        say(f"using {path}, the newest engine in this directory")
    return open_or_rebuild(path, say, parallel)


def _make_model(say: Say) -> Path:
    """Export the default model, or take the bundled ONNX where torch is not installed."""
    if importlib.util.find_spec("torch") is not None:
        say(f"no engine and no ONNX here: exporting {DEFAULT_MODEL} x{DEFAULT_SCALE} …")
        result = export(ExportOptions(), None, say)
        say(f"wrote {result.path}")
        return result.path
    bundle = data.bundled_onnx("vapsr-s-x4")
    if bundle is None:
        raise SrDeployError(
            "there is no engine, no ONNX and no torch to export one with",
            "pip install 'srdeploy[torch]', or bring an ONNX exported elsewhere",
        )
    say(f"no engine and no ONNX here: taking the bundled {bundle.name}")
    return bundle


def run(
    source: Path | BinaryIO,
    output: Path | BinaryIO | None,
    engine: Path | None,
    options: video.VideoOptions,
    say: Say,
    progress: Callable[[int, int | None, str], None],
) -> RunResult:
    """Upscale a video, a picture or a folder of pictures.

    Args:
        source: What to upscale; a binary stream gives a video as YUV4MPEG2.
        output: File or folder to write, or for a video a binary stream that takes
            YUV4MPEG2; None for ``STEM_xS`` beside the source.
        engine: Engine or bundle to use; None for the newest here, built if there is none.
        options: Encoding of videos, and the tile that larger frames are cut into.
        say: Takes lines for the user.
        progress: Takes what is done, what there is in all, and the speed.

    Raises:
        SrDeployError: The source or the engine cannot be used; nothing is written then.
    """
    if isinstance(source, Path) and not source.exists():
        raise MediaError(f"there is no file or folder {source}", "check the path")
    still = isinstance(source, Path) and (source.is_dir() or pictures.is_picture(source))
    session, manifest = open_or_build(engine, say, 1 if still else FRAMES_IN_FLIGHT)
    with session:
        options = _with_halo(options, manifest, say)
        target = output
        if target is None:
            if not isinstance(source, Path):
                raise MediaError("a stream has no name to make one of", "name the output with -o")
            target = _default_output(source, session.scale)
        if still:
            assert isinstance(source, Path)
            if not isinstance(target, Path):
                raise MediaError("pictures cannot be written to a stream", "name a file with -o")
            if source.is_dir():
                return _run_folder(source, target, session, options, progress)
            done = pictures.upscale_picture(source, target, session, options.tile, options.halo)
            return RunResult(target, 1, None, done.notes)
        result = video.upscale_video(
            source,
            target,
            session,
            options,
            lambda state: progress(state.done, state.total, f"{state.fps:.1f} frames/s"),
        )
        return RunResult(target, result.frames, result, result.notes)


def _run_folder(
    source: Path,
    target: Path,
    session: Session,
    options: video.VideoOptions,
    progress: Callable[[int, int | None, str], None],
) -> RunResult:
    done = pictures.upscale_folder(
        source,
        target,
        session,
        options.tile,
        options.halo,
        lambda count, total: progress(count, total, ""),
    )
    notes = tuple(f"{r.output.name}: {note}" for r in done for note in r.notes)
    return RunResult(target, len(done), None, notes)


def _default_output(source: Path, scale: int) -> Path:
    if source.is_dir() or pictures.is_picture(source):
        return pictures.default_output(source, scale)
    return video.default_output(source, scale)


def _with_halo(options: video.VideoOptions, manifest: Manifest, say: Say) -> video.VideoOptions:
    """Give tiles the halo that makes them exact, or say that nothing does.

    Raises:
        EngineError: The tile has no core between halos of that size.
    """
    if options.tile is None:
        return options
    radius = manifest.model.receptive_radius
    if manifest.model.global_operation:
        say(f"note: {manifest.model.variant} sees the whole frame at once: tiles change the result")
        return options
    if options.tile <= 2 * radius:
        raise EngineError(
            f"a tile of {options.tile} pixels has no core between halos of {radius}, the"
            f" receptive radius of {manifest.model.variant}",
            f"--tile {8 * radius} wastes little; {2 * radius + 1} is the least",
        )
    return dataclasses.replace(options, halo=radius)
