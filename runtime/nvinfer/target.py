"""What the targets ``tensorrt`` and ``tensorrt-rtx`` share."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...errors import EngineError, OutOfDeviceMemory, TargetUnavailable
from ...installation import install_extra
from ...spec import BuildConfig, Manifest, Precision
from .. import gpu_facts
from ..layers import LayerReport, report
from ..session import Session
from ..targets import BuiltEngine, Target
from .apart import build_apart
from .build import BuildJob, BuildOutcome
from .execution import NvinferExecution, OpenedEngine
from .lanes import Lane, LaneSession
from .library import Library

if TYPE_CHECKING:
    from ..cuda import CudaDevice

# A build takes minutes at most; what takes longer than this hangs.
TIMEOUT_SECONDS = 3600
TIMED_RUNS = 5
RUNTIME_PACKAGES = ("pycuda", "cuda.bindings")


class NvinferTarget(Target):
    """A target of the TensorRT family.

    Attributes:
        library: The bindings.
        module: Dotted name of the target's file, which has the bindings as ``LIBRARY``.
    """

    library: Library
    module: str
    uses_profiles = True
    precisions = frozenset({Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8})

    def version(self) -> str:
        return self.library.version

    def rest_precision(self) -> Precision:
        return Precision.FP16

    def runs_here(self) -> str | None:
        if problem := gpu_facts.driver_problem(self.library.cuda):
            return problem
        for package in RUNTIME_PACKAGES:
            if not _installed(package):
                return f"the package {package} is missing: {install_extra('cuda')}"
        return None

    def check(self, config: BuildConfig) -> None:
        self.library.check_options(config)

    def _built(self, job: BuildJob, device: str, notes: tuple[str, ...]) -> BuiltEngine:
        """Build in a process of its own, and compare the engine with the graph."""
        outcome = build_apart(self.module, str(self.library), job, TIMEOUT_SECONDS)
        self._keep(job, outcome)
        layers = self.layers_of(outcome.log, job.graph)
        differing = [node for node in layers.nodes if node.differs]
        if differing:
            first = differing[0]
            notes += (
                f"the builder chose another precision than asked for {len(differing)} layers:"
                f" {first.node} is {first.built}, asked was {first.asked}; --explain lists all",
            )
        return BuiltEngine(outcome.engine, device, (*notes, *outcome.notes), outcome.log, layers)

    def layers_of(self, log: str, graph: bytes) -> LayerReport:
        return report(log, graph)

    def _keep(self, job: BuildJob, outcome: BuildOutcome) -> None:
        """Keep what a build learnt for the next one."""

    def _open(self, content: bytes, manifest: Manifest, parallel: int, device: int) -> Session:
        return self.open_lanes(content, manifest, parallel, device)

    def open_lanes(
        self,
        content: bytes,
        manifest: Manifest,
        parallel: int = 1,
        device: int = 0,
        graphs: bool = True,
    ) -> LaneSession:
        """What :meth:`open` does; ``graphs`` says whether frames are launched as CUDA graphs.

        Raises:
            TargetUnavailable: It cannot run on this machine.
            EngineError: The file is damaged.
        """
        if reason := self.runs_here():
            raise TargetUnavailable(
                f"{manifest.engine_file} cannot be run here: {reason}",
                "--target auto builds an engine that this machine can run",
            )
        gpu = _gpu(device)
        try:
            with gpu.current():
                opened = self._opened(content, manifest, device)
                try:
                    executions = _executions(opened, manifest, parallel)
                except BaseException:
                    opened.close()
                    raise
        except EngineError as exc:
            gpu.close()
            exc.message = f"{manifest.engine_file}: {exc.message}"
            raise
        except BaseException:
            gpu.close()
            raise
        closer = self._closer(opened, manifest, device)
        return LaneSession(self.name, manifest.model.scale, gpu, executions, closer, graphs)

    def layer_times(self, content: bytes, manifest: Manifest) -> dict[str, float]:
        height, width = manifest.build.shapes.optimum
        frames = np.zeros((manifest.build.shapes.batches[1], height, width, 3), np.uint8)
        gpu = _gpu(0)
        try:
            with gpu.current(), contextlib.ExitStack() as stack:
                opened = self._opened(content, manifest, 0)
                stack.callback(opened.close)
                execution = opened.execution(manifest.build.profiles)
                stack.callback(execution.close)
                lane = Lane(gpu, execution, manifest.model.scale, graphs=False)
                stack.callback(lane.close)
                lane.run(frames)
                return lane.time(lambda stream: execution.time_layers(stream, TIMED_RUNS))
        finally:
            gpu.close()

    def _opened(self, content: bytes, manifest: Manifest, device: int) -> OpenedEngine:
        return OpenedEngine(self.library, content)

    def _closer(self, opened: OpenedEngine, manifest: Manifest, device: int) -> Callable[[], None]:
        return opened.close


def _gpu(device: int) -> CudaDevice:
    """A GPU, through packages that need a driver to be imported.

    Raises:
        TargetUnavailable: One of them cannot be.
    """
    try:
        from ..cuda import CudaDevice
    except ImportError as exc:
        raise TargetUnavailable(
            f"pycuda or cuda-bindings cannot be imported: {exc}",
            f"on this machine: {install_extra('cuda', again=True)}",
        ) from exc
    return CudaDevice(device)


def _executions(opened: OpenedEngine, manifest: Manifest, parallel: int) -> list[NvinferExecution]:
    """As many execution contexts as are wanted, or as have room; one at least.

    Raises:
        OutOfDeviceMemory: There is no room for one.
    """
    made = [opened.execution(manifest.build.profiles)]
    with contextlib.suppress(OutOfDeviceMemory):
        while len(made) < parallel:
            made.append(opened.execution(manifest.build.profiles))
    return made


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
