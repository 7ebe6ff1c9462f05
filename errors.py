"""Every error that srdeploy raises on purpose.

::

    SrDeployError
    ├── CheckpointError          a weights file that cannot be read, trusted or recognised
    │   └── WeightsMissing       no weights for the model that was asked for
    ├── ModelFileError           an ONNX file that is damaged or that srdeploy did not make
    ├── ExportError              the network could not be written as ONNX, or the ONNX differs
    ├── BuildError               a target refused the graph, the precision or the shape
    │   └── TargetUnavailable    the target's library or hardware is not here
    ├── PluginError              an argument of a custom op is wrong (a ValueError too)
    ├── EngineError              an engine or its manifest is damaged, or it failed
    │   ├── StaleEngine          it was built for another machine, version or plugin
    │   ├── OutOfDeviceMemory    the frames do not fit into the GPU's memory
    │   └── DeviceLost           the GPU failed or went away in the middle of a run
    ├── MediaError               a video or picture cannot be read or written
    ├── DatasetError             a data set or calibration set is empty, damaged or not paired
    ├── TrainingError            a training run cannot start or go on
    ├── OptionError              an option that does not go with the others (exit code 2)
    ├── OutputError              a file could not be written: folder, permission, full disk
    ├── FetchError               a download failed or its digest differs
    └── DriftExceeded            a measured drift is over its budget (exit code 3)

    Interrupted                  a KeyboardInterrupt that says what was kept (exit code 130)

Each carries a message (what, expected, got) and a ``hint`` (what to do). Exceptions of
other libraries are turned into one of these once, where that library is called, with
``raise … from exc``; only ``cli.py`` catches them all.
"""

from __future__ import annotations

import re


class SrDeployError(Exception):
    """Base of the tree.

    Args:
        message: What happened: what was expected and what was found.
        hint: What the user can do about it, shown on a line of its own; by default what
            mostly helps against errors of this kind.
    """

    exit_code = 1
    default_hint = "please report this with what --verbose prints"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class OptionError(SrDeployError):
    """An option does not go with the others, or has no effect beside them.

    Args:
        message: Options stand in brackets by their names in Python: ``[calib_only]``, or with the
            value that is meant, ``[precision=int8]``.
    """

    exit_code = 2
    default_hint = "leave it out, or change the option that it depends on"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(_bare(message), _bare(hint))
        self._message, self._hint = message, hint

    def as_typed(self) -> str:
        """The message with options as the command line spells them."""
        return _typed(f"{self._message}: {self._hint}" if self._hint else self._message)


_OPTION = re.compile(r"\[([a-z0-9_]+)(?:=([^]]+))?\]")


def _bare(text: str) -> str:
    """Options by their names in Python."""
    return _OPTION.sub(lambda m: f"{m[1]}={m[2]!r}" if m[2] else m[1], text)


def _typed(text: str) -> str:
    """Options by their names on the command line; a precision is a flag of its own there."""

    def spelled(match: re.Match[str]) -> str:
        name, value = match[1].strip("_").replace("_", "-"), match[2]
        if name == "precision" and value:
            return f"--{value}"
        return f"--{name} {value}" if value else f"--{name}"

    return _OPTION.sub(spelled, text)


class CheckpointError(SrDeployError):
    """A weights file cannot be read, trusted or recognised."""

    default_hint = (
        "expected a .pth, .pt or .safetensors file with the tensors "
        "of a network that srdeploy models lists"
    )


class WeightsMissing(CheckpointError):
    """No weights are here for the model that was asked for."""

    default_hint = "srdeploy fetch NAME, or srdeploy export --weights CHECKPOINT"


class ModelFileError(SrDeployError):
    """An ONNX file is damaged, or srdeploy did not make it."""

    default_hint = "srdeploy export writes such a file from a checkpoint"


class ExportError(SrDeployError):
    """A network could not be written as ONNX, or the ONNX differs from it."""

    default_hint = "check the options; if they are right, please report the network"


class BuildError(SrDeployError):
    """A target refused the graph, the precision or the shape."""

    default_hint = "try another precision or --target"


class TargetUnavailable(BuildError):
    """The library or hardware that a target needs is not on this machine."""

    default_hint = "try another --target"


class PluginError(SrDeployError, ValueError):
    """An argument of a custom op is wrong, found before anything is launched."""

    default_hint = "plugins/oca/README.md and plugins/enla/README.md list what the ops take"


class EngineError(SrDeployError):
    """An engine or its manifest is damaged or foreign, or it failed."""

    default_hint = "build the engine again with srdeploy build-engine"


class StaleEngine(EngineError):
    """An engine was built for another machine, version or plugin."""

    default_hint = "build it again on this machine"


class OutOfDeviceMemory(EngineError):
    """Frames and what the network makes of them do not fit into the GPU's memory."""

    default_hint = "use a smaller --tile, or close what else uses the GPU"


class DeviceLost(EngineError):
    """The GPU failed or went away in the middle of a run; the process can use it no more."""

    default_hint = "start again with --resume; nvidia-smi shows the state of the GPU"


class MediaError(SrDeployError):
    """A video or picture cannot be read or written."""

    default_hint = "check that the file plays elsewhere"


class DatasetError(SrDeployError):
    """A data set or calibration set is empty, damaged or not paired."""

    default_hint = "check the pictures named above"


class TrainingError(SrDeployError):
    """A training run cannot start or go on."""

    default_hint = "the last checkpoint is kept; the same command goes on from it"


class OutputError(SrDeployError):
    """A file could not be written: missing folder, no permission, full disk."""

    default_hint = "check that the folder exists, is writable and has space"


class FetchError(SrDeployError):
    """A download failed, or what came has another digest."""

    default_hint = "try again: it goes on where it stopped"


class DriftExceeded(SrDeployError):
    """A measured drift is over the budget that was given."""

    default_hint = "allow more, or build with another precision or calibration"

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """What runs was asked to end: a ``KeyboardInterrupt`` that says what became of the work.

    Args:
        message: What was kept.
        hint: How to go on from it; empty where there is nothing to go on from.
    """

    def __init__(
        self, message: str = "interrupted; nothing half-written was left", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
