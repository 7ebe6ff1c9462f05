"""Ranges of activations, observed while the float32 graph runs on calibration crops."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import DatasetError, ExportError
from ..runtime.targets.onnxruntime import graph_runner
from .observers import Observer
from .pictures import Crops, as_input

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass(frozen=True)
class Ranges:
    """Calibrated ranges.

    Attributes:
        bounds: Tensor name to (low, high).
    """

    bounds: dict[str, tuple[float, float]]

    def to_json(self) -> str:
        """Write as JSON, tensors in alphabetical order."""
        return json.dumps({"ranges": self.bounds}, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Ranges:
        """Read what :meth:`to_json` wrote.

        Raises:
            DatasetError: The text is something else.
        """
        try:
            read = json.loads(text)["ranges"]
            bounds = {str(name): (float(low), float(high)) for name, (low, high) in read.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise DatasetError(f"these are no ranges: {exc}", "calibrate again") from exc
        for name, (low, high) in bounds.items():
            if not -np.inf < low <= high < np.inf:
                raise DatasetError(f"the range of {name} is {low} to {high}", "calibrate again")
        return Ranges(bounds)


def collect_ranges(
    model: onnx.ModelProto,
    crops: Crops,
    tensors: Sequence[str],
    observer: Callable[[], Observer],
    progress: Progress | None = None,
) -> Ranges:
    """Run ``model`` on ``crops`` and observe ``tensors``.

    Args:
        model: Float32 N×3×H×W in.
        crops: N×H×W×3 uint8.
        tensors: Names of float32 activations or of the input.
        observer: Makes the observer of one tensor.
        progress: Told the crops that are done.

    Raises:
        DatasetError: There are no crops, or a tensor is not finite on them.
        ExportError: The graph has no such tensor.
    """
    observers = {name: observer() for name in tensors}

    def see(name: str, values: NDArray[np.float32]) -> None:
        observers[name].observe(values)

    watch(model, crops, tensors, see, "calibrating", progress)
    return Ranges({name: watching.bounds() for name, watching in observers.items()})


def watch(
    model: onnx.ModelProto,
    crops: Crops,
    tensors: Sequence[str],
    see: Callable[[str, NDArray[np.float32]], None],
    step: str,
    progress: Progress | None = None,
) -> None:
    """Run ``model`` on each crop and show ``tensors`` to ``see``.

    Args:
        model: Float32 N×3×H×W in.
        crops: N×H×W×3 uint8.
        tensors: Names of float32 activations or of the input.
        see: Takes a tensor's name and its values.
        step: What ``progress`` is told is being done.
        progress: Told the crops that are done.

    Raises:
        DatasetError: There are no crops.
        ExportError: The graph has no such tensor.
    """
    if len(crops) == 0:
        raise DatasetError("the calibration set is empty", "give at least one picture")
    source = model.graph.input[0].name
    run = graph_runner(_exposing(model, [name for name in tensors if name != source]))
    # One by one: all activations are held at once, over 100 MB for a crop of VapSR-S.
    for done, crop in enumerate(crops, start=1):
        values = {source: as_input(crop[None])}
        values |= run(values)
        for name in tensors:
            see(name, values[name])
        if progress:
            progress(step, done, len(crops))


def _exposing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with ``tensors`` among its outputs."""
    known = {out for node in model.graph.node for out in node.output}
    missing = [name for name in tensors if name not in known]
    if missing:
        raise ExportError(f"the graph has no tensor {', '.join(missing)}", "name its own tensors")
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    for name in tensors:
        if name not in outputs:
            exposed.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    return exposed
