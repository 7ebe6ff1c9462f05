"""Builds in a process of their own: a library that aborts is an error message then."""

from __future__ import annotations

import importlib
import multiprocessing
from multiprocessing.connection import Connection

from ...errors import BuildError
from .build import BuildJob, BuildOutcome, build

SECONDS_TO_END = 10

Failure = tuple[str, str]
"""Message and hint."""


def _child(pipe: Connection, module: str, job: BuildJob) -> None:
    """Build and send what came of it."""
    try:
        library = importlib.import_module(module).LIBRARY
        answer: BuildOutcome | Failure = build(library, job)
    except Exception as exc:  # whatever it is, the parent says it
        answer = (f"{exc}" or type(exc).__name__, getattr(exc, "hint", ""))
    pipe.send(answer)
    pipe.close()


def build_apart(module: str, name: str, job: BuildJob, timeout: float) -> BuildOutcome:
    """Build in a new process.

    Args:
        module: Dotted name of the target's file, which has a ``LIBRARY``.
        name: Of the library, for messages.
        job: What to build.
        timeout: Seconds after which the build is ended.

    Raises:
        BuildError: The library refuses the graph, crashes or hangs.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(theirs, module, job), daemon=True)
    what = f"the {job.config.precision} graph"
    try:
        child.start()
        theirs.close()
        if not ours.poll(timeout):
            raise BuildError(f"{name} did not finish {what} in {timeout:.0f} s")
        answer = ours.recv()
    except (EOFError, BrokenPipeError) as exc:
        child.join(SECONDS_TO_END)
        raise BuildError(
            f"{name} crashed while it built {what} (exit code {child.exitcode})",
            "try another precision; what it printed stands above",
        ) from exc
    finally:
        ours.close()
        if child.pid is not None:
            child.kill()
            child.join()
    if isinstance(answer, BuildOutcome):
        return answer
    message, hint = answer
    raise BuildError(f"{name} refuses {what}: {message}", hint or "try another precision or target")
