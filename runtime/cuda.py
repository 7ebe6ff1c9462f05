"""CUDA through pycuda: memory and streams; graphs through cuda-bindings.

pycuda knows no CUDA graphs. Both packages take the same handles of the driver, so that work
which pycuda and TensorRT put into a stream is captured from that stream.

pycuda gives back what it holds when Python drops it, but only in a thread where the context is
current; elsewhere it warns and leaks. So everything here is given back by a call, inside
:meth:`PrimaryContext.current`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pycuda.driver as cuda
from cuda.bindings import driver
from numpy.typing import NDArray

from ..errors import DeviceLost, EngineError, OutOfDeviceMemory, TargetUnavailable

_SUCCESS = driver.CUresult.CUDA_SUCCESS
# The default stream, which libraries may use, does not wait for such streams nor they for it;
# and work in it does not spoil what another thread captures.
_NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)


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
        """Make it the current one of this thread.

        Raises:
            DeviceLost: The GPU failed.
            EngineError: It was given back.
        """
        if self._context is None:
            raise EngineError(f"{self.name} was given back", "open the engine again")
        with _failures():
            self._context.push()
        try:
            yield
        finally:
            self._pop()

    def _pop(self) -> None:
        try:
            cuda.Context.pop()
        except cuda.Error as exc:
            # pycuda aborts the process when a thread ends whose stack of contexts is not empty;
            # a context that cannot be popped leaves that stack only when it is given back.
            context, self._context = self._context, None
            with suppress(cuda.Error):
                if context is not None:
                    context.detach()
            cuda.Context.get_current()  # drops those that were given back in another thread
            raise DeviceLost(f"the GPU failed: {exc}") from exc

    def close(self) -> None:
        """Give it back, from any thread; again does nothing."""
        context, self._context = self._context, None
        if context is None:
            return
        try:
            context.push()  # pycuda gives back only what is current, but in the thread that took it
        except cuda.Error:
            return  # the GPU failed, and nothing is left to give back
        with suppress(cuda.Error):
            context.detach()
        _drop_below(context.handle)


class CudaMemory:
    """A block of device memory."""

    def __init__(self, size: int) -> None:
        with _failures():
            try:
                self._block: Any = cuda.mem_alloc(size)
            except cuda.MemoryError as exc:
                free, total = cuda.mem_get_info()
                raise OutOfDeviceMemory(
                    f"{_mib(size)} MiB of GPU memory are needed at once, {free >> 20} of"
                    f" {total >> 20} MiB are free"
                ) from exc
        self.address, self.size = int(self._block), size

    def free(self) -> None:
        """Give it back; again does nothing."""
        block, self._block = self._block, None
        if block is not None:
            with _failures():
                block.free()


class CudaStream:
    """Work that the GPU does in order."""

    def __init__(self) -> None:
        with _failures():
            self.pycuda: Any = cuda.Stream(_NON_BLOCKING)
        self.handle = int(self.pycuda.handle)

    def wait(self) -> None:
        """Wait for all of it.

        Raises:
            DeviceLost: The GPU failed.
        """
        with _failures():
            self.pycuda.synchronize()

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
            OutOfDeviceMemory: The driver has no memory for it.
            DeviceLost: The GPU failed.
        """
        (result,) = driver.cuGraphLaunch(self._executable, driver.CUstream(stream.handle))
        if result == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfDeviceMemory("there is no GPU memory to launch the network")
        if result != _SUCCESS:
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
        with _failures():
            try:
                pinned: NDArray[np.uint8] = cuda.pagelocked_empty(shape, np.uint8)
            except cuda.MemoryError as exc:
                size = _mib(int(np.prod(shape)))
                raise OutOfDeviceMemory(
                    f"{size} MiB of pinned host memory cannot be had",
                    "close what else uses this machine's memory, or use a smaller --tile",
                ) from exc
        return pinned

    def unpin(self, pinned: NDArray[np.uint8]) -> None:
        """Give pinned host memory back; the array must not be used afterwards."""
        allocation: Any = pinned.base
        with _failures():
            allocation.free()

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
        if began != _SUCCESS:
            return None
        recorded, executable = False, None
        try:
            with suppress(EngineError):  # some work waits for the device: no capture allows that
                work()
                recorded = True
        finally:
            ended, graph = driver.cuStreamEndCapture(handle)
            if ended == _SUCCESS:
                executable = _instantiate(graph) if recorded else None
                driver.cuGraphDestroy(graph)
        return None if executable is None else CudaGraph(executable)


def _instantiate(graph: Any) -> Any:
    """A captured graph made ready to be launched, or None."""
    result, executable = driver.cuGraphInstantiate(graph, 0)
    return executable if result == _SUCCESS else None


@contextmanager
def _failures() -> Iterator[None]:
    """Say what the driver says as one of our errors."""
    try:
        yield
    except cuda.MemoryError as exc:
        raise OutOfDeviceMemory(f"there is no memory left: {exc}") from exc
    except cuda.Error as exc:
        raise DeviceLost(f"the GPU failed: {exc}") from exc


def _mib(size: int) -> int:
    return -(-size >> 20)


def _drop_below(handle: int) -> None:
    """Take a context that was given back off the driver's own stack, which pycuda leaves there.

    Where another one was current before, pycuda has pushed that one on top of it.
    """
    failed, top = driver.cuCtxPopCurrent()
    if failed == _SUCCESS and int(top) != handle:
        driver.cuCtxPopCurrent()
        driver.cuCtxPushCurrent(top)
