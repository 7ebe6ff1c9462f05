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
