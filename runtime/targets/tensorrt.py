"""TensorRT 10 and 11: engines built on the GPU that runs them.

One path serves both: networks are strongly typed, precision stands in the graph, and what
differs stands in :mod:`srdeploy.runtime.nvinfer.library`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util

import onnx
import tensorrt as trt

from ...errors import BuildError, EngineError, PluginError
from ...plugins import DOMAIN, NAMESPACE, plugin_versions
from ...spec import BuildConfig, Compatibility, Gpu, Manifest, Precision
from .. import gpu_facts
from ..nvinfer.build import BuildJob, BuildOutcome
from ..nvinfer.execution import OpenedEngine
from ..nvinfer.library import library_of
from ..nvinfer.target import NvinferTarget
from ..store import EngineStore
from . import BuiltEngine

LIBRARY = library_of(trt)
AMPERE = (8, 0)
# Of the memory that is free, what a build may use as scratch: kernels and weights need some too.
WORKSPACE_SHARE = 0.8


class TensorRtTarget(NvinferTarget):
    """The full TensorRT."""

    name = "tensorrt"
    suffix = ".trt.engine"
    library = LIBRARY
    module = __name__

    def settle(self, config: BuildConfig, graph: bytes) -> BuildConfig:
        self.library.check_options(config)
        gpu = gpu_facts.gpus()[0]
        if Precision.BF16 in (config.precision, config.rest) and numbers(gpu.capability) < AMPERE:
            raise BuildError(
                f"{gpu} has no bf16 arithmetic", "build with --fp16: it needs no newer GPU"
            )
        plugins, _ = plugins_of(graph)
        return dataclasses.replace(config, gpu=gpu, plugins=plugins)

    def mismatch(self, build: BuildConfig, device: int = 0) -> str | None:
        if reason := version_mismatch(build, self.version()):
            return reason
        here = gpu_facts.gpus()
        if device >= len(here):
            return f"was asked to run on GPU {device}, there are {len(here)}"
        return gpu_mismatch(build, here[device])

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        gpu = gpu_facts.gpus()[0]
        workspace = config.tensorrt.workspace_mib << 20
        job = BuildJob(
            graph,
            dataclasses.replace(config, gpu=gpu),
            workspace=workspace or int(gpu_facts.free_memory() * WORKSPACE_SHARE),
            timing_cache=EngineStore().read_timing_cache(self._timing_key(gpu)) or b"",
        )
        _, notes = plugins_of(graph)
        return self._built(job, str(gpu), notes)

    def _keep(self, job: BuildJob, outcome: BuildOutcome) -> None:
        assert job.config.gpu is not None
        EngineStore().write_timing_cache(self._timing_key(job.config.gpu), outcome.timing_cache)

    def _timing_key(self, gpu: Gpu) -> str:
        return f"{self.library} on {gpu}"

    def _opened(self, content: bytes, manifest: Manifest) -> OpenedEngine:
        options, graph = manifest.build.tensorrt, b""
        if options.stripped:
            found = EngineStore().graph_of(manifest.build.graph_sha256)
            if found is None:
                raise EngineError(
                    f"{manifest.engine_file} was built without weights, and the graph that has"
                    " them is not in the engine store",
                    "srdeploy engines import BUNDLE brings it, or build the engine again",
                )
            graph = found
        return OpenedEngine(self.library, content, graph, options.version_compatible)


def numbers(version: str) -> tuple[int, ...]:
    """``8.6`` as numbers that compare."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def version_mismatch(build: BuildConfig, here: str) -> str | None:
    """Why this TensorRT does not run an engine, from what the two were made with."""
    if here == build.target_version:
        return None
    built = numbers(build.target_version)
    later = numbers(here)[:1] == built[:1] and numbers(here) >= built
    if build.tensorrt.version_compatible and later:
        return None
    kind = "for TensorRT from" if build.tensorrt.version_compatible else "for TensorRT"
    return f"was built {kind} {build.target_version}, here is {here}"


def gpu_mismatch(build: BuildConfig, here: Gpu) -> str | None:
    """Why this GPU does not run an engine."""
    built = build.gpu
    if built is None:
        return "does not say which GPU it was built on"
    level = build.tensorrt.compatibility
    fits = {
        Compatibility.SAME_GPU: here.name == built.name and here.capability == built.capability,
        Compatibility.SAME_CC: here.capability == built.capability,
        Compatibility.AMPERE_PLUS: numbers(here.capability) >= AMPERE,
    }[level]
    same_driver = here.driver == built.driver
    if level is not Compatibility.SAME_GPU:
        same_driver = numbers(here.driver) >= numbers(built.driver)
    if fits and same_driver:
        return None
    others = "" if level is Compatibility.SAME_GPU else f" with --compat {level}"
    return f"was built on {built}{others}, here is {here}"


def plugins_of(graph: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plugins that an engine of a graph calls, with versions, and notes where it calls none.

    A node whose plugin cannot be had is built from its body of standard operators.
    """
    model = onnx.load_model_from_string(graph)
    ops = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    ops |= {n.op_type for f in model.functions for n in f.node if n.domain == DOMAIN}
    wanted = {f"{NAMESPACE}::{op}": f"{NAMESPACE}::{op}" for op in ops}
    versions = plugin_versions()
    calls = tuple(sorted(f"{name} {versions[name]}" for name in wanted if name in versions))
    if not calls:
        return (), ()
    body = "its body of standard operators is built in"
    if importlib.util.find_spec("triton") is None:
        return (), (f"no plugin for {', '.join(sorted(ops))}: Triton is not installed; {body}",)
    registry = importlib.import_module("srdeploy.plugins.tensorrt_registry")
    try:
        registry.check_bindings()
    except PluginError as exc:
        return (), (f"no plugin for {', '.join(sorted(ops))}: {exc.message}; {body}",)
    return calls, ()


TARGET = TensorRtTarget()
