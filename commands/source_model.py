"""The ONNX that an engine is built from where none was named: the newest here, or one made now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .. import data
from ..errors import ModelFileError, SrDeployError
from ..installation import install_extra
from . import DEFAULT_MODEL, DEFAULT_SCALE, Say
from .export import ExportOptions, export
from .newest import newest_model

BUNDLED = "vapsr-s-x4"


def model_to_build(say: Say) -> Path:
    """The newest exported ONNX of the current directory, else one that is made.

    Raises:
        ModelFileError: All ONNX files here are foreign: whoever has some means one of them.
        SrDeployError: None can be made.
    """
    if (model := newest_model(Path())) is not None:
        say(f"building from {model}, the newest export in this directory")
        return model
    if foreign := sorted(path.name for path in Path().glob("*.onnx")):
        raise ModelFileError(
            f"there is no exported ONNX in this directory: {', '.join(foreign)} is not one that"
            " srdeploy can build from",
            "srdeploy export makes one from a checkpoint; or name a file to see what is wrong",
        )
    return make_model(say)


def make_model(say: Say) -> Path:
    """Export the default model, or take the bundled ONNX where torch is not installed.

    Raises:
        SrDeployError: Neither can be had.
    """
    if importlib.util.find_spec("torch") is not None:
        say(f"no ONNX here: exporting {DEFAULT_MODEL} x{DEFAULT_SCALE} …")
        result = export(ExportOptions(), None, say)
        say(f"wrote {result.path}")
        return result.path
    bundle = data.bundled_onnx(BUNDLED)
    if bundle is None:
        raise SrDeployError(
            "there is no ONNX here, and no torch to export one with",
            f"{install_extra('torch')}, or bring an ONNX exported elsewhere",
        )
    say(f"no ONNX here: taking {bundle.name}, which comes with srdeploy")
    return bundle
