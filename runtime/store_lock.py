"""Locks between processes on the builds of the engine store; a killed holder's is free again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

Say = Callable[[str], None]
"""Takes one line for the user."""

# Who only reads an entry holds its lock for less than this.
PATIENCE_SECONDS = 1.0
# Lock files stay where they are: removing one that another process waits for would give the lock
# to two. So there are at most 16³ of them, and two builds that share one wait for each other.
NAME_LENGTH = 3


class BuildLocks:
    """The locks of a store.

    Args:
        folder: Where the lock files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def held(self, digest: str, say: Say) -> Iterator[str]:
        """Hold the lock of a build, waiting for who has it.

        Yields:
            Why the lock cannot be had here at all, or nothing: a read-only folder, a full disk.
        """
        lock, why_not = self._lock(digest), ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=PATIENCE_SECONDS)
            except Timeout:
                say("another srdeploy is building this engine: waiting for it …")
                lock.acquire()
        except OSError as exc:
            why_not = exc.strerror or str(exc)
        try:
            yield why_not
        finally:
            lock.release()

    @contextlib.contextmanager
    def free(self, digest: str) -> Iterator[bool]:
        """Hold the lock of a build if nobody has it; yields whether that is so."""
        lock = self._lock(digest)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except OSError:  # a timeout is one too
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, digest: str) -> FileLock:
        return FileLock(self.folder / f"{digest[:NAME_LENGTH]}.lock")
