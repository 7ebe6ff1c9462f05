"""Several GPUs: one process for each, frames handed to whichever is free.

A driver's failure or a crash takes one process with it and not the run's own, and no
interpreter's lock is shared. Frames travel through shared memory; a pipe says which block and
which shape. Whoever calls waits for its own frame, so the order is the caller's.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .. import errors
from ..errors import DeviceLost, EngineError, SrDeployError
from .session import Frames, Session
from .shared_frames import SharedFrames
from .worker import Failure, Ready, serve

STOP_SECONDS = 5.0
"""How long a process may take to end by itself."""


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Start processes in here: Ctrl-C is for the process that started them to deal with.

    A new process inherits what is blocked, until it ignores it by itself.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would unblock the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(process: BaseProcess) -> None:
    """Wait some seconds for a process to end, and kill it where it does not."""
    process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


class _Worker:
    """A process with an engine on one device, and the near ends of its pipes."""

    def __init__(self, engine: Path, device: int, lanes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.device = device
        self.notes: tuple[str, ...] = ()
        pairs = [context.Pipe() for _ in range(lanes)]
        self.pipes = [ours for ours, _ in pairs]
        theirs = [far for _, far in pairs]
        self.process = context.Process(
            target=serve, args=(theirs, engine, device), name=f"device {device}", daemon=True
        )
        self._lock = threading.Lock()
        try:
            with without_interrupts():
                self.process.start()
        finally:
            for pipe in theirs:
                pipe.close()

    def ask(self, pipe: Connection, question: object) -> object:
        """Send and wait for the answer.

        Raises:
            DeviceLost: The process is gone.
            SrDeployError: What it answered.
        """
        with suppress(OSError):  # a broken pipe: what the process died of is asked below
            pipe.send(question)
        return self.receive(pipe)

    def receive(self, pipe: Connection) -> object:
        """Wait for an answer; raises as :meth:`ask` does."""
        try:
            if pipe in wait([pipe, self.process.sentinel]):
                answer = pipe.recv()
            else:
                raise EOFError
        except (EOFError, OSError) as exc:
            raise self._lost() from exc
        if isinstance(answer, Failure):
            raise self._error(answer)
        return answer

    def _error(self, failure: Failure) -> SrDeployError:
        kind = getattr(errors, failure.kind)
        assert issubclass(kind, SrDeployError)
        error: SrDeployError = kind(f"device {self.device}: {failure.message}", failure.hint)
        return error

    def _lost(self) -> DeviceLost:
        with self._lock:  # several lanes notice it at once
            end(self.process)
            code = self.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return DeviceLost(f"the process of device {self.device} is gone ({cause})")


class _Lane:
    """One frame at a time on its way to a device and back."""

    def __init__(self, worker: _Worker, pipe: Connection) -> None:
        self.worker, self.pipe = worker, pipe
        self.memory = SharedFrames()

    def upscale(self, frames: Frames, scale: int) -> Frames:
        """Send frames through the device; raises as :meth:`_Worker.ask` does."""
        block = self.memory.put(frames, scale)
        notes = self.worker.ask(self.pipe, block)
        assert isinstance(notes, tuple)
        self.worker.notes = notes
        return self.memory.take(block)


class ProcessSession(Session):
    """One engine on several devices, each in a process of its own.

    Frames go to the device that has been free for longest. Calls beyond ``parallel`` wait for
    one that has ended, so no more than ``parallel`` frames are held.

    Args:
        engine: The engine file, its manifest beside it.
        devices: Indices of the GPUs; targets of the CPU take them for names.
        parallel: Frames in flight on each device.

    Attributes:
        pids: Process of each device, in their order.

    Raises:
        SrDeployError: A device cannot open the engine; the error is that of
            :func:`~.engine.open_engine` and names the device.
        DeviceLost: The process of a device ended. It is raised by every call from then on.
    """

    def __init__(self, engine: Path, devices: Sequence[int], parallel: int = 1) -> None:
        if not devices or len(set(devices)) != len(devices) or parallel < 1:
            raise EngineError(
                f"expected different devices, got {list(devices)}", "such as --devices 0,1"
            )
        self._changed = threading.Condition()
        self._lost: DeviceLost | None = None
        self._closed = False
        self._workers: list[_Worker] = []
        self._lanes: list[_Lane] = []
        self._idle: deque[_Lane] = deque()
        try:
            for device in devices:
                self._workers.append(_Worker(engine, device, parallel))
            self._open()
        except BaseException:
            self.close()
            raise
        self.pids = tuple(worker.process.pid or 0 for worker in self._workers)

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of the frames so far, of all devices."""
        return tuple(dict.fromkeys(note for worker in self._workers for note in worker.notes))

    def _open(self) -> None:
        """Wait until every device is ready."""
        rows: list[list[_Lane]] = []
        for worker in self._workers:
            ready = worker.receive(worker.pipes[0])
            assert isinstance(ready, Ready)
            self.scale, self.target = ready.scale, ready.target
            self.minimum_size = ready.minimum_size
            rows.append([_Lane(worker, pipe) for pipe in worker.pipes[: ready.parallel]])
        # the devices in turn
        longest = max(map(len, rows))
        self._lanes = [row[i] for i in range(longest) for row in rows if i < len(row)]
        self._idle.extend(self._lanes)
        self.parallel = len(self._lanes)

    def _upscale(self, frames: Frames) -> Frames:
        lane = self._take()
        try:
            return lane.upscale(frames, self.scale)
        except DeviceLost as exc:
            with self._changed:
                self._lost = self._lost or exc
            raise
        finally:
            with self._changed:
                self._idle.append(lane)
                self._changed.notify_all()

    def _take(self) -> _Lane:
        with self._changed:
            while not self._idle and not self._lost and not self._closed:
                self._changed.wait()
            if self._lost:
                raise DeviceLost(self._lost.message, self._lost.hint)
            if self._closed:
                raise EngineError("the session is closed")
            return self._idle.popleft()

    def close(self) -> None:
        """End the processes, after their last frame where that takes no longer than seconds."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(self._all_idle, STOP_SECONDS)
        for worker in self._workers:
            for pipe in worker.pipes:
                with suppress(OSError):
                    pipe.send(None)
        for worker in self._workers:
            end(worker.process)
        with self._changed:  # calls of a process that had to be killed
            self._changed.wait_for(self._all_idle)
        for lane in self._lanes:
            lane.memory.close()
        for worker in self._workers:
            for pipe in worker.pipes:
                pipe.close()

    def _all_idle(self) -> bool:
        return len(self._idle) == len(self._lanes)
