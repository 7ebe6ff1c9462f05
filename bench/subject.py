"""The networks that a benchmark of engines runs on, their weights, and their graphs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import data
from ..calib.calibration_set import make_calibration_set
from ..calib.observers import OBSERVERS
from ..calib.pictures import HeldPictures
from ..calib.ranges import collect_ranges
from ..commands.calibration import bundled
from ..commands.half_range import HalfRange
from ..export.passes import run_passes
from ..export.precision import lower
from ..export.quantise import activations, quantise
from ..export.trace import trace
from ..models import Variant, candidates
from ..models.weights.checkpoint import describe, detect, load_network
from ..models.weights.fetch import cached
from ..models.weights.resolve import random_network
from ..runtime.targets import Target
from ..spec import ModelSpec, Precision

DEFAULT_SCALE = 4
CALIBRATION_CROPS, CROP_SIZE = 16, (64, 64)
INT8_METHOD = (
    f"every layer, percentile ranges of {CALIBRATION_CROPS} bundled crops, no repair: the speed of"
    " int8, not the quality that build-engine --int8 finds"
)


@dataclass(frozen=True)
class Subject:
    """A network and its export.

    Attributes:
        network: Float32, on the CPU.
        spec: Its description.
        model: Exported, after the passes.
        export_seconds: What tracing and the passes took.
    """

    network: nn.Module
    spec: ModelSpec
    model: onnx.ModelProto
    export_seconds: float

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Ranges of the activations for int8."""
        source = HeldPictures(bundled("calibration"))
        crops = make_calibration_set(source, CROP_SIZE, CALIBRATION_CROPS, 0).crops
        tensors = activations(self.model)
        return collect_ranges(self.model, crops, tensors, OBSERVERS["percentile"]).bounds

    @cached_property
    def half_range(self) -> HalfRange:
        """Keeps in float32 what fp16 cannot hold."""
        return HalfRange((), lambda _line: None)

    def lowered(self, target: Target, precision: Precision) -> tuple[onnx.ModelProto, Precision]:
        """The float32-ended graph in a precision, and the type of its float part.

        Raises:
            SrDeployError: The graph cannot be written so.
        """
        model, rest, written = self.model, precision, precision
        if precision is Precision.INT8:
            rest = target.rest_precision()
            written = target.written_rest(rest)
            model = quantise(model, self.ranges, rest=written)
        return lower(self.half_range.pin(model, written).model, written), rest


def exported(network: nn.Module, spec: ModelSpec) -> Subject:
    """Trace a network."""
    started = time.perf_counter()
    model = trace(network, spec)
    run_passes(model)
    return Subject(network, spec, model, time.perf_counter() - started)


def load_subject(name: str) -> Subject:
    """A model by its name, ``hat-s`` for ×4 or ``vapsr-x2``; random weights where none are here.

    Raises:
        SrDeployError: There is no such model.
    """
    scale = re.search(r"-x(\d+)$", name)
    _, variant = candidates(name, int(scale[1]) if scale else DEFAULT_SCALE)[0]
    found = _weights_of(variant)
    if found is None:
        return exported(*random_network(variant.name, variant.scale))
    return exported(*load_network(*found))


def _weights_of(variant: Variant) -> tuple[Path, str] | None:
    """Weights of this very variant: fetched ones, those of ``SRDEPLOY_SHARED``, bundled ones."""
    published = variant.published
    if published is not None:
        fetched = cached(published)
        if fetched is None and (shared := shared_folder()) is not None:
            fetched = next((shared / "weights").rglob(published.file_name), None)
        if fetched is not None:
            return fetched, f"official {published.file_name}"
    if (path := data.bundled_weights(variant.name)) is not None:
        return path, f"bundled {variant.name}"
    return None


def shared_folder() -> Path | None:
    """The folder of test data that ``SRDEPLOY_SHARED`` names, if it does."""
    named = os.environ.get("SRDEPLOY_SHARED")
    return Path(named) if named else None


@dataclass(frozen=True)
class Golden:
    """A tiny network with random weights, and what the published code gave.

    Attributes:
        name: Of the file.
        subject: Ours, with the published tensors.
        pairs: Inputs on [0, 1] and outputs.
    """

    name: str
    subject: Subject
    pairs: tuple[tuple[Tensor, Tensor], ...]


def golden_files(folder: Path | None) -> list[Path]:
    """Golden tensors: of a folder, or of the checkout and of ``SRDEPLOY_SHARED``."""
    folders = [folder] if folder else [Path(__file__).resolve().parents[1] / "tests/golden"]
    if folder is None and (shared := shared_folder()) is not None:
        folders.append(shared / "golden")
    by_name = {path.stem: path for place in folders for path in place.glob("*.safetensors")}
    return [by_name[name] for name in sorted(by_name)]


def read_golden(path: Path) -> Golden:
    """Open golden tensors.

    Raises:
        CheckpointError: They are of no network that is known.
    """
    tensors = load_file(path)
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    family, config, _ = detect(state, path)
    network = family.build(config).eval().requires_grad_(False)
    network.load_state_dict(state, strict=True)
    spec = describe(family, config, network, path.name)
    pairs = tuple(_pairs(tensors, spec.value_range))
    return Golden(path.stem, exported(network, spec), pairs)


def _pairs(tensors: dict[str, Tensor], white: float) -> Iterator[tuple[Tensor, Tensor]]:
    for name in sorted(tensors):
        if name.startswith("input."):
            yield tensors[name] / white, tensors[name.replace("input", "output", 1)] / white
