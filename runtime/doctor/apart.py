"""Runs probes in processes of their own: a library that crashes or hangs is a line, not the end.

One process answers many probes, one after the other, as to start Python and import numpy takes
longer than most answers. Where a probe ends it, a new process goes on with the next one.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

from ...errors import SrDeployError

TIMEOUT_SECONDS = 120
_LONGEST = 300
# what the libraries that were asked before can have no part in, or what takes too long to repeat
_SETTLED = ("", "TargetUnavailable", "timeout")


@dataclass(frozen=True)
class Answer:
    """What a probe gave.

    Attributes:
        value: Its result; None where there is a problem.
        problem: Why there is none; empty where there is.
        hint: What an error of srdeploy says to do.
        kind: Type of the error, such as ``TargetUnavailable``; ``crash`` or ``timeout`` where
            it never said one.
    """

    value: Any = field(default=None)
    problem: str = ""
    hint: str = ""
    kind: str = ""


class Apart:
    """A process for probes that get on with each other, asked in the order in which they come.

    It starts with the first probe. One that fails after others is asked once more in a new
    process, so that what is said of a library is never another library's doing.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._lock = threading.Lock()  # nothing starts once it is closed
        self._closed = False
        self._running: tuple[SpawnProcess, Connection] | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, probe: str, *arguments: Any) -> Future[Answer]:
        """Ask when the probes before it have answered; see :meth:`ask`."""
        return self._pool.submit(self.ask, probe, *arguments)

    def ask(self, probe: str, *arguments: Any, timeout: float = TIMEOUT_SECONDS) -> Answer:
        """Call ``module:function`` of srdeploy in the process.

        Args:
            probe: Such as ``runtime.doctor.probes:package``.
            arguments: Of the function; what goes through a pipe.
            timeout: Seconds until it is given up.
        """
        in_company = self._running is not None
        answer = self._ask(probe, arguments, timeout)
        if in_company and answer.kind not in _SETTLED:
            self._end()
            answer = self._ask(probe, arguments, timeout)
        return answer

    def close(self) -> None:
        """End the process and the probe that is running; those that wait are never asked."""
        with self._lock:
            self._closed = True
            if running := self._running:
                _kill(running[0])
        self._pool.shutdown(cancel_futures=True)
        self._end()

    def _ask(self, probe: str, arguments: tuple[Any, ...], timeout: float) -> Answer:
        process, pipe = self._started()
        try:
            pipe.send((probe, arguments))
            if pipe.poll(timeout):
                answer = pipe.recv()
                assert isinstance(answer, Answer)
                return answer
        except (EOFError, OSError):  # its end of the pipe is closed
            process.join(timeout)
            code = process.exitcode
            self._end()
            return Answer(problem=f"crashed: {_death(code)}", kind="crash")
        self._end()
        return Answer(problem=f"no answer within {timeout:g} s", kind="timeout")

    def _started(self) -> tuple[SpawnProcess, Connection]:
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._running is None:
                context = multiprocessing.get_context("spawn")
                ours, theirs = context.Pipe()
                # not a daemon: TensorRT-RTX builds in a process that this one starts in turn
                process = context.Process(target=_answer, args=(theirs,))
                process.start()
                theirs.close()
                self._running = process, ours
            return self._running

    def _end(self) -> None:
        if self._running:
            process, pipe = self._running
            pipe.close()
            _kill(process)  # what libraries do at their end is not asked
            process.join()
            self._running = None


def _kill(process: SpawnProcess) -> None:
    """End a process and the builds that it started, which would go on without it."""
    if process.pid and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _answer(pipe: Connection) -> None:
    """Answer probes until nobody asks; what libraries print goes nowhere."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # for _kill; Ctrl-C then comes to whoever asks, who ends this
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    while True:
        try:
            probe, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_called(probe, arguments))


def _called(probe: str, arguments: tuple[Any, ...]) -> Answer:
    module, _, function = probe.partition(":")
    package = __package__.removesuffix(".runtime.doctor")
    try:
        return Answer(getattr(importlib.import_module(f"{package}.{module}"), function)(*arguments))
    except SrDeployError as exc:
        return Answer(None, exc.message, exc.hint, type(exc).__name__)
    except BaseException as exc:  # whatever it is, the parent says it
        return Answer(None, _first_line(exc), "", type(exc).__name__)


def _first_line(exc: BaseException) -> str:
    """An exception in a line: libraries write pages."""
    text = " ".join(str(exc).split())
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} …"
    return f"{type(exc).__name__}: {text}"
