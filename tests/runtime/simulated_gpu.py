"""A GPU in Python that does its work late and forgives nothing.

Each stream is a thread that does its work in order, some time after it was asked to. What a
program must not do to a GPU is recorded in ``misuses``, which tests want empty, and raised.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from srdeploy.errors import DeviceLost, EngineError, OutOfDeviceMemory

Work = Callable[[], None]
PATIENCE = 20.0  # seconds after which a wait is a hang


class Misuse(AssertionError):
    """What a real GPU would answer with a crash, wrong pixels or a leak."""


class SimulatedMemory:
    def __init__(self, gpu: SimulatedGpu, address: int, size: int) -> None:
        self.address, self.size = address, size
        self.content = np.full(size, 0xA5, np.uint8)
        self._gpu = gpu

    def free(self) -> None:
        self._gpu.check("free", allocates=True)
        if self._gpu.blocks.pop(self.address, None) is None:
            self._gpu.misuse("double free")


class SimulatedStream:
    """A thread that does what is put in; ``recorded`` is what a capture has so far."""

    def __init__(self, gpu: SimulatedGpu, handle: int) -> None:
        self.handle = handle
        self.recorded: list[Work] | None = None
        self.failure: Exception | None = None
        self._gpu, self._closed = gpu, False
        self._random = random.Random(f"{gpu.seed} {handle}")
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="stream", daemon=True)
        self._thread.start()

    def put(self, work: Work) -> None:
        self._gpu.check("work put into a stream")
        if self._closed:
            self._gpu.misuse("work for a closed stream")
        if self.recorded is not None:
            self.recorded.append(work)
        else:
            self._queue.put(work)

    def wait(self) -> None:
        self._gpu.check("wait", allocates=True)
        if self._closed:
            self._gpu.misuse("wait for a closed stream")
        reached = threading.Event()
        self._queue.put(reached.set)
        if not reached.wait(PATIENCE):
            self._gpu.misuse("a stream hangs")
        self._gpu.check_lost()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise EngineError(f"the work failed: {failure}") from failure

    def close(self) -> None:
        if self._closed:
            self._gpu.misuse("a stream is closed twice")
        self._closed = True
        self._queue.put(None)
        self._thread.join(PATIENCE)
        self._gpu.streams -= 1
        self._gpu.check("close of a stream")

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._gpu.delay:
                time.sleep(self._random.choice((0.0, 0.0, self._gpu.delay)))
            try:
                work()
            except Exception as exc:
                self.failure = exc


class SimulatedGraph:
    def __init__(self, gpu: SimulatedGpu, work: list[Work]) -> None:
        self._gpu, self._work = gpu, work
        self._closed = False
        gpu.graphs += 1

    def launch(self, stream: SimulatedStream) -> None:
        if self._closed:
            self._gpu.misuse("launch of a closed graph")
        self._gpu.counts["launches"] += 1
        for work in self._work:
            stream.put(work)

    def close(self) -> None:
        if self._closed:
            self._gpu.misuse("a graph is closed twice")
        self._closed = True
        self._gpu.graphs -= 1


class SimulatedGpu:
    """See :class:`srdeploy.runtime.nvinfer.device.Device`.

    Args:
        memory: Bytes of device memory; ``at_allocate`` is told of each request for some whether
            it is granted, before the answer goes back.
        seed: Of the delays.
        delay: Longest delay before a piece of work, seconds.
        captures: Whether work can be captured; otherwise it fails at the end.
    """

    name = "Simulated GPU"

    def __init__(
        self, memory: int = 1 << 30, seed: int = 0, delay: float = 0.0002, captures: bool = True
    ) -> None:
        self.memory, self.seed, self.delay, self.captures = memory, seed, delay, captures
        self.blocks: dict[int, SimulatedMemory] = {}
        self.pins: dict[int, NDArray[np.uint8]] = {}
        self.graphs = self.streams = self.executions = 0
        self.counts: Counter[str] = Counter()
        self.misuses: list[str] = []
        self.closed = False
        self.stream_limit = 1 << 30
        self.at_allocate: Callable[[bool], None] = lambda granted: None
        self._lost = ""
        self._next = 1 << 20
        self._lock = threading.Lock()
        self._thread = threading.local()

    def misuse(self, what: str) -> None:
        self.misuses.append(what)
        raise Misuse(what)

    def lose(self) -> None:
        """From now on every call fails, as after an error that sticks to the context."""
        self._lost = "the GPU failed: an illegal memory access was encountered"

    def recover(self) -> None:
        """As if nothing had been, which no real GPU does."""
        self._lost = ""

    def check_lost(self) -> None:
        if self._lost:
            raise DeviceLost(self._lost)

    def check(self, what: str, allocates: bool = False) -> None:
        self.check_lost()
        if self.closed:
            self.misuse(f"{what} after the device was closed")
        if not getattr(self._thread, "depth", 0):
            self.misuse(f"{what} outside current()")
        if allocates and getattr(self._thread, "capturing", None) is not None:
            self._thread.capturing.failure = RuntimeError(what)
            raise EngineError(f"{what}: not permitted while a stream is capturing")

    @contextmanager
    def current(self) -> Iterator[None]:
        self.check_lost()
        if self.closed:
            self.misuse("current() of a closed device")
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def allocate(self, size: int) -> SimulatedMemory:
        self.check("allocate", allocates=True)
        with self._lock:
            used = sum(block.size for block in self.blocks.values())
            block = SimulatedMemory(self, self._next, size)
            granted = used + size <= self.memory
            if granted:
                self.counts["allocations"] += 1
                self._next += size + 512
                self.blocks[block.address] = block
        self.at_allocate(granted)
        if not granted:
            raise OutOfDeviceMemory(f"{size} bytes needed, {self.memory - used} are free")
        return block

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.check("pinned", allocates=True)
        array = np.full(shape, 0x5A, np.uint8)
        self.counts["pinned"] += 1
        self.pins[id(array)] = array
        return array

    def unpin(self, pinned: NDArray[np.uint8]) -> None:
        self.check("unpin", allocates=True)
        if self.pins.pop(id(pinned), None) is None:
            self.misuse("pinned memory is freed twice")
        pinned.fill(0xDD)

    def stream(self) -> SimulatedStream:
        self.check("stream", allocates=True)
        if self.streams >= self.stream_limit:
            raise OutOfDeviceMemory("no memory for a stream")
        self.streams += 1
        return SimulatedStream(self, self.counts.total() + self.streams)

    def block(self, address: int, size: int) -> SimulatedMemory:
        """The memory at an address, as work finds it when it is done."""
        found = self.blocks.get(address)
        if found is None:
            self.misuse("use after free")
        elif found.size != size:
            self.misuse(f"{size} bytes in a block of {found.size}")
        assert found is not None
        return found

    def upload(
        self, target: SimulatedMemory, source: NDArray[np.uint8], stream: SimulatedStream
    ) -> None:
        def work() -> None:
            self._check_pin(source)
            self.block(target.address, source.nbytes).content[:] = source.reshape(-1)

        stream.put(work)

    def download(
        self, target: NDArray[np.uint8], source: SimulatedMemory, stream: SimulatedStream
    ) -> None:
        def work() -> None:
            self._check_pin(target)
            content = self.block(source.address, target.nbytes).content
            target[:] = content.reshape(target.shape)

        stream.put(work)

    def _check_pin(self, array: NDArray[np.uint8]) -> None:
        if id(array) not in self.pins:
            self.misuse("host memory that is not pinned, or not any more")

    def capture(self, stream: SimulatedStream, work: Callable[[], None]) -> SimulatedGraph | None:
        self.check("capture")
        self.counts["captures"] += 1
        stream.recorded, self._thread.capturing = [], stream
        try:
            work()
        except EngineError as exc:
            stream.failure = exc
        finally:
            recorded, stream.recorded, self._thread.capturing = stream.recorded, None, None
        failure, stream.failure = stream.failure, None
        if failure is not None or not self.captures:
            return None
        return SimulatedGraph(self, recorded)

    def alive(self) -> dict[str, int]:
        """What is not given back."""
        return {
            "memory": len(self.blocks),
            "pinned": len(self.pins),
            "streams": self.streams,
            "graphs": self.graphs,
            "executions": self.executions,
        }

    def close(self) -> None:
        if self.closed:
            self.misuse("the device is closed twice")
        self.closed = True
        if not self._lost and any(self.alive().values()):
            self.misuse(f"the device is closed with {self.alive()}")


class SimulatedExecution:
    """Nearest neighbour; see :class:`srdeploy.runtime.nvinfer.device.Execution`.

    Args:
        at_enqueue: Called with the stream by :meth:`enqueue`; what it raises goes on.
        at_compute: Called by the stream's thread with the frames, as the work is done.
        scratch: Bytes of scratch memory for each pixel.
    """

    def __init__(
        self,
        gpu: SimulatedGpu,
        scale: int = 2,
        at_enqueue: Callable[[Any], None] = lambda stream: None,
        at_compute: Callable[[NDArray[np.uint8]], None] = lambda frames: None,
        scratch: int = 0,
    ) -> None:
        self._gpu, self._scale, self._scratch = gpu, scale, scratch
        self._at_enqueue, self._at_compute = at_enqueue, at_compute
        self._shape: tuple[int, ...] = ()
        self._bound: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._closed = False
        gpu.executions += 1

    def reshape(self, shape: tuple[int, ...], stream: SimulatedStream) -> int:
        self._gpu.check("reshape", allocates=True)
        if shape[1] > 2000:
            raise EngineError(f"frames of {shape} are outside the engine's profiles")
        self._shape, self._bound = shape, (0, 0, 0, 0)
        return self._scratch * shape[1] * shape[2]

    def bind(self, frames: int, upscaled: int, scratch: int, scratch_size: int) -> None:
        self._gpu.check("bind")
        self._bound = frames, upscaled, scratch, scratch_size

    def capturable(self, stream: SimulatedStream) -> bool:
        return True  # whether a capture works is the device's to say

    def enqueue(self, stream: SimulatedStream) -> None:
        self._at_enqueue(stream)
        n, height, width, channels = shape = self._shape
        upscaled = (n, height * self._scale, width * self._scale, channels)
        source, target, scratch, scratch_size = self._bound

        def work() -> None:
            frames = self._gpu.block(source, int(np.prod(shape))).content.reshape(shape)
            self._at_compute(frames)
            self._gpu.block(scratch, scratch_size).content.fill(1)
            pixels = frames.repeat(self._scale, 1).repeat(self._scale, 2)
            self._gpu.block(target, int(np.prod(upscaled))).content[:] = pixels.reshape(-1)

        stream.put(work)

    def close(self) -> None:
        if self._closed:
            self._gpu.misuse("an execution is closed twice")
        self._closed = True
        self._gpu.executions -= 1
