"""The session of a GPU: lanes of frames whose upload, inference and download overlap.

A lane is an execution context with a stream and buffers of its own. Each call of ``upscale``
takes a free lane; while one lane computes, the others copy. What a lane does with a frame is
captured once a shape as a CUDA graph and then launched with one call.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from ...errors import DeviceLost, EngineError, OutOfDeviceMemory
from ..session import Frames, Session
from .device import Device, Execution, Graph, Memory, Pinned, Stream

T = TypeVar("T")


class Lane:
    """One frame in flight at a time.

    Args:
        device: The GPU; the caller keeps it current during every call but :meth:`run`.
        execution: An execution context of its own, which the lane closes.
        scale: Upscaling factor.
        graphs: Whether to capture the work of a shape.
    """

    def __init__(self, device: Device, execution: Execution, scale: int, graphs: bool) -> None:
        self._device, self._execution, self._scale = device, execution, scale
        self._graphs = graphs
        self._stream = device.stream()
        self._shape: tuple[int, ...] | None = None
        self._pinned: list[Pinned] = []  # frames in, frames out
        self._memory: list[Memory] = []  # frames in, frames out, scratch
        self._graph: Graph | None = None

    @property
    def captured(self) -> bool:
        """Whether the work of the present shape is launched as a graph."""
        return self._graph is not None

    def run(self, frames: Frames) -> Frames:
        """Upscale frames and wait for them.

        Raises:
            OutOfDeviceMemory: Frames of this shape do not fit; the lane then holds nothing.
            EngineError: No profile holds the shape, or the library fails.
            DeviceLost: The GPU failed.
        """
        with self._device.current():
            try:
                return self._upscale(frames)
            except BaseException as exc:
                self._stream.wait()  # what is under way still uses the buffers
                if self._shape is None or isinstance(exc, OutOfDeviceMemory):
                    self._release()
                raise

    def time(self, work: Callable[[Stream], T]) -> T:
        """Call ``work`` with the lane's stream, set up for the shape that ran last."""
        return work(self._stream)

    def _upscale(self, frames: Frames) -> Frames:
        if frames.shape != self._shape:
            self._release()
            self._prepare(frames.shape)
        source, target = self._pinned
        np.copyto(source, frames)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
        self._stream.wait()
        return target.copy()  # the next frame comes into the same memory

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Buffers and graph for another shape, once; the shape is set when all of it is there."""
        n, height, width, _ = shape
        upscaled = (n, height * self._scale, width * self._scale, 3)
        scratch = self._execution.reshape(shape, self._stream)
        for each in (shape, upscaled):
            self._pinned.append(self._device.pinned(each))
        for size in (math.prod(shape), math.prod(upscaled), max(1, scratch)):
            self._memory.append(self._device.allocate(size))
        source, target, work = self._memory
        self._execution.bind(source.address, target.address, work.address, work.size)
        # The first run of a shape sets the library up for it, which cannot be captured.
        self._pinned[0].fill(0)
        self._enqueue()
        self._stream.wait()
        if self._graphs and self._execution.capturable(self._stream):
            self._graph = self._device.capture(self._stream, self._enqueue)
        self._shape = shape

    def _enqueue(self) -> None:
        self._device.upload(self._memory[0], self._pinned[0], self._stream)
        self._execution.enqueue(self._stream)
        self._device.download(self._pinned[1], self._memory[1], self._stream)

    def _release(self) -> None:
        """Give back what belongs to a shape."""
        self._shape = None
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.close()
        while self._memory:
            self._memory.pop().free()
        while self._pinned:
            self._device.unpin(self._pinned.pop())

    def close(self) -> None:
        """Wait for what is under way and give everything back.

        Raises:
            DeviceLost: The GPU failed; what could be given back is.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._stream.close)
            stack.callback(self._execution.close)
            stack.callback(self._release)
            self._stream.wait()


class LaneSession(Session):
    """An engine on a GPU.

    Out of memory, a lane is given up and its frame goes to another one, until one lane is left;
    ``parallel`` then says how many are. After :class:`~srdeploy.errors.DeviceLost` every call
    fails with the same.

    Args:
        target: Id of the target.
        scale: Upscaling factor.
        device: The GPU; the session closes it.
        executions: Execution contexts, one for each lane; the session closes them.
        on_close: Called last, with the device current: gives the engine back.
        graphs: Whether to launch frames as CUDA graphs.

    Raises:
        EngineError: No lanes could be made; all that was handed in is closed.
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
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []
        # Of each lane in use the thread that uses it: a thread that was interrupted between
        # two steps has none when it comes back, whatever stands here.
        self._users: dict[Lane, int] = {}
        self._lost = ""
        self._closed = self._given_back = False
        try:
            with device.current():
                for execution in executions:
                    self._lanes.append(Lane(device, execution, scale, graphs))
        except BaseException:
            self._closed = self._given_back = True
            self._give_back([e.close for e in executions[len(self._lanes) :]])
            raise

    @property
    def captured(self) -> bool:
        """Whether a lane launches the frames of its present shape as a CUDA graph."""
        return any(lane.captured for lane in self._lanes)

    def _upscale(self, frames: Frames) -> Frames:
        while True:
            upscaled = self._attempt(frames)
            if upscaled is not None:
                return upscaled

    def _attempt(self, frames: Frames) -> Frames | None:
        """Run frames in the next free lane; None where another lane may have the memory."""
        try:
            lane, lanes = self._take()
            try:
                return lane.run(frames)
            except OutOfDeviceMemory:
                if lanes == 1:  # there was nobody to share the memory with
                    raise
                self._retire(lane)
                return None
        except DeviceLost as exc:
            self._lost = self._lost or exc.message  # before another thread gets the lane
            raise
        finally:
            self._leave()

    def _take(self) -> tuple[Lane, int]:
        """A free lane for this thread, waiting for one, and how many lanes there are."""
        thread = threading.get_ident()
        with self._changed:
            while True:
                if self._lost:
                    raise DeviceLost(self._lost)
                if self._closed:
                    raise EngineError("the session is closed", "open the engine again")
                for lane in self._lanes:
                    if self._users.get(lane, thread) == thread:
                        self._users[lane] = thread
                        return lane, len(self._lanes)
                self._changed.wait()

    def _leave(self) -> None:
        """This thread uses no lane any more."""
        thread = threading.get_ident()
        with self._changed:
            for lane in [lane for lane, user in self._users.items() if user == thread]:
                del self._users[lane]
            self._changed.notify_all()

    def _retire(self, lane: Lane) -> None:
        """Give a lane up for the sake of the others, unless it is the last one.

        The lock is held until its memory is free: who finds one lane fewer finds that too.
        """
        with self._changed:
            if len(self._lanes) > 1:
                self._lanes.remove(lane)
                self.parallel = len(self._lanes)
                with self._device.current():
                    lane.close()

    def close(self) -> None:
        """Wait for the frames in flight and give everything back; again does nothing.

        A thread that waits for a lane meanwhile gets an EngineError.
        """
        thread = threading.get_ident()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while any(user != thread for user in self._users.values()):
                self._changed.wait()
            given_back, self._given_back = self._given_back, True
        if not given_back:
            self._give_back([])

    def _give_back(self, others: Iterable[Callable[[], None]]) -> None:
        """Close lanes, what else is handed in, engine and device, in this order."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._quietly, self._device.close)
            self._quietly(lambda: stack.enter_context(self._device.current()))
            stack.callback(self._quietly, self._on_close)
            for close in (*others, *(lane.close for lane in self._lanes)):
                stack.callback(self._quietly, close)

    def _quietly(self, work: Callable[[], object]) -> None:
        """Do a step of closing: what a lost device says of it helps nobody."""
        try:
            work()
        except DeviceLost as exc:
            self._lost = self._lost or exc.message
        except Exception:
            if not self._lost:
                raise
