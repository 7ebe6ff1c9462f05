"""``srdeploy build-engine``: an exported ONNX becomes an engine with a manifest."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from .. import data
from ..calib.calibration_set import CalibrationSet
from ..calib.int8 import MAX_DRIFT, MIN_INT8, Int8Result, calibrate_int8
from ..calib.ranges import Progress
from ..errors import BuildError, TargetUnavailable
from ..export.macs import int8_mac_share
from ..export.pixels import with_pixels
from ..export.precision import lower
from ..files import digest_file
from ..runtime.engine import write_engine
from ..runtime.model_file import read_model
from ..runtime.session import Session
from ..runtime.targets import Target, open_target, target_names
from ..spec import BuildConfig, Manifest, ModelSpec, Precision, ShapeRange
from ..validate.datasets import Dataset, Pair
from ..validate.drift import DatasetResult, check_budget, measure, to_records
from ..validate.reference import open_reference
from ..validate.reference_cache import ReferenceCache
from . import Say
from .calibration import bundled, open_calibration_set

AUTO = "auto"
TIMED_FRAMES = 5


@dataclass(frozen=True)
class BuildOptions:
    """What ``build-engine`` can be asked for; see ``srdeploy build-engine --help``.

    Attributes:
        target: Id of a target, or ``auto`` for the fastest that runs here.
        precision: None for the fastest float type of the target that is safe.
        calibration: Pictures, videos and folders for int8; empty for the bundled pictures.
        strict: Whether a damaged file in such a folder is an error, instead of being skipped.
        max_drift: Largest loss in dB; None to measure without judging.
        shapes: Input sizes.
        capabilities: Compute capabilities of an ahead-of-time target; empty for all.
        min_int8: Least share of the Conv and MatMul MACs that int8 keeps in int8.
    """

    target: str = AUTO
    precision: Precision | None = None
    calibration: Sequence[Path] = ()
    max_drift: float | None = None
    shapes: ShapeRange = field(default_factory=ShapeRange)
    capabilities: tuple[str, ...] = ()
    min_int8: float = MIN_INT8
    strict: bool = False


@dataclass(frozen=True)
class BuildResult:
    """What was built and what it was measured to be.

    Attributes:
        path: The engine file.
        manifest: Its manifest.
        quality: Drift by picture of the proof set.
        calibration: What an int8 engine was calibrated on.
    """

    path: Path
    manifest: Manifest
    quality: tuple[DatasetResult, ...]
    calibration: CalibrationSet | None = None


@dataclass(frozen=True)
class _Source:
    """An exported model and what is computed from it once, whatever the targets."""

    model: onnx.ModelProto
    spec: ModelSpec
    sha256: str
    proof: Dataset
    reference: Session


def build_engine(
    source: Path,
    options: BuildOptions,
    output: Path | None,
    say: Say,
    progress: Progress | None = None,
) -> BuildResult:
    """Build an engine, time it, measure its drift, and write it with its manifest.

    Args:
        source: Exported ONNX.
        options: What is asked for.
        output: Engine to write; None for a name made of variant, precision and target.
        say: Takes lines for the user.
        progress: Told the calibration's steps.

    Raises:
        SrDeployError: The model or an option is refused; nothing is written then.
        DriftExceeded: The fastest engine loses more than ``options.max_drift``; it is not
            written either.
    """
    model, spec = read_model(source)
    targets = _targets(options, say)
    proof = Dataset(
        "bundled proof",
        tuple(Pair(p.name, p.path, None, spec.scale) for p in data.pictures("proof")),
    )
    with ReferenceCache(open_reference(model, spec)) as reference:
        job = _Source(model, spec, digest_file(source), proof, reference)
        calibrated = calibration = None
        if options.precision is Precision.INT8:
            calibration = open_calibration_set(options.calibration, options.strict, say)
            calibrated = _calibrate(job, calibration, options, say, progress)
        built = [_build_one(job, target, options, calibrated, say) for target in targets]
    best = min(built, key=lambda b: b.manifest.milliseconds or float("inf"))
    if options.max_drift is not None:
        check_budget(best.quality, options.max_drift)
    path = output or Path(best.manifest.engine_file)
    seen = sorted(str(member.fingerprint) for member in calibration.used) if calibration else ()
    manifest = dataclasses.replace(
        best.manifest, engine_file=path.name, calibration_pictures=tuple(seen)
    )
    write_engine(path, best.content, manifest)
    return BuildResult(path, manifest, best.quality, calibration)


@dataclass(frozen=True)
class _Built:
    """An engine that is not written yet."""

    content: bytes
    manifest: Manifest
    quality: tuple[DatasetResult, ...]


def _targets(options: BuildOptions, say: Say) -> list[Target]:
    """The target that was asked for, or all that run here and build the precision."""
    wanted = options.precision
    if options.target != AUTO:
        target = open_target(options.target)
        if wanted and wanted not in target.precisions:
            raise BuildError(
                f"the target {target.name} builds no {wanted}",
                f"it builds {', '.join(sorted(target.precisions))}",
            )
        return [target]
    fitting = []
    for name in target_names():
        try:
            target = open_target(name)
        except TargetUnavailable as exc:
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


def _calibrate(
    job: _Source,
    calibration: CalibrationSet,
    options: BuildOptions,
    say: Say,
    progress: Progress | None,
) -> Int8Result:
    """Activation ranges and the layers that are worst in int8; the same for every target."""
    result = calibrate_int8(
        job.model,
        calibration,
        bundled("tuning"),
        job.spec.scale,
        MAX_DRIFT if options.max_drift is None else options.max_drift,
        options.min_int8,
        progress=progress,
    )
    worst = ", ".join(f"{n.node} ({n.drift:+.3f} dB)" for n in result.float_nodes)
    say(f"left in float, with what each alone would lose in int8: {worst or 'none'}")
    tried = ", ".join(f"{t.int8_share:.0%} {t.drift:+.3f} dB" for t in result.trials)
    say(f"int8 share of the MACs, and drift on the tuning windows: {tried}")
    return result


def _build_one(
    job: _Source, target: Target, options: BuildOptions, int8: Int8Result | None, say: Say
) -> _Built:
    """Build for one target, then time it and measure its drift if it runs here."""
    rest = target.rest_precision()
    precision = options.precision or rest
    if precision is not Precision.INT8:
        rest = precision
    model, written = job.model, rest
    float_nodes: tuple[str, ...] = ()
    if int8 is not None:
        written = target.written_rest(rest)
        float_nodes = tuple(node.node for node in int8.float_nodes)
        model = int8.graph(written)
    lowered = lower(model, written)
    share = int8_mac_share(lowered)
    graph = with_pixels(lowered).SerializeToString()
    config = BuildConfig(
        onnx_sha256=job.sha256,
        target=target.name,
        target_version=target.version(),
        precision=precision,
        rest=rest,
        shapes=options.shapes,
        calibration_sha256=int8.calibration_sha256 if int8 else "",
        float_nodes=float_nodes,
        capabilities=options.capabilities,
    )
    started = time.perf_counter()
    built = target.build(graph, config)
    say(f"{target.name}: {precision} engine built in {time.perf_counter() - started:.1f} s")
    manifest = Manifest(
        build=config,
        model=job.spec,
        engine_sha256=hashlib.sha256(built.content).hexdigest(),
        engine_file=f"{job.spec.variant}_{precision}{target.suffix}",
        device=built.device,
        int8_mac_share=share,
        notes=built.notes,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return _measured(job, target, _Built(built.content, manifest, ()), graph, say)


def _measured(job: _Source, target: Target, built: _Built, graph: bytes, say: Say) -> _Built:
    """Add the measured time and drift; the graph runs elsewhere where the engine cannot."""
    manifest, why_not = built.manifest, target.runs_here()
    if why_not is None:
        with target.open(built.content, manifest) as session:
            milliseconds = _time(session, manifest.build.shapes)
            quality = measure(session, job.reference, [job.proof], job.spec.scale)
        records = to_records(quality, executed_on=target.name)
        height, width = manifest.build.shapes.optimum
        say(f"{target.name}: {milliseconds:.0f} ms for a frame of {width}×{height}")
        manifest = dataclasses.replace(manifest, milliseconds=milliseconds, drift=records)
        return _Built(built.content, manifest, quality)
    notes = (*manifest.notes, f"the engine was not executed: {why_not}")
    stand_in = _stand_in(manifest.build)
    if stand_in is None:
        notes += (f"its drift is unknown: no target here runs {manifest.build.rest} graphs",)
        return _Built(built.content, dataclasses.replace(manifest, notes=notes), ())
    same = stand_in.build(graph, dataclasses.replace(manifest.build, capabilities=()))
    with stand_in.open(same.content, manifest) as session:
        quality = measure(session, job.reference, [job.proof], job.spec.scale)
    notes += (f"its drift was measured by executing the same graph in {stand_in.name}",)
    records = to_records(quality, executed_on=stand_in.name)
    manifest = dataclasses.replace(manifest, notes=notes, drift=records)
    return _Built(built.content, manifest, quality)


def _stand_in(build: BuildConfig) -> Target | None:
    """A target that executes the graph of an engine which cannot run on this machine."""
    for name in target_names():
        try:
            target = open_target(name)
        except TargetUnavailable:
            continue
        if target.runs_here() is None and {build.precision, build.rest} <= target.precisions:
            return target
    return None


def _time(session: Session, shapes: ShapeRange) -> float:
    """Median milliseconds of a frame of the optimum size, after a warm-up."""
    frame = np.random.default_rng(0).integers(0, 256, (1, *shapes.optimum, 3), dtype=np.uint8)
    session.upscale(frame)
    times = []
    for _ in range(TIMED_FRAMES):
        started = time.perf_counter()
        session.upscale(frame)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
