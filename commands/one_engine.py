"""One engine of one graph: built for a target, timed, its drift measured."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import onnx

from ..calib.int8 import Int8Result
from ..errors import EngineError
from ..export.macs import int8_mac_share
from ..export.pixels import with_pixels
from ..export.precision import lower
from ..export.sizes import fix_size
from ..runtime.fitting import FittingSession
from ..runtime.layers import LayerReport
from ..runtime.onnx_session import WrittenSession
from ..runtime.processor import machine
from ..runtime.session import Session
from ..runtime.store import EngineStore
from ..runtime.targets import Target, open_target
from ..runtime.timing import median_times
from ..spec import BuildConfig, Manifest, ModelSpec, Precision
from ..validate.datasets import Dataset
from ..validate.drift import DatasetResult, measure, to_records
from ..validate.kernel_check import KernelDifference, adversarial_frames, kernel_difference
from . import Say
from .half_range import HalfRange
from .stand_in import left_out, open_graph, stand_in_of

ROUNDS = 9
"""How often the engines that are compared are timed, in turn."""
CHECKED_SIZE = (48, 64)
"""Of the frames that the kernels are checked on, in pixels."""


@dataclass(frozen=True)
class Source:
    """An exported model and what is computed from it once, whatever the targets.

    Attributes:
        model: The float32 graph.
        spec: Its description.
        proof: What the drift is measured on.
        reference: What it is measured against.
        half_range: Keeps in float32 what fp16 cannot hold.
        config: What is asked for whatever the target: ONNX, profiles, options.
        store: Where engines are that were built before.
        fixed: Batch, height and width of a static ONNX that ``model`` was freed of; engines are
            given them back.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    proof: tuple[Dataset, ...]
    reference: Session
    half_range: HalfRange
    config: BuildConfig
    store: EngineStore = field(default_factory=EngineStore)
    fixed: tuple[int, int, int] | None = None

    def pixels_graph(self, lowered: onnx.ModelProto) -> bytes:
        """The graph of an engine, serialised, from the network in its precision."""
        sized = fix_size(lowered, self.fixed, self.spec.scale) if self.fixed else lowered
        return bytes(with_pixels(sized).SerializeToString())


@dataclass(frozen=True)
class Built:
    """An engine that is not written yet.

    Attributes:
        content: Of its file.
        manifest: With what was measured.
        quality: Drift by picture of the proof set; empty where nothing could be executed.
        findings: One sentence per tensor beyond half of fp16's range.
        int8: What the search found, for int8.
        log: What the builder said; empty where it says nothing.
        layers: As they were built, with their times where the engine runs here.
    """

    content: bytes
    manifest: Manifest
    quality: tuple[DatasetResult, ...]
    findings: tuple[str, ...]
    int8: Int8Result | None
    log: str = ""
    layers: LayerReport = field(default_factory=LayerReport)


def build_one(
    source: Source,
    target: Target,
    precision: Precision,
    int8: Int8Result | None,
    calibration_sha256: str,
    say: Say,
    recovery_sha256: str = "",
    calibration_pictures: tuple[str, ...] = (),
) -> Built:
    """Build for one target, or take what was built before from the store; then measure its drift
    if it runs here.

    Args:
        source: What to build from.
        target: What to build for.
        precision: Of the engine.
        int8: The layers in int8, for that precision.
        calibration_sha256: Digest of what it was calibrated on.
        say: Takes lines for the user.
        recovery_sha256: Digest of the fine-tuned graph, where there is one.
        calibration_pictures: Fingerprints of those that it was calibrated or fine-tuned on.

    Raises:
        SrDeployError: The graph or an option is refused.
    """
    rest = precision if int8 is None else target.rest_precision()
    written = rest if int8 is None else target.written_rest(rest)
    model = source.model if int8 is None else int8.graph(written)
    checked = source.half_range.pin(model, written)
    lowered = lower(checked.model, written)
    graph = source.pixels_graph(lowered)
    config = target.settle(
        dataclasses.replace(
            source.config,
            target=target.name,
            target_version=target.version(),
            precision=precision,
            rest=rest,
            calibration_sha256=calibration_sha256,
            float_nodes=int8.float_nodes if int8 else (),
            islands=checked.islands,
            recovery_sha256=recovery_sha256,
            in_pairs=int8 is not None and int8.repaired.quantiser.in_pairs,
            graph_sha256=hashlib.sha256(graph).hexdigest(),
        ),
        graph,
    )
    share = int8_mac_share(lowered)
    built = source.store.obtain(
        target, graph, config, source.spec, say, share, calibration_pictures
    )
    manifest = Manifest(
        build=config,
        model=source.spec,
        engine_sha256=hashlib.sha256(built.content).hexdigest(),
        engine_file=f"{source.spec.variant}_{precision}{target.suffix}",
        device=built.device,
        int8_mac_share=share,
        notes=(*built.notes, *checked.notes),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        calibration_pictures=calibration_pictures,
    )
    engine = Built(built.content, manifest, (), checked.notes, int8, built.log, built.layers)
    measured = _measured(source, target, engine, graph, say)
    source.store.record(config.digest(), measured.manifest)
    return measured


def build_choice(
    source: Source, target: Target, model: onnx.ModelProto, int8: bool
) -> tuple[bytes, Manifest, bytes]:
    """Build an engine of ``model`` to time or check it.

    Args:
        source: What it was made from.
        target: One that runs here.
        model: Float32, with Q/DQ where some of it is int8.
        int8: Whether any is.

    Returns:
        The engine, its manifest, and the graph that it executes.

    Raises:
        SrDeployError: The graph is refused.
    """
    rest = target.rest_precision()
    written = target.written_rest(rest) if int8 else rest
    lowered = lower(source.half_range.pin(model, written).model, written)
    graph = source.pixels_graph(lowered)
    config = dataclasses.replace(
        source.config,
        target=target.name,
        target_version=target.version(),
        precision=Precision.INT8 if int8 else rest,
        rest=rest,
    )
    config = target.settle(config, graph)
    built = target.build(graph, config)
    manifest = Manifest(config, source.spec, "", "an engine to time", built.device)
    return built.content, manifest, graph


def comparable(session: Session, target: Target, manifest: Manifest) -> FittingSession:
    """A session that cuts and pads frames as any other one of the same profiles does.

    An engine of one size and its reference then see the same windows of a picture.
    """
    return FittingSession(session, manifest, target.uses_profiles, exact=False)


def timed_together(source: Source, built: Sequence[Built], say: Say) -> list[Built]:
    """Add the time of a frame to the engines that run here, all of them timed in turn."""
    targets = [opened_target(one.manifest.build) for one in built]
    here = [
        index
        for index, one in enumerate(built)
        if targets[index].why_not_here(one.manifest.build) is None
    ]
    shapes = source.config.shapes
    with ExitStack() as held:
        sessions = [
            held.enter_context(targets[index].open(built[index].content, built[index].manifest))
            for index in here
        ]
        times = median_times(sessions, (shapes.batches[1], *shapes.optimum), ROUNDS)
    timed = list(built)
    height, width = shapes.optimum
    for index, milliseconds in zip(here, times, strict=True):
        manifest = dataclasses.replace(
            built[index].manifest, milliseconds=milliseconds, timed_on=machine()
        )
        timed[index] = dataclasses.replace(built[index], manifest=manifest)
        source.store.record(manifest.build.digest(), manifest)
        name = f"{manifest.build.target} {manifest.build.precision}"
        say(f"{name}: {milliseconds:.0f} ms for a frame of {width}×{height}")
    return timed


def opened_target(build: BuildConfig) -> Target:
    """The target of an engine, on its provider.

    Raises:
        TargetUnavailable: Its library is not here.
    """
    return open_target(build.target).with_provider(build.provider)


def _measured(source: Source, target: Target, built: Built, graph: bytes, say: Say) -> Built:
    """Add the measured drift; the graph runs elsewhere where the engine cannot."""
    manifest = built.manifest
    why_not = target.why_not_here(manifest.build)
    if why_not is None:
        with target.open(built.content, manifest) as session:
            quality = measured_quality(source, session, target, manifest)
            if manifest.build.precision is Precision.INT8:
                found = check_kernels(source, target, built.content, manifest, graph)
                manifest = dataclasses.replace(
                    manifest, kernel_difference=found.apart, kernel_bound=found.bound
                )
        layers = built.layers.timed(_layer_times(target, built, say))
        records = to_records(quality, executed_on=target.name)
        manifest = dataclasses.replace(manifest, drift=records)
        return dataclasses.replace(built, manifest=manifest, quality=quality, layers=layers)
    notes = (*manifest.notes, f"the engine was not executed: {why_not}")
    stand_in = stand_in_of(manifest.build)
    if stand_in is None:
        notes += (f"its drift is unknown: no target here runs {manifest.build.rest} graphs",)
        return dataclasses.replace(built, manifest=dataclasses.replace(manifest, notes=notes))
    with open_graph(stand_in, graph, manifest) as session:
        quality = measured_quality(source, session, target, manifest)
    notes += (
        f"its drift was measured by executing the same graph in {stand_in.name}",
        *left_out(stand_in, manifest.build),
    )
    records = to_records(quality, executed_on=stand_in.name)
    manifest = dataclasses.replace(manifest, notes=notes, drift=records)
    return dataclasses.replace(built, manifest=manifest, quality=quality)


def measured_quality(
    source: Source, session: Session, target: Target, manifest: Manifest
) -> tuple[DatasetResult, ...]:
    """Drift of a session, on windows of the proof pictures where it takes no other sizes."""
    engine, reference = (comparable(s, target, manifest) for s in (session, source.reference))
    return measure(engine, reference, source.proof, source.spec.scale)


def check_kernels(
    source: Source, target: Target, content: bytes, manifest: Manifest, graph: bytes
) -> KernelDifference:
    """How far the kernels of an int8 engine are from its graph: as it is opened here, and as a
    plain session of its library opens it."""
    build = manifest.build
    bound = target.uses_profiles or all(profile.is_static for profile in build.profiles)
    height, width = build.shapes.minimum if bound else CHECKED_SIZE
    least = source.spec.minimum_size
    frames = adversarial_frames(max(height, least), max(width, least))
    opened = target.open(content, manifest), target.open_plain(content, manifest)
    with ExitStack() as held:
        engines = [held.enter_context(session) for session in opened if session is not None]
        written = WrittenSession(graph, source.spec.scale)
        *compared, as_written, network = (
            comparable(s, target, manifest) for s in (*engines, written, source.reference)
        )
        return kernel_difference(compared, as_written, network, frames)


def _layer_times(target: Target, built: Built, say: Say) -> dict[str, float]:
    """Times of the layers; a good engine is not lost where they cannot be had."""
    try:
        return target.layer_times(built.content, built.manifest)
    except EngineError as exc:
        say(f"note: the layers were not timed: {exc.message}")
        return {}
