"""The library's own words, kept: for the log beside the engine, and for errors."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import Any

KEPT_WHILE_RUNNING = 1000
"""Lines that a session keeps; it may run for days."""


class Log:
    """What a library of the family said, in order.

    Args:
        trt: Its bindings.
        everything: Whether to keep every line, as for a build, or the last warnings and errors.

    Attributes:
        sink: The ``ILogger`` to hand to the library.
    """

    def __init__(self, trt: Any, everything: bool = True) -> None:
        limit = None if everything else KEPT_WHILE_RUNNING
        self._lines: deque[tuple[str, str]] = deque(maxlen=limit)
        self._threads: deque[int] = deque(maxlen=limit)
        self._lock = threading.Lock()
        self._count = 0

        def take(severity: Any, message: str) -> None:
            if everything or severity <= trt.ILogger.WARNING:
                with self._lock:
                    self._lines.append((severity.name, message))
                    self._threads.append(threading.get_ident())
                    self._count += 1

        class Sink(trt.ILogger):  # type: ignore[misc]  # the base class comes with the bindings
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, message: str) -> None:
                take(severity, message)

        self.sink = Sink()

    def position(self) -> int:
        """Where the log is now, to ask later what came after."""
        return self._count

    def since(self, position: int = 0, own: bool = False) -> list[tuple[str, str]]:
        """(severity, message) of what came after a position and is still kept.

        What this thread's own calls gave, as other lanes use the log too; where they gave nothing
        and ``own`` is not set, what any thread did: the library has some of its own.
        """
        with self._lock:
            start = max(0, position - (self._count - len(self._lines)))
            lines = list(islice(self._lines, start, None))
            threads = list(islice(self._threads, start, None))
        ours = [line for line, t in zip(lines, threads, strict=True) if t == threading.get_ident()]
        return ours if ours or own else lines

    def text(self) -> str:
        """All of it, a line each, the severity in front."""
        return "".join(f"[{severity}] {message}\n" for severity, message in self._lines)

    def errors(self, position: int = 0, own: bool = False) -> str:
        """The errors after a position, joined; see :meth:`since`."""
        found = (m for severity, m in self.since(position, own) if severity.endswith("ERROR"))
        return "; ".join(dict.fromkeys(found))

    def out_of_memory(self, position: int = 0) -> bool:
        """Whether it ran out of memory after a position."""
        words = ("outofmemory", "out of memory", "mem budget", "cudaerrormemoryallocation")
        return any(word in m.lower() for _, m in self.since(position) for word in words)

    def last(self, words: str) -> str:
        """The last message that holds these words, or nothing."""
        return next((m for _, m in reversed(self._lines) if words in m), "")
