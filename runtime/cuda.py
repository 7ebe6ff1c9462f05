"""CUDA through pycuda: memory, streams and kernels; graphs through cuda-bindings.

pycuda knows no CUDA graphs. Both packages take the same handles of the driver, so that work
which pycuda and TensorRT put into a stream is captured from that stream.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import pycuda.driver as cuda
from cuda.bindings import driver
from numpy.typing import NDArray

from ..errors import DeviceLost, EngineError, OutOfDeviceMemory, TargetUnavailable
from ..plugins.compiled import CompiledKernel
from .gpu_facts import DRIVER_LIBRARY


class PrimaryContext:
    """A GPU and its primary context, the one that TensorRT uses too.

    Args:
        index: Of the GPU.

    Attributes:
        name: What the driver calls it.
        capability: Compute capability, ``8.6``.

    Raises:
        TargetUnavailable: There is no such GPU, or no driver.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            cuda.init()
            device = cuda.Device(index)
            self.name = str(device.name())
            self.capability = "{}.{}".format(*device.compute_capability())
            self._context: Any = device.retain_primary_context()
        except cuda.Error as exc:
            raise TargetUnavailable(
                f"GPU {index} cannot be used: {exc}", "nvidia-smi lists the GPUs that there are"
            ) from exc

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the current one of this thread."""
        self._context.push()
        try:
            yield
        finally:
            cuda.Context.pop()

    def close(self) -> None:
        """Give it back; again does nothing."""
        context, self._context = self._context, None
        if context is not None:
            context.detach()
            _pop_current()  # detach pushes the context, and the driver's release pops nothing


class CudaMemory:
    """A block of device memory."""

    def __init__(self, size: int) -> None:
        try:
            self._block: Any = cuda.mem_alloc(size)
        except cuda.MemoryError as exc:
            free, total = cuda.mem_get_info()
            raise OutOfDeviceMemory(
                f"{size >> 20} MiB of GPU memory are needed at once, {free >> 20} of"
                f" {total >> 20} MiB are free"
            ) from exc
        self.address, self.size = int(self._block), size

    def free(self) -> None:
        """Give it back; again does nothing."""
        block, self._block = self._block, None
        if block is not None:
            block.free()


class CudaStream:
    """Work that the GPU does in order."""

    def __init__(self) -> None:
        self.pycuda: Any = cuda.Stream()
        self.handle = int(self.pycuda.handle)

    def wait(self) -> None:
        """Wait for all of it.

        Raises:
            DeviceLost: The GPU failed.
        """
        try:
            self.pycuda.synchronize()
        except cuda.Error as exc:
            raise DeviceLost(f"the GPU failed: {exc}") from exc

    def close(self) -> None:
        """Give it back."""
        self.pycuda = None  # pycuda destroys it


class CudaGraph:
    """Work that was captured once and is launched as a whole."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: CudaStream) -> None:
        """Put all of it into a stream.

        Raises:
            DeviceLost: The GPU failed.
        """
        (result,) = driver.cuGraphLaunch(self._executable, driver.CUstream(stream.handle))
        if result != driver.CUresult.CUDA_SUCCESS:
            raise DeviceLost(f"the GPU failed: {result.name}")

    def close(self) -> None:
        """Give it back; again does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            driver.cuGraphExecDestroy(executable)


class CudaDevice(PrimaryContext):
    """One GPU; see :class:`~srdeploy.runtime.nvinfer.device.Device`."""

    def allocate(self, size: int) -> CudaMemory:
        """Device memory of ``size`` bytes.

        Raises:
            OutOfDeviceMemory: There is not so much.
        """
        return CudaMemory(size)

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Pinned host memory.

        Raises:
            OutOfDeviceMemory: There is not so much.
        """
        try:
            pinned: NDArray[np.uint8] = cuda.pagelocked_empty(shape, np.uint8)
        except cuda.Error as exc:
            raise OutOfDeviceMemory(f"no pinned host memory for {shape}: {exc}") from exc
        return pinned

    def stream(self) -> CudaStream:
        """A new stream."""
        return CudaStream()

    def upload(self, target: CudaMemory, source: NDArray[np.uint8], stream: CudaStream) -> None:
        """Copy to the device, in order with the stream."""
        with _failures():
            cuda.memcpy_htod_async(target.address, source, stream.pycuda)

    def download(self, target: NDArray[np.uint8], source: CudaMemory, stream: CudaStream) -> None:
        """Copy from the device, in order with the stream."""
        with _failures():
            cuda.memcpy_dtoh_async(target, source.address, stream.pycuda)

    def capture(self, stream: CudaStream, work: Callable[[], None]) -> CudaGraph | None:
        """Record what ``work`` puts into the stream; None where it cannot be recorded.

        Other threads may go on with other streams meanwhile.
        """
        handle = driver.CUstream(stream.handle)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        (began,) = driver.cuStreamBeginCapture(handle, mode)
        if began != driver.CUresult.CUDA_SUCCESS:
            return None
        refused = False
        try:
            work()
        except EngineError:
            refused = True  # some work waits for the device, which a capture does not allow
        ended, graph = driver.cuStreamEndCapture(handle)
        if ended != driver.CUresult.CUDA_SUCCESS:
            return None
        made, executable = driver.cuGraphInstantiate(graph, 0)
        driver.cuGraphDestroy(graph)
        if refused or made != driver.CUresult.CUDA_SUCCESS:
            return None
        return CudaGraph(executable)


@contextmanager
def _failures() -> Iterator[None]:
    """Say what the driver says as one of our errors."""
    try:
        yield
    except cuda.Error as exc:
        raise DeviceLost(f"the GPU failed: {exc}") from exc


class CudaLauncher:
    """One GPU with its primary context; a :class:`~srdeploy.plugins.compiled.Launcher`.

    Use it in a ``with`` statement, in one thread.

    Args:
        index: Of the GPU.

    Attributes:
        name: What the driver calls it.
        capability: Compute capability, ``8.6``.

    Raises:
        TargetUnavailable: There is no such GPU, or no driver.
    """

    def __init__(self, index: int = 0) -> None:
        self._primary = PrimaryContext(index)
        self.name, self.capability = self._primary.name, self._primary.capability
        self._stack = ExitStack()

    def __enter__(self) -> CudaLauncher:
        self._stack.callback(self._primary.close)
        self._stack.enter_context(self._primary.current())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(
        self,
        kernel: CompiledKernel,
        grid: tuple[int, int],
        arguments: Sequence[NDArray[Any] | int],
        outputs: Sequence[NDArray[Any]],
    ) -> None:
        """Run a kernel and wait; see :class:`~srdeploy.plugins.compiled.Launcher`.

        Raises:
            EngineError: The kernel is for another GPU, or CUDA fails.
        """
        if kernel.capability != self.capability:
            raise EngineError(
                f"{kernel.name} was compiled for compute capability {kernel.capability},"
                f" {self.name} has {self.capability}"
            )
        filled = {id(array) for array in outputs}
        if filled - {id(a) for a in arguments}:
            raise EngineError("an output is not among the kernel's arguments")
        packed = [
            np.int32(a)
            if isinstance(a, int | np.integer)
            # bytes: numpy lends no buffer of bfloat16
            else (cuda.Out if id(a) in filled else cuda.In)(_bytes(a, id(a) in filled))
            for a in arguments
        ]
        try:
            _launch(kernel, grid, packed)
        except cuda.Error as exc:
            # without the traceback: its frames hold the device's memory
            raise EngineError(
                f"{kernel.name} failed on {self.name}: {exc}"
            ) from exc.with_traceback(None)
        finally:
            packed.clear()


def _launch(kernel: CompiledKernel, grid: tuple[int, int], packed: Sequence[Any]) -> None:
    function = cuda.module_from_buffer(kernel.cubin).get_function(kernel.name)
    function.set_attribute(
        cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_bytes
    )
    function(*packed, block=(kernel.threads, 1, 1), grid=grid, shared=kernel.shared_bytes)
    cuda.Context.synchronize()


def _pop_current() -> None:
    """Take the top off the driver's own stack of contexts; pycuda has no call for it."""
    library = ctypes.CDLL(DRIVER_LIBRARY)
    library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))


def _bytes(array: NDArray[Any], is_output: bool) -> NDArray[np.uint8]:
    """The array's memory; a copy only of an input that is not dense."""
    if is_output and not (array.flags.c_contiguous and array.flags.writeable):
        raise EngineError("an output must be dense and writable")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
