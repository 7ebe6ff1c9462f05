"""Keeps encoders from taking the machine for themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextlib.contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Undo what an encoder does to the scheduling of threads while it opens.

    SVT-AV1, run as root as in most containers, puts its own threads and the calling one under
    SCHED_FIFO, before everything else on the machine (FFmpeg 8, seen).
    """
    if not hasattr(os, "sched_getscheduler") or not _THREADS.is_dir():
        yield
        return
    before = _policies()
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            wanted = before.get(thread, os.SCHED_OTHER)
            if policy != wanted == os.SCHED_OTHER:
                with contextlib.suppress(OSError):  # it has ended
                    os.sched_setscheduler(thread, wanted, os.sched_param(0))


def _policies() -> dict[int, int]:
    """Policy of every thread of this process, by its id."""
    found = {}
    for entry in _THREADS.iterdir():
        with contextlib.suppress(OSError):  # it has ended
            found[int(entry.name)] = os.sched_getscheduler(int(entry.name))
    return found
