"""The process of one device: opens the engine and answers frame by frame."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from ..errors import EngineError, SrDeployError
from .engine import open_engine
from .session import Session
from .shared_frames import Block


@dataclass(frozen=True)
class Ready:
    """What the process says of its engine once it is open; as of :class:`.Session`."""

    scale: int
    target: str
    parallel: int
    minimum_size: int


@dataclass(frozen=True)
class Failure:
    """An error on its way to the process that asked.

    Attributes:
        kind: Class in errors.py.
        message: As of the error.
        hint: Likewise.
    """

    kind: str
    message: str
    hint: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Of any error; what is not srdeploy's own becomes an EngineError."""
        if not isinstance(error, SrDeployError):
            error = EngineError(f"{type(error).__name__}: {error}")
        return cls(type(error).__name__, error.message, error.hint)


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def serve(pipes: Sequence[Connection], engine: Path, device: int) -> None:
    """Open an engine, say so on the first pipe, and answer on each until it is told to end.

    A question is a :class:`.Block`; its answer the session's notes, or a :class:`Failure`.
    ``None``, or the end of the other process, ends it.
    """
    ignore_interrupts()
    try:
        session, _ = open_engine(engine, len(pipes), device)
    except Exception as exc:  # whatever it is, the other process says it
        pipes[0].send(Failure.of(exc))
        return
    with session:
        useful = min(session.parallel, len(pipes))
        pipes[0].send(Ready(session.scale, session.target, useful, session.minimum_size))
        threads = [
            threading.Thread(target=_answer, args=(pipe, session)) for pipe in pipes[:useful]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _answer(pipe: Connection, session: Session) -> None:
    """Answer on one pipe; the block of the last question stays open for the next."""
    memory: SharedMemory | None = None
    try:
        while isinstance(block := pipe.recv(), Block):
            try:
                if memory is None or memory.name != block.name:
                    if memory is not None:
                        memory.close()
                    memory = SharedMemory(block.name)
                _upscale(block, memory, session)
                answer: object = session.notes
            except Exception as exc:
                answer = Failure.of(exc)
            pipe.send(answer)
    except (EOFError, OSError):  # the other process is gone
        return
    finally:
        if memory is not None:
            memory.close()


def _upscale(block: Block, memory: SharedMemory, session: Session) -> None:
    # a copy: an engine may hold on to its input, and the memory could not be closed then
    frames = np.array(block.frames(memory))
    block.upscaled(memory)[...] = session.upscale(frames)
