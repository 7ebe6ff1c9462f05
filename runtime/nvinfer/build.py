"""Building: from a graph to an engine, in this process.

Precision stands in the graph alone: INT8 and FP16 are never asked for by a flag.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...spec import BuildConfig, Compatibility
from ..layers import INSPECTED, LISTING
from .library import Library
from .log import Log
from .parsing import parse

LEAST_WORKSPACE = 64 << 20
"""Bytes below which stepping the workspace down is given up."""

_COMPATIBILITY = {
    Compatibility.SAME_CC: "SAME_COMPUTE_CAPABILITY",
    Compatibility.AMPERE_PLUS: "AMPERE_PLUS",
}


@dataclass(frozen=True)
class BuildJob:
    """What a build gets.

    Attributes:
        graph: Serialised ONNX.
        config: Its options.
        capabilities: To build for, ahead of time.
        workspace: Bytes of scratch memory to start with; 0 for the library's own limit.
        timing_cache: What earlier builds timed, or nothing.
    """

    graph: bytes
    config: BuildConfig
    capabilities: tuple[str, ...] = ()
    workspace: int = 0
    timing_cache: bytes = b""


@dataclass(frozen=True)
class BuildOutcome:
    """What came of it.

    Attributes:
        engine: The serialised engine.
        log: All that the library said.
        timing_cache: What is timed now; empty where nothing is.
        notes: What should be known, one sentence each.
    """

    engine: bytes
    log: str
    timing_cache: bytes
    notes: tuple[str, ...] = ()


class BuildFailed(RuntimeError):
    """The builder gave no engine.

    Attributes:
        hint: What helps.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def build(library: Library, job: BuildJob) -> BuildOutcome:
    """Parse and build; the workspace is halved as often as the build runs out of memory.

    Raises:
        GraphRefused: The parser refuses a node.
        BuildFailed: The builder gives no engine, with its words.
    """
    log = Log(library.trt)
    _register_plugins(library, job.config)
    builder = library.trt.Builder(log.sink)
    network = builder.create_network(library.network_flags(bool(job.config.plugins)))
    parser = parse(library, network, job.graph, log)
    notes: list[str] = []

    def attempt(workspace: int) -> Any:
        config = _configure(library, builder, network, job, workspace)
        return config, builder.build_serialized_network(network, config)

    config, serialized = _step_down(attempt, job.workspace, log, notes)
    if serialized is None:
        raise _failure(job, log)
    del parser  # the network refers to weights that it owns: not before
    engine = bytes(serialized)
    return BuildOutcome(
        engine,
        log.text() + _inspected(library, engine, log),
        _timing_cache(library, config),
        tuple(notes),
    )


def _step_down(
    attempt: Callable[[int], Any], workspace: int, log: Log, notes: list[str]
) -> tuple[Any, Any]:
    """Try with less and less scratch memory as long as that is what is missing."""
    while True:
        since = log.position()
        config, serialized = attempt(workspace)
        smaller = workspace // 2
        if serialized is not None or not log.out_of_memory(since) or smaller < LEAST_WORKSPACE:
            return config, serialized
        notes.append(
            f"the build ran out of memory with a workspace of {workspace >> 20} MiB and was"
            f" repeated with {smaller >> 20} MiB"
        )
        workspace = smaller


def _failure(job: BuildJob, log: Log) -> BuildFailed:
    reason = log.errors() or "the builder gave no reason"
    needed = log.last("mem budget")
    if needed:
        largest = job.config.shapes
        return BuildFailed(
            f"{reason} ({needed.strip()})",
            f"raise --workspace, or build for smaller frames than {largest} with --shapes",
        )
    if log.out_of_memory():
        return BuildFailed(reason, "close what else uses the GPU, or build with smaller --shapes")
    return BuildFailed(reason)


def _register_plugins(library: Library, config: BuildConfig) -> None:
    """Register srdeploy's plugins for this GPU, or make sure that none is where none may be."""
    if not library.traits.plugins:
        from ...plugins import NAMESPACE

        creators = library.trt.get_plugin_registry().all_creators_recursive
        if ours := [c.name for c in creators if c.plugin_namespace == NAMESPACE]:
            raise BuildFailed(f"plugins are registered with it, which it cannot use: {ours}")
    elif config.plugins:
        assert config.gpu is not None  # plugins are built for the GPU that is here
        registry = importlib.import_module("srdeploy.plugins.tensorrt_registry")
        registry.register_plugins(config.gpu.capability)


def _configure(library: Library, builder: Any, network: Any, job: BuildJob, workspace: int) -> Any:
    """A builder configuration with every option of the job."""
    trt, options = library.trt, job.config.tensorrt
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is set from the start
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.stripped:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if level := _COMPATIBILITY.get(options.compatibility):
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    # Scratch memory then follows the frames at hand; without it a profile's largest may count.
    if resize := getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None):
        config.set_preview_feature(resize, True)
    if owned := getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None):
        config.set_flag(owned)  # the lanes own all memory, which capturing them wants
    if library.traits.times_kernels:
        _take_timing_cache(config, job.timing_cache)
    if library.traits.ahead_of_time:
        config.num_compute_capabilities = len(job.capabilities)
        for index, capability in enumerate(job.capabilities):
            known = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
            config.set_compute_capability(known, index)
    _add_profiles(builder, network, config, job.config)
    return config


def _add_profiles(builder: Any, network: Any, config: Any, wanted: BuildConfig) -> None:
    frames = network.get_input(0).name
    for shapes in wanted.profiles:
        low, mid, high = shapes.batches
        profile = builder.create_optimization_profile()
        profile.set_shape(
            frames,
            (low, *shapes.minimum, 3),
            (mid, *shapes.optimum, 3),
            (high, *shapes.maximum, 3),
        )
        if config.add_optimization_profile(profile) < 0:
            raise BuildFailed(f"the library refuses the profile {shapes}", "give other --shapes")


def _inspected(library: Library, engine: bytes, log: Log) -> str:
    """A line with what the inspector says of the layers, where the builder does not list them."""
    if log.last(LISTING) or library.traits.ahead_of_time:
        return ""  # what is built ahead of time is opened on the GPU that it is for
    runtime = library.trt.Runtime(log.sink)
    runtime.engine_host_code_allowed = True  # it was built a moment ago
    opened = runtime.deserialize_cuda_engine(engine)
    if opened is None:
        return ""
    inspector = opened.create_engine_inspector()
    document = inspector.get_engine_information(library.trt.LayerInformationFormat.JSON)
    return INSPECTED + " ".join(document.splitlines()) + "\n"


def _timing_cache(library: Library, config: Any) -> bytes:
    if not library.traits.times_kernels:
        return b""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(cache.serialize())


def _take_timing_cache(config: Any, content: bytes) -> None:
    """Use what was timed before; begin anew where it is another device's or is damaged."""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
