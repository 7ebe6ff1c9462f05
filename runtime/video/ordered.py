"""The line between decoder, engine and encoder: bounded, in order, stopped by one error.

The decoder appends entries; workers take those that want work, several at once and so out of
order; the encoder takes entries off the front, in order, each once it is done. One lock guards
all of it: at some hundred frames a second it is never contended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
# Entries that want no work are small packets; the bound only guards against a file that stores
# all its audio in front of its video.
MOST_ENTRIES = 4096


class Stopped(Exception):
    """Another stage failed or the caller was interrupted."""


@dataclass(eq=False)
class Entry(Generic[Item]):
    """One place in the line; ``item`` is replaced by what the work made of it."""

    item: Item
    wants_work: bool
    done: bool


class OrderedLine(Generic[Item]):
    """A bounded queue whose entries are worked on out of order and leave in order.

    Every method that waits raises :class:`Stopped` once :meth:`fail` was called.

    Attributes:
        peak: Most entries that wanted work and were in the line at once.
        error: The first error that was reported, or None.
    """

    def __init__(self, limit: int) -> None:
        self.peak = 0
        self.error: BaseException | None = None
        self._limit = limit
        self._in_flight = 0
        self._line: deque[Entry[Item]] = deque()
        self._waiting_for_work: deque[Entry[Item]] = deque()
        self._ended = False
        self._changed = threading.Condition()

    def put(self, item: Item, wants_work: bool) -> None:
        """Append an item; waits while ``limit`` entries that want work are in the line."""
        with self._changed:
            while self._is_full(wants_work):
                self._wait()
            self._check()
            entry = Entry(item, wants_work, not wants_work)
            self._line.append(entry)
            if wants_work:
                self._waiting_for_work.append(entry)
                self._in_flight += 1
                self.peak = max(self.peak, self._in_flight)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no more items come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def work(self) -> Iterator[Entry[Item]]:
        """Entries that want work, until the line has ended; for any number of threads."""
        while True:
            with self._changed:
                while not self._waiting_for_work and not self._ended:
                    self._wait()
                self._check()
                if not self._waiting_for_work:
                    return
                entry = self._waiting_for_work.popleft()
            yield entry

    def finish(self, entry: Entry[Item], result: Item) -> None:
        """Replace an entry's item by the result of its work."""
        with self._changed:
            entry.item, entry.done = result, True
            self._changed.notify_all()

    def results(self) -> Iterator[Item]:
        """Items in order, each when its work is done, until the line has ended."""
        while True:
            with self._changed:
                while not (self._line and self._line[0].done) and not self._is_over():
                    self._wait()
                self._check()
                if not self._line:
                    return
                entry = self._line.popleft()
            yield entry.item
            # Only now is the frame's memory free, so only now may the next come in.
            if entry.wants_work:
                with self._changed:
                    self._in_flight -= 1
                    self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Stop every stage; the first error stays."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def _is_full(self, wants_work: bool) -> bool:
        return len(self._line) >= MOST_ENTRIES or (wants_work and self._in_flight >= self._limit)

    def _is_over(self) -> bool:
        return self._ended and not self._line

    def _wait(self) -> None:
        self._check()
        self._changed.wait()

    def _check(self) -> None:
        if self.error is not None:
            raise Stopped
