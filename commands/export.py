"""``srdeploy export``: a checkpoint becomes a verified ONNX file."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError, SrDeployError
from ..files import write_bytes
from ..installation import install_extra
from ..spec import ModelSpec, Precision
from . import DEFAULT_MODEL, DEFAULT_SCALE, Say

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ExportOptions:
    """What ``export`` can be asked for; see ``srdeploy export --help``.

    Attributes:
        model: Family, model or variant; None with ``weights``, which then decide.
        scale: Upscaling factor; None for 4, or for what ``weights`` hold.
        weights: Checkpoint file.
        overrides: Hyper-parameters of ``weights`` that stand in no tensor.
        random_weights: Export an untrained network, for benchmarks.
        opset: ONNX operator set; None for the default.
        static: (H, W) of a static export.
        fp16: Compute in fp16 between float32 input and output.
        inline_ops: Write plain ONNX without custom ops.
        without: Graph passes to leave out.
    """

    model: str | None = None
    scale: int | None = None
    weights: Path | None = None
    overrides: Mapping[str, float] = field(default_factory=dict)
    random_weights: bool = False
    opset: int | None = None
    static: tuple[int, int] | None = None
    fp16: bool = False
    inline_ops: bool = False
    without: Collection[str] = ()


@dataclass(frozen=True)
class ExportResult:
    """What was written and how far it is from PyTorch.

    Attributes:
        path: The ONNX file.
        spec: The network.
        errors: Largest absolute difference on [0, 1] by size, ``N×H×W``.
        passes: Number of rewritten nodes by graph pass.
    """

    path: Path
    spec: ModelSpec
    errors: dict[str, float]
    passes: dict[str, int]

    def __fspath__(self) -> str:
        return str(self.path)


def export(options: ExportOptions, output: Path | None, say: Say) -> ExportResult:
    """Load a network, trace it, rewrite it, compare it with PyTorch and write it.

    Raises:
        SrDeployError: The weights, the network or the ONNX are not as they should be; nothing
            is written then.
    """
    if importlib.util.find_spec("torch") is None:
        raise SrDeployError(
            "export reads PyTorch checkpoints, and torch is not installed",
            f"{install_extra('torch')}; without it, run and build-engine start from the ONNX"
            " that comes with srdeploy",
        )
    from ..export.passes import run_passes
    from ..export.precision import lower
    from ..export.trace import trace
    from ..export.verify import FP16_TOLERANCE, TOLERANCE, default_sizes, verify
    from ..plugins.onnx_functions import inline_functions
    from ..runtime.model_file import OPSET
    from ..runtime.targets.onnxruntime import typed_runner

    network, spec = _load(options)
    say(f"{spec.variant}: {spec.weights}")
    model = trace(network, spec, options.opset or OPSET, options.static)
    reports = run_passes(model, options.without)
    if options.inline_ops:
        model = inline_functions(model)
    if options.fp16:
        model = lower(model, Precision.FP16)
    sizes = [(1, *options.static)] if options.static else default_sizes(spec)
    if options.fp16:  # what overflows in fp16 does not where a CPU computes it in float32
        errors = verify(model, network, sizes, FP16_TOLERANCE, typed_runner(model))
    else:
        errors = verify(model, network, sizes, TOLERANCE)
    path = output or Path(default_name(spec, options))
    write_bytes(path, model.SerializeToString())
    return ExportResult(
        path=path,
        spec=spec,
        errors={f"{n}×{h}×{w}": error for (n, h, w), error in errors.items()},
        passes={name: len(report.rewritten) for name, report in reports.items()},
    )


def default_name(spec: ModelSpec, options: ExportOptions) -> str:
    """Such as ``vapsr-s-x4.onnx`` or ``vapsr-s-x4_180x320_fp16.onnx``."""
    size = "_{}x{}".format(*options.static) if options.static else ""
    return f"{spec.variant}{size}{'_fp16' if options.fp16 else ''}.onnx"


def _load(options: ExportOptions) -> tuple[nn.Module, ModelSpec]:
    from ..models.weights.checkpoint import load_network
    from ..models.weights.resolve import load, random_network

    if options.random_weights:
        return random_network(options.model or DEFAULT_MODEL, options.scale or DEFAULT_SCALE)
    if not options.weights:
        return load(options.model or DEFAULT_MODEL, options.scale or DEFAULT_SCALE)
    network, spec = load_network(options.weights, options.weights.name, options.overrides)
    wrong_scale = options.scale and options.scale != spec.scale
    if wrong_scale:
        raise ExportError(
            f"{options.weights} holds {spec.variant}, not a network of scale {options.scale}",
            f"leave out --scale, or say --scale {spec.scale}",
        )
    if not _is_called(spec, options.model):
        raise ExportError(
            f"{options.weights} holds {spec.variant}, not {options.model}",
            "leave out --model: the tensors say what it is",
        )
    return network, spec


def _is_called(spec: ModelSpec, model: str | None) -> bool:
    """Whether ``model`` is the network's family, model or variant; no name fits all.

    Raises:
        SrDeployError: There is no such model, or none of this scale.
    """
    from ..models import candidates

    if model is None or model == spec.architecture:
        return True
    return spec.variant in {variant.name for _, variant in candidates(model, spec.scale)}
