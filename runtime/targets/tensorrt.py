"""TensorRT 10 and 11: engines built on the GPU that runs them.

One path serves both: networks are strongly typed, precision stands in the graph, and what
differs stands in :mod:`srdeploy.runtime.nvinfer.library`.
"""

from __future__ import annotations

import dataclasses

import tensorrt as trt

from ...errors import BuildError, EngineError
from ...spec import BuildConfig, Gpu, Manifest, Precision
from .. import gpu_facts
from ..nvinfer.build import BuildJob, BuildOutcome
from ..nvinfer.execution import OpenedEngine
from ..nvinfer.library import library_of
from ..nvinfer.plugin_choice import plugins_of
from ..nvinfer.staleness import AMPERE, gpu_mismatch, numbers, version_mismatch
from ..nvinfer.target import NvinferTarget
from ..store import EngineStore
from . import BuiltEngine

LIBRARY = library_of(trt)
# Of the memory that is free, what a build may use as scratch: kernels and weights need some too.
WORKSPACE_SHARE = 0.8


class TensorRtTarget(NvinferTarget):
    """The full TensorRT."""

    name = "tensorrt"
    suffix = ".trt.engine"
    library = LIBRARY
    module = __name__

    def settle(self, config: BuildConfig, graph: bytes) -> BuildConfig:
        self.check(config)
        gpu = gpu_facts.gpus()[0]
        if Precision.BF16 in (config.precision, config.rest) and numbers(gpu.capability) < AMPERE:
            raise BuildError(
                f"{gpu} has no bf16 arithmetic", "build with --fp16: it needs no newer GPU"
            )
        plugins, _ = plugins_of(graph, config, gpu)
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
        _, notes = plugins_of(graph, config, gpu)
        return self._built(job, str(gpu), notes)

    def _keep(self, job: BuildJob, outcome: BuildOutcome) -> None:
        assert job.config.gpu is not None
        EngineStore().write_timing_cache(self._timing_key(job.config.gpu), outcome.timing_cache)

    def _timing_key(self, gpu: Gpu) -> str:
        return f"{self.library} on {gpu}"

    def _opened(self, content: bytes, manifest: Manifest, device: int) -> OpenedEngine:
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


TARGET = TensorRtTarget()
