"""Every error that srdeploy raises on purpose.

::

    SrDeployError
    ├── CheckpointError          a weights file that cannot be read, trusted or recognised
    │   └── WeightsMissing       no weights for the model that was asked for
    ├── ModelFileError           an ONNX file that is damaged or that srdeploy did not make
    ├── ExportError              the network could not be written as ONNX, or the ONNX differs
    ├── BuildError               a target refused the graph, the precision or the shape
    │   └── TargetUnavailable    the target's library or hardware is not here
    ├── EngineError              an engine or its manifest is damaged, foreign or stale
    ├── MediaError               a video or picture cannot be read or written
    ├── DatasetError             a data set or calibration set is empty, damaged or not paired
    ├── TrainingError            a training run cannot start or go on
    ├── OutputError              a file could not be written: folder, permission, full disk
    ├── FetchError               a download failed or its digest differs
    └── DriftExceeded            a measured drift is over its budget (exit code 3)

Each carries a message (what, expected, got) and a ``hint`` (what to do). Exceptions of
other libraries are turned into one of these once, where that library is called, with
``raise … from exc``; only ``cli.py`` prints them.
"""

from __future__ import annotations


class SrDeployError(Exception):
    """Base of the tree.

    Args:
        message: What happened: what was expected and what was found.
        hint: What the user can do about it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckpointError(SrDeployError):
    """A weights file cannot be read, trusted or recognised."""


class WeightsMissing(CheckpointError):
    """No weights are here for the model that was asked for."""


class ModelFileError(SrDeployError):
    """An ONNX file is damaged, or srdeploy did not make it."""


class ExportError(SrDeployError):
    """A network could not be written as ONNX, or the ONNX differs from it."""


class BuildError(SrDeployError):
    """A target refused the graph, the precision or the shape."""


class TargetUnavailable(BuildError):
    """The library or hardware that a target needs is not on this machine."""


class EngineError(SrDeployError):
    """An engine or its manifest is damaged, foreign or stale."""


class MediaError(SrDeployError):
    """A video or picture cannot be read or written."""


class DatasetError(SrDeployError):
    """A data set or calibration set is empty, damaged or not paired."""


class TrainingError(SrDeployError):
    """A training run cannot start or go on."""


class OutputError(SrDeployError):
    """A file could not be written: missing folder, no permission, full disk."""


class FetchError(SrDeployError):
    """A download failed, or what came has another digest."""


class DriftExceeded(SrDeployError):
    """A measured drift is over the budget that was given."""

    exit_code = 3
