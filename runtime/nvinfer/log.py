"""The library's own words, kept: for the log beside the engine, and for errors."""

from __future__ import annotations

from typing import Any


class Log:
    """What a library of the family said, in order.

    Attributes:
        lines: (severity, message).
        sink: The ``ILogger`` to hand to the library.
    """

    def __init__(self, trt: Any) -> None:
        self.lines: list[tuple[str, str]] = []
        lines = self.lines

        class Sink(trt.ILogger):  # type: ignore[misc]  # the base class comes with the bindings
            def __init__(self) -> None:
                super().__init__()

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity.name, message))

        self.sink = Sink()

    def text(self) -> str:
        """All of it, a line each, the severity in front."""
        return "".join(f"[{severity}] {message}\n" for severity, message in self.lines)

    def errors(self, since: int = 0) -> str:
        """The errors from a position on, joined."""
        found = (m for severity, m in self.lines[since:] if severity.endswith("ERROR"))
        return "; ".join(dict.fromkeys(found))

    def out_of_memory(self, since: int = 0) -> bool:
        """Whether it ran out of memory from a position on."""
        words = ("outofmemory", "out of memory", "mem budget", "cudaerrormemoryallocation")
        return any(word in m.lower() for _, m in self.lines[since:] for word in words)

    def message_starting(self, start: str) -> str:
        """The last message that starts so, or nothing."""
        found = [m for _, m in self.lines if m.startswith(start)]
        return found[-1] if found else ""
