"""What test_cuda.py runs in an interpreter that has pycuda, on the driver of cuda_driver.c."""

from __future__ import annotations

import ctypes
import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda
from cuda.bindings import driver
from srdeploy.errors import DeviceLost, EngineError, OutOfDeviceMemory, TargetUnavailable
from srdeploy.plugins.compiled import CompiledKernel
from srdeploy.runtime.cuda import CudaDevice, PrimaryContext
from srdeploy.runtime.cuda_launcher import CudaLauncher
from srdeploy.runtime.nvinfer.lanes import Lane, LaneSession
from srdeploy.runtime.session import Frames

SIM = ctypes.CDLL("libcuda.so.1")
SIM.sim_count.restype = ctypes.c_long
SIM.sim_misuse.restype = ctypes.c_char_p
ILLEGAL_ADDRESS = 700
ALIVE = (
    "memory", "bytes", "pinned", "streams", "graphs", "executables", "modules", "retained", "depth"
)  # fmt: skip


def count(name: str) -> int:
    return int(SIM.sim_count(name.encode()))


def nothing_is_left(lost: bool = False) -> None:
    """Nothing is alive, nothing was done wrong, and no context is current in this thread."""
    alive = {name: count(name) for name in ALIVE if count(name)}
    if lost:  # what a driver that only fails still holds went with its context
        assert alive.get("retained", 0) == alive.get("depth", 0) == 0, alive
    else:
        assert alive == {}, alive
        assert count("implicit") == 0
    assert count("misuses") == 0, SIM.sim_misuse()
    assert count("pageable") == 0
    assert cuda.Context.get_current() is None


class Copies:
    """An execution that copies the frames through scratch memory and sets their first row."""

    def __init__(self, before: Callable[[Any], None] = lambda stream: None) -> None:
        self._before = before
        self._size = self._row = 0
        self._bound = (0, 0, 0)
        self.closed = False

    def reshape(self, shape: tuple[int, ...], stream: Any) -> int:
        self._size, self._row = int(np.prod(shape)), shape[2] * 3
        return self._size

    def bind(self, frames: int, upscaled: int, scratch: int, scratch_size: int) -> None:
        self._bound = frames, upscaled, scratch

    def capturable(self, stream: Any) -> bool:
        return True

    def enqueue(self, stream: Any) -> None:
        self._before(stream)
        frames, upscaled, scratch = self._bound
        handle = driver.CUstream(stream.handle)
        for result in (
            driver.cuMemcpyDtoDAsync(scratch, frames, self._size, handle),
            driver.cuMemcpyDtoDAsync(upscaled, scratch, self._size, handle),
            driver.cuMemsetD8Async(upscaled, 7, self._row, handle),
        ):
            if result[0] != driver.CUresult.CUDA_SUCCESS:
                raise EngineError(f"the library fails: {result[0].name}")

    def close(self) -> None:
        self.closed = True


def frame(number: int, height: int = 8, width: int = 9) -> Frames:
    return np.random.default_rng(number).integers(0, 256, (1, height, width, 3), np.uint8)


def check(frames: Frames, came: Frames) -> None:
    expected = frames.copy()
    expected[:, 0] = 7
    np.testing.assert_array_equal(came, expected)


def open_session(lanes: int = 2, graphs: bool = True, **execution: Any) -> LaneSession:
    executions = [Copies(**execution) for _ in range(lanes)]
    return LaneSession("simulated", 1, CudaDevice(), executions, graphs=graphs)


def in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(30)


@contextmanager
def fails(kind: type[BaseException], *words: str) -> Iterator[None]:
    try:
        yield
    except kind as exc:
        if not all(word in str(exc) for word in words):
            raise
        return
    raise AssertionError(f"no {kind.__name__}")


def frames_come_back(graphs: bool = True) -> None:
    with open_session(3, graphs) as session, ThreadPoolExecutor(5) as pool:
        frames = [frame(i, 8 + i // 40) for i in range(120)]
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            check(given_in, came)
        assert all(lane.captured == graphs for lane in session._lanes if lane._shape)
    assert (count("launches") >= 100) == graphs
    assert count("allocations") <= 3 * 3 * 3 * 3
    nothing_is_left()


def frames_come_back_without_graphs() -> None:
    frames_come_back(graphs=False)


def buffers_are_made_once() -> None:
    with open_session(1) as session:
        for number in range(200):
            check(frame(number), session.upscale(frame(number)))
        assert (count("allocations"), count("captures")) == (3, 1)
        assert count("pinned") == 2
        assert count("launches") == 200
    nothing_is_left()


def a_hundred_sessions_leave_nothing() -> None:
    for number in range(100):
        with open_session(2) as session:
            check(frame(number), session.upscale(frame(number)))
        nothing_is_left()


def memory_runs_out() -> None:
    """The driver has 1 MiB."""
    with open_session(3) as session:
        with fails(OutOfDeviceMemory, "2 MiB of GPU memory are needed", "of 1 MiB are free"):
            session.upscale(frame(0, 1000, 600))
        assert session.parallel == 1
        assert count("memory") == count("pinned") == 0
        for number in range(5):
            check(frame(number), session.upscale(frame(number)))
    nothing_is_left()


def lanes_give_way() -> None:
    """The driver has 1 MiB: three lanes of 0.5 MiB do not fit, one does."""
    with open_session(3) as session, ThreadPoolExecutor(3) as pool:
        frames = [frame(i, 300, 200) for i in range(20)]
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            check(given_in, came)
        assert session.parallel == 1
    nothing_is_left()


def what_waits_is_not_captured() -> None:
    calls = []

    def waits(stream: Any) -> None:
        calls.append(stream)
        if len(calls) == 2:  # the first is the run before the capture
            stream.wait()

    with open_session(1, before=waits) as session:
        for number in range(3):
            check(frame(number), session.upscale(frame(number)))
        assert not session._lanes[0].captured
        check(frame(1, 9), session.upscale(frame(1, 9)))
        assert session._lanes[0].captured
    nothing_is_left()


def graphs_that_cannot_be_made() -> None:
    SIM.sim_no_graphs(1)
    with open_session(1) as session:
        check(frame(1), session.upscale(frame(1)))
        assert not session._lanes[0].captured
    nothing_is_left()


def an_interrupt_ends_the_capture() -> None:
    for error in (KeyboardInterrupt, RuntimeError, EngineError):
        calls: list[int] = []

        def interrupts(_: Any, calls: list[int] = calls, error: Any = error) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise error("now")

        with open_session(1, before=interrupts) as session:
            if error is EngineError:
                check(frame(1), session.upscale(frame(1)))
            else:
                with fails(error):
                    session.upscale(frame(1))
            for number in range(3):
                check(frame(number), session.upscale(frame(number)))
        nothing_is_left()


def others_use_the_default_stream_during_a_capture() -> None:
    device = CudaDevice()
    calls = []

    def library(_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            in_thread(use)

    def use() -> None:
        with device.current():
            block = cuda.mem_alloc(100)
            cuda.memcpy_htod(block, np.zeros(100, np.uint8))
            block.free()

    with LaneSession("simulated", 1, device, [Copies(library)]) as session:
        check(frame(1), session.upscale(frame(1)))
        assert session._lanes[0].captured
    nothing_is_left()


def _lost(asynchronous: bool, pop_fails: bool) -> None:
    session = open_session(2)
    execution = session._lanes[0]._execution
    check(frame(1), session.upscale(frame(1)))
    SIM.sim_pop_fails(int(pop_fails))
    if asynchronous:
        SIM.sim_fail_after(37)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(session.upscale, frame(i)) for i in range(40)]
        if not asynchronous:
            results[5].exception(30)
            SIM.sim_fail(ILLEGAL_ADDRESS)
        errors = [result.exception(30) for result in results]
    assert errors[-1] is not None
    for error in errors:
        assert error is None or isinstance(error, DeviceLost), repr(error)
    assert "illegal memory access" in str(errors[-1])
    in_thread(session.close)
    session.close()
    assert isinstance(execution, Copies)
    assert execution.closed
    with fails(DeviceLost, "illegal memory access"):
        session.upscale(frame(1))
    del errors, results
    gc.collect()
    if not pop_fails:
        nothing_is_left(lost=True)


def the_device_is_lost_at_a_call() -> None:
    _lost(asynchronous=False, pop_fails=False)


def the_device_is_lost_in_a_stream() -> None:
    _lost(asynchronous=True, pop_fails=False)


def the_device_is_lost_and_contexts_cannot_be_popped() -> None:
    _lost(asynchronous=True, pop_fails=True)


def every_call_of_a_lost_device_is_one_of_our_errors() -> None:
    device = CudaDevice()
    with device.current():
        block, pinned, stream = device.allocate(100), device.pinned((1, 100)), device.stream()
        graph = device.capture(stream, lambda: device.upload(block, pinned, stream))
        assert graph is not None
        SIM.sim_fail(ILLEGAL_ADDRESS)
        for call in (
            lambda: device.allocate(1),
            lambda: device.pinned((1, 1)),
            device.stream,
            lambda: device.upload(block, pinned, stream),
            lambda: device.download(pinned, block, stream),
            stream.wait,
            lambda: graph.launch(stream),
        ):
            with fails(DeviceLost, "the GPU failed"):
                call()
        assert device.capture(stream, lambda: None) is None
        block.free()
        device.unpin(pinned)
        graph.close()
        stream.close()
    device.close()
    nothing_is_left(lost=True)


def a_session_is_closed_in_another_thread() -> None:
    session = in_thread(open_session)
    check(frame(1), session.upscale(frame(1)))
    in_thread(session.close)
    nothing_is_left()


def nested_contexts() -> None:
    outer = PrimaryContext()
    with outer.current():
        inner = PrimaryContext()
        with inner.current(), outer.current():
            assert count("depth") == 1
        inner.close()
        assert count("depth") == 1
        other = in_thread(PrimaryContext)
        other.close()
        assert count("depth") == 1
        assert count("retained") == 1
        cuda.mem_alloc(100).free()
    outer.close()
    outer.close()
    with fails(EngineError, "was given back"), outer.current():
        raise AssertionError
    nothing_is_left()


def no_such_gpu() -> None:
    with fails(TargetUnavailable, "GPU 1 cannot be used"):
        CudaDevice(1)
    nothing_is_left()


def an_error_that_is_kept_holds_nothing() -> None:
    """Frames of a traceback outlive the session and are dropped where nothing is current."""

    def refuses(_: Any) -> None:
        raise RuntimeError("no")

    kept: list[BaseException] = []
    session = open_session(2, before=refuses)
    for _ in range(2):
        try:
            session.upscale(frame(1))
        except RuntimeError as exc:
            kept.append(exc)
    session.close()
    nothing_is_left()
    in_thread(kept.clear)
    gc.collect()
    nothing_is_left()


def what_pycuda_leaks() -> None:
    """Why everything is given back by a call: dropped elsewhere, pycuda's objects leak."""
    device = CudaDevice()
    with device.current():
        dropped = [device.pinned((10, 10)), device.allocate(10), device.stream()]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        in_thread(dropped.clear)
    assert {str(each.message) for each in warned} == {
        f"{what} in out-of-thread context could not be cleaned up"
        for what in ("pagelocked_host_allocation", "device_allocation", "stream")
    }
    assert count("pinned") == count("memory") == count("streams") == 1
    device.close()
    assert count("implicit") == 3
    assert count("misuses") == 0


def a_lane_alone() -> None:
    device = CudaDevice()
    with device.current():
        lane = Lane(device, Copies(), 1, graphs=False)
        check(frame(1), lane.run(frame(1)))
        assert lane.time(lambda stream: stream.handle) == lane._stream.handle
        lane.close()
    device.close()
    nothing_is_left()


def _kernel(name: str = "copy", **changes: Any) -> CompiledKernel:
    given: dict[str, Any] = {
        "capability": "8.6", "threads": 128, "shared_bytes": 65536, "cubin": b"\x7fELF"
    }  # fmt: skip
    return CompiledKernel(name=name, ptx="", **{**given, **changes})


def kernels_are_launched() -> None:
    source, target = np.arange(60, dtype=np.float32).reshape(3, 20), np.zeros((3, 20), np.float32)
    kept = []
    for _ in range(2):
        with CudaLauncher() as gpu:
            assert (gpu.name, gpu.capability) == ("Simulated GPU", "8.6")
            for given_in in (source, np.asfortranarray(source), source[:, ::-1]):
                gpu.run(_kernel(), (3, 2), [given_in, given_in.nbytes, target], [target])
                np.testing.assert_array_equal(target, given_in)
            for kernel in (
                _kernel("fail"),
                _kernel("missing"),
                _kernel(cubin=b"BAD"),
                _kernel(capability="9.0"),
                _kernel(shared_bytes=200_000),
            ):
                try:
                    gpu.run(kernel, (1, 1), [source, 240, target], [target])
                except EngineError as exc:
                    kept.append(exc)
            with CudaLauncher() as inner:
                inner.run(_kernel(), (1, 1), [source, 240, target], [target])
            gpu.run(_kernel(), (1, 1), [source, 240, target], [target])
            assert (count("memory"), count("modules"), count("depth")) == (0, 0, 1)
    assert len(kept) == 10
    nothing_is_left()


def a_thread_ends_in_peace() -> None:
    session = open_session(2)
    threads = [threading.Thread(target=session.upscale, args=(frame(i),)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    session.close()
    nothing_is_left()
