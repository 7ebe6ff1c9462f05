"""Runs a probe in a process of its own: a library that crashes or hangs is a line, not the end."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ...errors import SrDeployError

TIMEOUT_SECONDS = 120
_LONGEST = 300


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


def ask(probe: str, *arguments: Any, timeout: float = TIMEOUT_SECONDS) -> Answer:
    """Call ``module:function`` of srdeploy in a new process.

    Args:
        probe: Such as ``runtime.doctor.probes:package``.
        arguments: Of the function; what goes through a pipe.
        timeout: Seconds until it is given up.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # not a daemon: TensorRT-RTX builds in a process that this one starts in turn
    child = context.Process(target=_child, args=(theirs, probe, arguments))
    child.start()
    theirs.close()
    try:
        if not ours.poll(timeout):
            return Answer(problem=f"no answer within {timeout:g} s", kind="timeout")
        answer = ours.recv()
        assert isinstance(answer, Answer)
        return answer
    except EOFError:
        child.join(timeout)
        return Answer(problem=f"crashed: {_death(child.exitcode)}", kind="crash")
    finally:
        ours.close()
        child.kill()
        child.join()


def stop() -> None:
    """End all probes that are running; whoever waits for one gets its crash."""
    for child in multiprocessing.active_children():
        child.kill()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _child(pipe: Connection, probe: str, arguments: tuple[Any, ...]) -> None:
    """Call the probe and send its answer; what libraries print goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    module, _, function = probe.partition(":")
    package = __package__.removesuffix(".runtime.doctor")
    try:
        value = getattr(importlib.import_module(f"{package}.{module}"), function)(*arguments)
        pipe.send(Answer(value))
    except SrDeployError as exc:
        pipe.send(Answer(None, exc.message, exc.hint, type(exc).__name__))
    except BaseException as exc:  # whatever it is, the parent says it
        pipe.send(Answer(None, _first_line(exc), "", type(exc).__name__))
    finally:
        pipe.close()


def _first_line(exc: BaseException) -> str:
    """An exception in a line: libraries write pages."""
    text = " ".join(str(exc).split())
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} …"
    return f"{type(exc).__name__}: {text}"
