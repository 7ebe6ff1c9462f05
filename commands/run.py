"""``srdeploy run``: finds or makes an engine and upscales a video, a picture or a folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .. import data
from ..errors import SrDeployError
from ..runtime.engine import open_engine
from ..runtime.session import Session
from ..spec import Manifest
from . import DEFAULT_MODEL, DEFAULT_SCALE, Say
from .build_engine import BuildOptions, build_engine
from .export import ExportOptions, export
from .newest import newest_engine, newest_model


def open_or_build(engine: Path | None, say: Say) -> tuple[Session, Manifest]:
    """Open the engine that was named, else the newest here, else make what is missing.

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
    return open_engine(path)


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
    source: Path,
    output: Path | None,
    engine: Path | None,
    options: VideoOptions,
    say: Say,
    progress: Callable[[int, int | None, str], None],
) -> RunResult:
    """Upscale a video, a picture or a folder of pictures.

    Args:
        source: What to upscale.
        output: File or folder to write; None for ``STEM_xS`` beside the source.
        engine: Engine to use; None for the newest here, built if there is none.
        options: Encoding of videos, and the tile that larger frames are cut into.
        say: Takes lines for the user.
        progress: Takes what is done, what there is in all, and the speed.

    Raises:
        SrDeployError: The source or the engine cannot be used; nothing is written then.
    """
    if not source.exists():
        raise MediaError(f"there is no file or folder {source}", "check the path")
    session, manifest = open_or_build(engine, say)
    with session:
        options = _with_halo(options, manifest, say)
        target = output or _default_output(source, session.scale)
        if source.is_dir():
            return _run_folder(source, target, session, options, progress)
        if source.suffix.lower() in PICTURE_SUFFIXES:
            done = upscale_picture(source, target, session, options.tile, options.halo)
            return RunResult(target, 1, None, done.notes)
        video = upscale_video(
            source, target, session, options,
            lambda state: progress(state.done, state.total, f"{state.fps:.1f} frames/s"),
        )
        return RunResult(target, video.frames, video, video.notes)
