"""Frozen dataclasses that every part shares, and their JSON form.

They are what passes between the halves of srdeploy: the ``ModelSpec`` travels inside the
ONNX file, the ``Manifest`` beside the engine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

MANIFEST_FORMAT = 2


class Precision(StrEnum):
    """What the weights and activations of an engine are computed in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True)
class ModelSpec:
    """What deployment must know of a network; stored in the metadata of its ONNX file.

    Attributes:
        architecture: Id of the file in models/, such as ``vapsr``.
        variant: Such as ``vapsr-s-x4``.
        scale: Upscaling factor in both directions.
        receptive_radius: Input pixels that one output pixel sees to each side, but for what
            it sees through a global operation.
        global_operation: Whether every output pixel depends on the whole picture, through a
            mean, a Gram matrix or an attention over all pixels: tiling changes the result.
        value_range: What a white pixel is inside the network; the graph takes and gives 1.
        mean: R, G, B on [0, 1] that the graph takes off first and puts back last.
        fp32_nodes: Patterns (as of the shell) of the ONNX nodes that leave the range or
            accuracy of fp16 and are computed in float32 in every engine.
        size_multiple: H and W are padded to a multiple of this inside the graph.
        minimum_size: Smallest H and W in input pixels.
        config: Hyper-parameters of the architecture.
        weights: Where the weights came from, for people: ``bundled vapsr-s-x4``,
            ``official VapSR_X4.pth``, a file name, or ``random``.
        weights_sha256: Digest of the tensors' names, shapes and values.
        random_weights: True where the network was never trained.
    """

    architecture: str
    variant: str
    scale: int
    receptive_radius: int
    global_operation: bool = False
    value_range: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    fp32_nodes: tuple[str, ...] = ()
    size_multiple: int = 1
    minimum_size: int = 1
    config: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    weights_sha256: str = ""
    random_weights: bool = False

    def with_weights(self, weights: str, sha256: str) -> ModelSpec:
        """The same network with other weights."""
        return dataclasses.replace(self, weights=weights, weights_sha256=sha256)


@dataclass(frozen=True)
class ShapeRange:
    """Input sizes that an engine takes: an optimisation profile of TensorRT.

    Attributes:
        minimum: Least (height, width) in pixels.
        optimum: The one to be fastest at.
        maximum: Largest.
        batches: Frames at once: least, optimum and most.
    """

    minimum: tuple[int, int] = (16, 16)
    optimum: tuple[int, int] = (180, 320)
    maximum: tuple[int, int] = (1080, 1920)
    batches: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        sizes = zip(self.minimum, self.optimum, self.maximum, strict=True)
        for low, mid, high in (*sizes, self.batches):
            if not 1 <= low <= mid <= high:
                raise ValueError(f"shapes must grow from minimum to maximum, got {self}")

    @classmethod
    def static(cls, height: int, width: int, batch: int = 1) -> ShapeRange:
        """One size alone."""
        size = (height, width)
        return cls(size, size, size, (batch, batch, batch))

    @property
    def is_static(self) -> bool:
        """Whether it holds one shape alone."""
        return self.minimum == self.maximum and self.batches[0] == self.batches[2]

    def holds(self, batch: int, height: int, width: int) -> bool:
        """Whether frames of this shape are within."""
        return (
            self.batches[0] <= batch <= self.batches[2]
            and self.minimum[0] <= height <= self.maximum[0]
            and self.minimum[1] <= width <= self.maximum[1]
        )

    def __str__(self) -> str:
        least, _, most = self.batches
        counts = f"{most}" if least == most else f"{least} to {most}"
        batch = "" if most == 1 else f"{counts} frames of "
        if self.minimum == self.maximum:
            return f"{batch}{self.minimum[1]}×{self.minimum[0]}"
        low, high = self.minimum, self.maximum
        return f"{batch}{low[1]}×{low[0]} to {high[1]}×{high[0]}"


class Compatibility(StrEnum):
    """Which other GPUs an engine of TensorRT runs on."""

    SAME_GPU = "same-gpu"
    SAME_CC = "same-cc"
    AMPERE_PLUS = "ampere+"


@dataclass(frozen=True)
class Gpu:
    """A GPU as far as an engine depends on it.

    Attributes:
        name: What the driver calls it.
        capability: Compute capability, ``8.6``.
        driver: Version of CUDA that the driver speaks, ``13.0``.
    """

    name: str
    capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, CUDA driver {self.driver})"


@dataclass(frozen=True)
class TensorRtOptions:
    """What TensorRT can be asked for beyond the graph, which holds the precision.

    Attributes:
        workspace_mib: Most scratch memory of a layer in MiB; 0 for what is free.
        optimization_level: 0 to 5: longer builds for faster engines.
        compatibility: Which GPUs the engine is to run on.
        version_compatible: Whether later TensorRTs of the same major version run it.
        stripped: Whether the weights are left out, to be put back from the ONNX.
        tf32: Whether float32 products may be rounded to TF32.
    """

    workspace_mib: int = 0
    optimization_level: int = 3
    compatibility: Compatibility = Compatibility.SAME_GPU
    version_compatible: bool = False
    stripped: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.workspace_mib < 0 or not 0 <= self.optimization_level <= 5:
            raise ValueError(f"no such options of TensorRT: {self}")


@dataclass(frozen=True)
class BuildConfig:
    """Everything that decides what an engine is; its hash names the engine.

    Attributes:
        onnx_sha256: Digest of the exported ONNX file that went in.
        target: Id of the target.
        target_version: Version of the library that builds.
        precision: What was asked for.
        rest: Type of what an int8 engine does not compute in int8.
        profiles: Input sizes, one optimisation profile each; engines of other targets than
            TensorRT take the first.
        calibration_sha256: Digest of the calibration pixels, for int8.
        float_nodes: Quantisable nodes that were left in ``rest``.
        capabilities: Compute capabilities such as ``8.6``, for ahead-of-time targets.
        plugins: TensorRT plugins that the engine calls, each with its version,
            ``srdeploy::oca 1``; none where the bodies of the custom ops were built in.
        islands: Nodes of an fp16 graph that are computed in float32, as a tensor of theirs
            passed half of fp16's range on calibration pictures; without those that the
            ``ModelSpec`` names.
        recovery_sha256: Digest of the graph after fine-tuning for int8, where there was any.
        graph_sha256: Digest of the graph that the target got: pixels, precision and Q/DQ in it.
        provider: Execution provider of ONNX Runtime: ``cpu``, ``cuda`` or ``tensorrt``.
        tensorrt: Options of TensorRT.
        gpu: What it is built on; None where the engine does not depend on it.
        in_pairs: Whether the int8 weights fit CPUs that add their products in pairs of 16 bits.
    """

    onnx_sha256: str
    target: str
    target_version: str
    precision: Precision
    rest: Precision = Precision.FP32
    profiles: tuple[ShapeRange, ...] = (ShapeRange(),)
    calibration_sha256: str = ""
    float_nodes: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    islands: tuple[str, ...] = ()
    recovery_sha256: str = ""
    graph_sha256: str = ""
    provider: str = ""
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    gpu: Gpu | None = None
    in_pairs: bool = False

    def __post_init__(self) -> None:
        if not self.profiles:
            raise ValueError("an engine needs input sizes")

    @property
    def shapes(self) -> ShapeRange:
        """The first profile: what the engine is timed at."""
        return self.profiles[0]

    def digest(self) -> str:
        """SHA-256 over all fields, so that no option can be forgotten."""
        return hashlib.sha256(dump(self).encode()).hexdigest()


TAIL = 4.0
"""Times the mean's loss that a single picture may lose where nothing else is said."""


@dataclass(frozen=True)
class Budget:
    """The largest loss that is allowed, dB, from 0 on and finite.

    Attributes:
        mean: Of a data set on average.
        worst: Of each picture.

    Raises:
        ValueError: A number is negative or not one, or the worst picture may lose less than all
            do on average.
    """

    mean: float
    worst: float

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= self.worst < math.inf:
            raise ValueError("expected a loss from 0 dB on, and for a picture no less than that")

    @classmethod
    def of_mean(cls, mean: float) -> Budget:
        """A picture may lose :data:`TAIL` times what all do on average."""
        return cls(mean, TAIL * mean)

    @property
    def tail(self) -> float:
        """How much more a picture may lose than all on average."""
        return self.worst / self.mean if self.mean else TAIL

    def __str__(self) -> str:
        return f"{self.mean:g} dB on average, {self.worst:g} dB for a picture"


@dataclass(frozen=True)
class ContentDrift:
    """Mean drift on the pictures of one content class, dB."""

    content: str
    drift: float


@dataclass(frozen=True)
class DriftRecord:
    """Quality of an engine on one data set, in dB over the Y channel; means unless said otherwise.

    ``drift`` is PSNR of the engine minus PSNR of the reference, both against ground truth;
    ``fidelity`` is PSNR of the engine against the reference; ``executed_on`` is the target
    that ran: another one than the engine's where the engine cannot run on the machine.
    ``worst`` is the picture of lowest drift, ``worst_drift`` its own; ``contents`` has the drift
    by content class, where the pictures have one; ``hard`` says that a budget holds for the
    pictures alone, not for their mean.
    """

    dataset: str
    psnr_reference: float
    psnr_engine: float
    drift: float
    fidelity: float
    reference_runtime: str
    executed_on: str = ""
    worst: str = ""
    worst_drift: float | None = None
    contents: tuple[ContentDrift, ...] = ()
    hard: bool = False


@dataclass(frozen=True)
class KernelGroup:
    """How far the kernels of some layers alone are from the graph.

    Attributes:
        layers: Which: the first of them, and how many are like it.
        difference: Code values of 255 on average over the frame that tells most.
        bound: What that may be.
    """

    layers: str
    difference: float
    bound: float


@dataclass(frozen=True)
class Manifest:
    """The passport of an engine, stored beside it as ``ENGINE.json``.

    Attributes:
        build: What the engine was built from.
        model: The network.
        engine_sha256: Digest of the engine file.
        engine_file: Name of the engine file, without a folder.
        device: What it was built on or for.
        int8_mac_share: Share of the Conv and MatMul MACs that run in int8.
        milliseconds: Median time of one frame of ``build.shapes.optimum``, None where the
            engine was not executed.
        timed_on: Machine on which it was.
        drift: Measured drift, empty where the engine was not executed.
        kernel_difference: Of an int8 engine as it executes from its graph as it is written, code
            values of 255 on average over the frame that tells most
            (:mod:`srdeploy.validate.kernel_check`); None where that was not measured.
        kernel_bound: What that may be.
        kernel_groups: The same of each kind of layers alone in int8, the worst first; empty where
            nobody asked and the whole is within its bound.
        notes: What was left out or should be known, one sentence each.
        created: Time of the build, ISO 8601, UTC.
        calibration_pictures: Fingerprints of the pictures that an int8 engine was calibrated or
            fine-tuned on
            (:mod:`srdeploy.calib.fingerprint`).
        budget: What the drift was held against; None where nothing was asked for.
        format: Version of this file's form.
    """

    build: BuildConfig
    model: ModelSpec
    engine_sha256: str
    engine_file: str
    device: str
    int8_mac_share: float = 0.0
    milliseconds: float | None = None
    timed_on: str = ""
    drift: tuple[DriftRecord, ...] = ()
    kernel_difference: float | None = None
    kernel_bound: float | None = None
    kernel_groups: tuple[KernelGroup, ...] = ()
    notes: tuple[str, ...] = ()
    created: str = ""
    calibration_pictures: tuple[str, ...] = ()
    budget: Budget | None = None
    format: int = MANIFEST_FORMAT


def dump(value: Any, indent: int | None = None) -> str:
    """Write a spec dataclass as JSON with sorted keys."""
    return json.dumps(dataclasses.asdict(value), indent=indent, sort_keys=True)


def load(kind: type[T], text: str) -> T:
    """Read a spec dataclass from JSON that nobody vouches for.

    Raises:
        ValueError: Not JSON, a field is missing, unknown or of another type.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise ValueError(f"not JSON: {exc}") from exc
    return revive(kind, data)


def revive(kind: type[T], data: Any) -> T:
    """Build a dataclass from what its JSON holds, every field checked against its type.

    Raises:
        ValueError: A field is missing, unknown or of another type.
    """
    return typing.cast(T, _revive(kind, data, kind.__name__))


def _revive(kind: Any, data: Any, where: str) -> Any:
    """Check ``data`` against the annotation ``kind`` and build the value."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _revive_dataclass(kind, data, where)
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in typing.get_args(kind):
            return None
        (inner,) = (a for a in typing.get_args(kind) if a is not type(None))
        return _revive(inner, data, where)
    if origin is tuple:
        return _revive_tuple(typing.get_args(kind), data, where)
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{where}: expected an object, got {type(data).__name__}")
        return data
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(data)  # raises ValueError itself
    if kind is float and type(data) in (int, float):
        return _finite(data, where)
    if type(data) is not kind:
        raise ValueError(f"{where}: expected {kind.__name__}, got {type(data).__name__}")
    return data


def _finite(data: int | float, where: str) -> float:
    try:
        number = float(data)
    except OverflowError as exc:
        raise ValueError(f"{where}: the number is too large") from exc
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a finite number, got {number}")
    return number


def _revive_dataclass(kind: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected an object, got {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = set(data) - set(hints)
    if unknown:
        raise ValueError(f"{where}: unknown fields {', '.join(sorted(map(str, unknown)))}")
    values = {name: _revive(hints[name], data[name], f"{where}.{name}") for name in data}
    try:
        return kind(**values)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{where}: {exc}") from exc


def _revive_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{where}: expected a list, got {type(data).__name__}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_revive(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(kinds) != len(data):
        raise ValueError(f"{where}: expected {len(kinds)} items, got {len(data)}")
    return tuple(
        _revive(k, item, f"{where}[{i}]")
        for i, (k, item) in enumerate(zip(kinds, data, strict=True))
    )
