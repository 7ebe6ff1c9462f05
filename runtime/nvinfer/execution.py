"""Engines and execution contexts of the TensorRT family, behind the runtime's protocols."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ...errors import EngineError, OutOfDeviceMemory
from ...spec import ShapeRange
from .library import Library
from .log import Log

FRAMES, UPSCALED = "frames", "upscaled"


class OpenedEngine:
    """A deserialised engine.

    Args:
        library: That built it.
        content: The engine, checked against its manifest before.
        graph: The ONNX that the weights of a stripped engine come from, else nothing.
        host_code: Whether it carries a runtime of its own, as version-compatible ones do.
        runtime_cache: Kernels that were compiled before, where the library keeps some.

    Raises:
        EngineError: The library refuses the engine or the weights.
        OutOfDeviceMemory: Its weights do not fit.
    """

    def __init__(
        self,
        library: Library,
        content: bytes,
        graph: bytes = b"",
        host_code: bool = False,
        runtime_cache: bytes = b"",
    ) -> None:
        self.library = library
        self.log = Log(library.trt, everything=False)
        self._runtime = library.trt.Runtime(self.log.sink)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise self.failure("the engine cannot be opened")
        if graph:
            self._refit(graph)
        self._config: Any = None
        self._cache: Any = None
        if library.traits.runtime_cache:
            self._configure(runtime_cache)

    def _refit(self, graph: bytes) -> None:
        """Put the weights of a stripped engine back."""
        trt = self.library.trt
        refitter = trt.Refitter(self._engine, self.log.sink)
        parser = trt.OnnxParserRefitter(refitter, self.log.sink)
        if not parser.refit_from_bytes(graph) or not refitter.refit_cuda_engine():
            raise self.failure("the weights cannot be put back into the engine")

    def _configure(self, runtime_cache: bytes) -> None:
        strategy = self.library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(strategy)
        # Its default compiles better kernels in the background, which a captured graph would
        # never take up: it keeps the ones that it was captured with.
        eager = self.library.trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._config.dynamic_shapes_kernel_specialization_strategy = eager
        self._cache = self._config.create_runtime_cache()
        if runtime_cache:
            self._cache.deserialize(runtime_cache)  # another machine's is refused by itself
        self._config.set_runtime_cache(self._cache)

    def execution(self, profiles: Sequence[ShapeRange]) -> NvinferExecution:
        """A new execution context, whose scratch memory is the caller's."""
        return NvinferExecution(self, profiles)

    def context(self) -> Any:
        """A new ``IExecutionContext``.

        Raises:
            EngineError: None could be made.
        """
        since = self.log.position()
        strategy = self.library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._config or strategy)
        if context is None:
            raise self.failure("no execution context could be made", since)
        return context

    def runtime_cache(self) -> bytes:
        """The compiled kernels, for the next time; empty where there are none."""
        kept = None if self._cache is None else self._cache.serialize()
        return b"" if kept is None else bytes(kept)

    def failure(self, what: str, since: int = 0) -> EngineError:
        """The library's last errors as one of ours."""
        reason = self.log.errors(since)
        message = f"{what}: {reason}" if reason else what
        if self.log.out_of_memory(since):
            return OutOfDeviceMemory(message)
        return EngineError(message)

    def close(self) -> None:
        """Give everything back, in the order that the library wants."""
        self._cache = self._config = None
        self._engine = None
        self._runtime = None


class NvinferExecution:
    """An execution context; see :class:`~srdeploy.runtime.nvinfer.device.Execution`."""

    def __init__(self, opened: OpenedEngine, profiles: Sequence[ShapeRange]) -> None:
        self._opened, self._context = opened, opened.context()
        self._profiles = profiles
        self._profile: int | None = None

    def reshape(self, shape: tuple[int, ...], stream: Any) -> int:
        """See :meth:`Execution.reshape`."""
        since = self._opened.log.position()
        profile = profile_for(self._profiles, shape)
        if profile != self._profile:
            if self._profile is not None:  # switching a used context is known to fail
                self._context = self._opened.context()
            if not self._context.set_optimization_profile_async(profile, stream.handle):
                raise self._opened.failure(f"the profile {profile} cannot be set", since)
            self._profile = profile
        if not self._context.set_input_shape(FRAMES, tuple(shape)):
            raise self._opened.failure(f"the engine refuses frames of {shape}", since)
        scratch = int(self._context.update_device_memory_size_for_shapes())
        self._check(f"the memory for frames of {shape} is not known", since)
        return scratch

    def capturable(self, stream: Any) -> bool:
        """See :meth:`Execution.capturable`."""
        if not self._opened.library.traits.runtime_cache:
            return True
        return bool(self._context.is_stream_capturable(stream.handle))

    def _check(self, what: str, since: int) -> None:
        """Raise what the library complained of in a call that returns nothing."""
        if self._opened.log.errors(since, own=True):
            raise self._opened.failure(what, since)

    def bind(self, frames: int, upscaled: int, scratch: int, scratch_size: int) -> None:
        """See :meth:`Execution.bind`."""
        since = self._opened.log.position()
        self._context.set_device_memory(scratch, scratch_size)
        self._check("the engine refuses its scratch memory", since)
        for name, address in ((FRAMES, frames), (UPSCALED, upscaled)):
            if not self._context.set_tensor_address(name, address):
                raise self._opened.failure(f"the engine has no tensor '{name}'")

    def enqueue(self, stream: Any) -> None:
        """See :meth:`Execution.enqueue`."""
        since = self._opened.log.position()
        if not self._context.execute_async_v3(stream.handle):
            raise self._opened.failure("the engine could not be run", since)

    def time_layers(self, stream: Any, runs: int) -> dict[str, float]:
        """Median milliseconds of each layer over some runs at the present shape."""
        profiler = _layer_clock(self._opened.library.trt)
        self._context.profiler = profiler
        for _ in range(runs):
            self.enqueue(stream)
            stream.wait()
        return {name: statistics.median(times) for name, times in profiler.times.items()}

    def close(self) -> None:
        """See :meth:`Execution.close`."""
        self._context = None


def profile_for(profiles: Sequence[ShapeRange], shape: tuple[int, ...]) -> int:
    """Index of the profile that holds frames and is optimised nearest to them.

    Raises:
        EngineError: None does.
    """
    n, height, width, _ = shape
    holding = [i for i, p in enumerate(profiles) if p.holds(n, height, width)]
    if not holding:
        known = "; ".join(map(str, profiles))
        raise EngineError(
            f"{n} × {width}×{height} pixels are outside the engine's profiles: {known}",
            f"build it with --shapes that hold {height}x{width}, or use --tile",
        )

    def distance(index: int) -> float:
        best = profiles[index].optimum
        return abs(best[0] * best[1] - height * width)

    return min(holding, key=distance)


def _layer_clock(trt: Any) -> Any:
    class Clock(trt.IProfiler):  # type: ignore[misc]  # the base class comes with the bindings
        def __init__(self) -> None:
            super().__init__()
            self.times: dict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name].append(ms)

    return Clock()
