"""``srdeploy build-engine``: an exported ONNX becomes an engine with a manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import data
from ..calib.calibration_set import CalibrationSet
from ..calib.int8 import MAX_DRIFT, MIN_INT8, Int8Result
from ..calib.listing import to_json
from ..calib.ranges import Progress
from ..errors import BuildError, EngineError
from ..export.sizes import static_size
from ..files import digest_file, write_bytes
from ..report.build import write_build_page
from ..runtime import gpu_facts
from ..runtime.engine import log_path, page_path, read_manifest, write_engine
from ..runtime.layers import LayerReport
from ..runtime.model_file import read_model
from ..runtime.targets import Target, open_target, target_names
from ..spec import Budget, BuildConfig, Manifest, Precision, ShapeRange, TensorRtOptions, dump
from ..validate.datasets import Dataset, Pair
from ..validate.drift import (
    DatasetResult,
)
from ..validate.reference import open_reference
from ..validate.reference_cache import ReferenceCache
from ..validate.results import dataset_to_json
from . import Say
from .calibration import open_calibration_set
from .delivery import best_of, compared, refuse_drift, refuse_kernels
from .half_range import HalfRange
from .int8_search import Int8Search
from .one_engine import Built, Source, build_one, opened_target, timed_together
from .static_int8 import freed_of_size

AUTO = "auto"
FOR_NVIDIA = frozenset({"tensorrt", "tensorrt-rtx"})
"""Targets whose library nobody misses on a machine without an NVIDIA GPU."""


@dataclass(frozen=True)
class BuildOptions:
    """What ``build-engine`` can be asked for; see ``srdeploy build-engine --help``.

    Attributes:
        target: Id of a target, or ``auto`` for the fastest that runs here.
        precision: None for the fastest float type of the target that is safe.
        calibration: Pictures, videos and folders for int8, and to check fp16's range on; empty
            for the bundled pictures.
        calib_only: Whether int8 is calibrated on those alone, without the bundled drawings.
        finetune: Folders of pictures to train the int8 network on; empty for no training.
        provider: Execution provider of ONNX Runtime: cpu, cuda or tensorrt; empty for cpu.
        tensorrt: Options of TensorRT.
        observer: What ranges of activations are observed with for int8.
        strict: Whether a damaged file in such a folder is an error, instead of being skipped.
        budget: Largest loss; None to measure without judging.
        profiles: Input sizes; empty for the default, or for the one of a static ONNX.
        capabilities: Compute capabilities of an ahead-of-time target; empty for all.
        min_int8: Least share of the Conv and MatMul MACs that int8 keeps in int8.
        portable: Whether the int8 weights are to fit every CPU, and not this one alone.
        explain: Whether the kernels of each kind of layers are checked too, for int8.
        notes: Further sentences for the manifest.
    """

    target: str = AUTO
    precision: Precision | None = None
    calibration: Sequence[Path] = ()
    budget: Budget | None = None
    profiles: tuple[ShapeRange, ...] = ()
    capabilities: tuple[str, ...] = ()
    min_int8: float = MIN_INT8
    portable: bool = False
    explain: bool = False
    strict: bool = False
    calib_only: bool = False
    finetune: Sequence[Path] = ()
    observer: str = "percentile"
    provider: str = ""
    tensorrt: TensorRtOptions = field(default_factory=TensorRtOptions)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildResult:
    """What was built and what it was measured to be.

    Attributes:
        path: The engine file.
        page: The HTML page of the build.
        manifest: Its manifest.
        quality: Drift by picture of the proof set.
        calibration: What an int8 engine was calibrated on.
        int8: What the search found, for int8.
        layers: As they were built; empty where the target does not tell.
        log: What the builder said; None where it says nothing.
    """

    path: Path
    page: Path
    manifest: Manifest
    quality: tuple[DatasetResult, ...]
    calibration: CalibrationSet | None = None
    int8: Int8Result | None = None
    layers: LayerReport = field(default_factory=LayerReport)
    log: Path | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of what else was written: the page, and the log where there is one."""
        return (self.page.name, self.log.name) if self.log else (self.page.name,)

    def document(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        made: dict[str, Any] = {"path": str(self.path), "page": str(self.page)}
        made |= json.loads(dump(self.manifest))
        made["layers"] = dataclasses.asdict(self.layers)
        made["datasets"] = [dataset_to_json(result) for result in self.quality]
        if self.calibration and self.int8:
            made["calibration"] = self.calibration.manifest()
            made["search"] = to_json(self.int8.report)
            made["ranges"] = dict(self.int8.repaired.quantiser.ranges)
        return made


def build_engine(
    source: Path,
    options: BuildOptions,
    output: Path | None,
    say: Say,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an engine, time it, measure its drift, and write it with its manifest and page.

    Args:
        source: Exported ONNX.
        options: What is asked for.
        output: Engine to write; None for a name made of variant, precision and target.
        say: Takes lines for the user.
        progress: Told the calibration's steps.

    Raises:
        SrDeployError: The model or an option is refused; nothing is written then.
        DriftExceeded: The fastest engine loses more than ``options.budget``; it is not written
            either.
    """
    model, spec = read_model(source)
    targets = _targets(options, say)
    calibration = None
    if options.precision is Precision.INT8:
        calibration = open_calibration_set(
            options.calibration, options.strict, say, options.calib_only
        )
    size = static_size(model)
    with ReferenceCache(open_reference(model, spec)) as reference:
        if size and calibration:
            model = freed_of_size(model, spec, size, reference, source)
        job = Source(
            model,
            spec,
            _proof(spec.scale),
            reference,
            HalfRange(options.calibration, say, progress),
            dataclasses.replace(
                _asked(options),
                onnx_sha256=digest_file(source),
                profiles=_profiles(size, options.profiles, source),
            ),
            fixed=size if calibration else None,
        )
        built = _build(job, targets, calibration, options, say, progress)
        in_float = _in_float(job, built, say) if calibration else []
        timed = timed_together(job, [*built, *in_float], say)
    best = best_of(timed[: len(built)], _searched_for(options))
    refuse_kernels(best)
    refuse_drift(best, options.budget)
    path = output or Path(best.manifest.engine_file)
    if in_float:
        rival = best_of(timed[len(built) :], options.budget)
        best = compared(best, rival, say)
        if options.target == AUTO and output is None:
            _write_rival(rival, options, say)
    return _write(best, path, options, calibration)


def _write(
    built: Built, path: Path, options: BuildOptions, calibration: CalibrationSet | None
) -> BuildResult:
    """Write an engine with its manifest, page and log."""
    manifest = dataclasses.replace(
        built.manifest,
        engine_file=path.name,
        notes=(*built.manifest.notes, *options.notes),
        budget=_searched_for(options) if built.int8 else options.budget,
    )
    write_engine(path, built.content, manifest)
    log = log_path(path) if built.log else None
    if log is not None:
        write_bytes(log, built.log.encode())
    write_build_page(
        page_path(path),
        manifest,
        built.quality,
        built.int8.report if built.int8 else None,
        calibration.manifest() if calibration else None,
        built.findings,
        options.budget,
    )
    return BuildResult(
        path, page_path(path), manifest, built.quality, calibration, built.int8, built.layers, log
    )


def _write_rival(rival: Built, options: BuildOptions, say: Say) -> None:
    """Write the float engine beside that of int8, unless another one has its name."""
    path = Path(rival.manifest.engine_file)
    if path.exists() and not _is_same(path, rival):
        say(f"{path} is another engine: the one to compare with was not written")
        return
    say(f"wrote {_write(rival, path, options, None).path}, to compare with")


def _is_same(path: Path, built: Built) -> bool:
    try:
        return read_manifest(path).build == built.manifest.build
    except EngineError:
        return False


def _proof(scale: int) -> tuple[Dataset, ...]:
    """The bundled pictures that nothing was chosen on; drawings apart, which are hard: flat areas
    and clean edges have a PSNR that every rounding shows in."""
    sets: dict[bool, list[Pair]] = {False: [], True: []}
    for picture in data.pictures("proof"):
        pair = Pair(picture.name, picture.path, None, scale, picture.content)
        sets[picture.drawn].append(pair)
    return (
        Dataset("bundled photographs", tuple(sets[False])),
        Dataset("bundled drawings", tuple(sets[True]), hard=True),
    )


def _in_float(source: Source, built: Sequence[Built], say: Say) -> list[Built]:
    """Float engines to compare int8 with, of the targets that run here."""
    targets = [opened_target(one.manifest.build) for one in built]
    return [
        build_one(source, target, target.rest_precision(), None, "", say)
        for target, one in zip(targets, built, strict=True)
        if target.why_not_here(one.manifest.build) is None
    ]


def _asked(options: BuildOptions) -> BuildConfig:
    """What the options say of an engine, whatever the graph and the target."""
    return BuildConfig(
        onnx_sha256="",
        target="",
        target_version="",
        precision=options.precision or Precision.FP32,
        capabilities=options.capabilities,
        provider=options.provider,
        tensorrt=options.tensorrt,
    )


def _profiles(
    size: tuple[int, int, int] | None, wanted: tuple[ShapeRange, ...], source: Path
) -> tuple[ShapeRange, ...]:
    """Input sizes: what was asked for, by default the only ``size`` of a static ONNX.

    Raises:
        BuildError: A static ONNX takes another one.
    """
    if size is None:
        return wanted or (ShapeRange(),)
    batch, height, width = size
    only = ShapeRange.static(height, width, batch)
    if wanted and wanted != (only,):
        raise BuildError(
            f"{source} takes frames of {width}×{height} only",
            "leave --shapes out, or export it without --static",
        )
    return (only,)


def _build(
    job: Source,
    targets: Sequence[Target],
    calibration: CalibrationSet | None,
    options: BuildOptions,
    say: Say,
    progress: Progress | None,
) -> list[Built]:
    """An engine for each target."""
    if calibration is None:
        return [
            build_one(job, t, options.precision or t.rest_precision(), None, "", say)
            for t in targets
        ]
    budget = _searched_for(options)
    assert budget is not None  # of int8 there always is one
    search = Int8Search(
        job,
        calibration,
        budget,
        options.min_int8,
        options.finetune,
        options.observer,
        options.portable,
        options.explain,
        say,
        progress,
    )
    return [search.build(target) for target in search.worth_searching(targets)]


def _searched_for(options: BuildOptions) -> Budget | None:
    """The budget that engines are chosen by: for int8 there always is one."""
    if options.budget is None and options.precision is Precision.INT8:
        return Budget.of_mean(MAX_DRIFT)
    return options.budget


def _targets(options: BuildOptions, say: Say) -> list[Target]:
    """The target that was asked for, or all that run here and build the precision."""
    wanted = options.precision
    asked = _asked(options)
    if options.target != AUTO:
        target = open_target(options.target).with_provider(options.provider)
        if wanted and wanted not in target.precisions:
            raise BuildError(
                f"the target {target.name} builds no {wanted}",
                f"it builds {', '.join(sorted(target.precisions))}",
            )
        target.check(asked)
        return [target]
    fitting = []
    for name in target_names():
        try:
            target = open_target(name).with_provider(options.provider)
            target.check(asked)
        except BuildError as exc:
            if not (name in FOR_NVIDIA and gpu_facts.driver_problem()):
                say(f"{exc.message}; {exc.hint}")
            continue
        if target.runs_here() is None and (wanted is None or wanted in target.precisions):
            fitting.append(target)
    if not fitting:
        raise BuildError(
            f"no target on this machine runs {wanted}",
            "srdeploy doctor shows what this machine can do; --target builds for another one",
        )
    return fitting
