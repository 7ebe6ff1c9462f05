"""The session of a GPU: lanes of frames whose upload, inference and download overlap.

A lane is an execution context with a stream and buffers of its own. Each call of ``upscale``
takes a free lane; while one lane computes, the others copy. What a lane does with a frame is
captured once a shape as a CUDA graph and then launched with one call.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from ...errors import EngineError, OutOfDeviceMemory
from ..session import Frames, Session
from .device import Device, Execution, Graph, Memory, Pinned, Stream

T = TypeVar("T")


class Lane:
    """One frame in flight at a time.

    Args:
        device: The GPU; the caller keeps it current during every call but :meth:`run`.
        execution: An execution context of its own.
        scale: Upscaling factor.
        graphs: Whether to capture the work of a shape.

    Attributes:
        captured: Whether the work of the present shape is launched as a graph.
    """

    def __init__(self, device: Device, execution: Execution, scale: int, graphs: bool) -> None:
        self.captured = False
        self._device, self._execution, self._scale = device, execution, scale
        self._graphs = graphs
        self._stream = device.stream()
        self._shape: tuple[int, ...] | None = None
        self._memory: list[Memory] = []
        self._graph: Graph | None = None
        self._in: Pinned | None = None
        self._out: Pinned | None = None

    def run(self, frames: Frames) -> Frames:
        """Upscale frames and wait for them.

        Raises:
            OutOfDeviceMemory: Frames of this shape do not fit; the lane then holds nothing.
            EngineError: No profile holds the shape, or the library fails.
            DeviceLost: The GPU failed.
        """
        with self._device.current():
            if frames.shape != self._shape:
                self._prepare(frames.shape)
            assert self._in is not None
            assert self._out is not None
            np.copyto(self._in, frames)
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._enqueue()
            self._stream.wait()
            return self._out.copy()  # the next frame comes into the same memory

    def time(self, work: Callable[[Stream], T]) -> T:
        """Call ``work`` with the lane's stream, set up for the shape that ran last."""
        return work(self._stream)

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Buffers and graph for another shape, once."""
        self._release()
        n, height, width, _ = shape
        upscaled = (n, height * self._scale, width * self._scale, 3)
        try:
            scratch = self._execution.reshape(shape, self._stream)
            self._in, self._out = self._device.pinned(shape), self._device.pinned(upscaled)
            for size in (math.prod(shape), math.prod(upscaled), max(1, scratch)):
                self._memory.append(self._device.allocate(size))
            source, target, work = self._memory
            self._execution.bind(source.address, target.address, work.address, work.size)
            # The first run of a shape sets the library up for it, which cannot be captured.
            self._in.fill(0)
            self._enqueue()
            self._stream.wait()
        except BaseException:
            self._release()
            raise
        self._shape = shape
        if self._graphs:
            self._graph = self._device.capture(self._stream, self._enqueue)
        self.captured = self._graph is not None

    def _enqueue(self) -> None:
        assert self._in is not None
        assert self._out is not None
        source, target, _ = self._memory
        self._device.upload(source, self._in, self._stream)
        self._execution.enqueue(self._stream)
        self._device.download(self._out, target, self._stream)

    def _release(self) -> None:
        """Give back what belongs to a shape."""
        graph, self._graph = self._graph, None
        memory, self._memory = self._memory, []
        self._shape = self._in = self._out = None
        self.captured = False
        if graph is not None:
            graph.close()
        for block in memory:
            block.free()

    def close(self) -> None:
        """Give everything back."""
        self._release()
        self._execution.close()
        self._stream.close()


class LaneSession(Session):
    """An engine on a GPU.

    Args:
        target: Id of the target.
        scale: Upscaling factor.
        device: The GPU; the session closes it.
        executions: Execution contexts, one for each lane.
        on_close: Called last, with the device current: gives the engine back.
        graphs: Whether to launch frames as CUDA graphs.
    """

    def __init__(
        self,
        target: str,
        scale: int,
        device: Device,
        executions: Sequence[Execution],
        on_close: Callable[[], None] = lambda: None,
        graphs: bool = True,
    ) -> None:
        self.target, self.scale = target, scale
        self.parallel = len(executions)
        self._device, self._on_close = device, on_close
        self._idle: SimpleQueue[Lane] = SimpleQueue()
        self._lock = threading.Lock()
        self._alive = 0
        self._closed = False
        with device.current():
            for execution in executions:
                self._idle.put(Lane(device, execution, scale, graphs))
                self._alive += 1

    def _upscale(self, frames: Frames) -> Frames:
        while True:
            if self._closed:
                raise EngineError("the session is closed", "open the engine again")
            lane = self._idle.get()
            try:
                upscaled = lane.run(frames)
            except OutOfDeviceMemory:
                if self._retire(lane):
                    continue  # one lane fewer: the frame may fit into another one
                self._idle.put(lane)
                raise
            except BaseException:
                self._idle.put(lane)
                raise
            self._idle.put(lane)
            return upscaled

    def _retire(self, lane: Lane) -> bool:
        """Give a lane up for the sake of the others; False for the last one."""
        with self._lock:
            if self._alive == 1:
                return False
            self._alive -= 1
        with self._device.current():
            lane.close()
        return True

    def close(self) -> None:
        """Wait for the frames in flight and give everything back; again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        lanes = [self._idle.get() for _ in range(self._alive)]
        with self._device.current(), contextlib.ExitStack() as stack:
            stack.callback(self._on_close)
            for lane in lanes:
                stack.callback(lane.close)
        self._device.close()
