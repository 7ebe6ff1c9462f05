"""A terminal for tests: runs a command in a pseudo-terminal and keeps what it would show."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

ROWS = 50
LONGEST = 240
PAUSE = 0.05  # seconds without output after which a screen counts as drawn


@dataclass(frozen=True)
class Shown:
    """What a command showed.

    Attributes:
        code: Its exit code.
        lines: Of the terminal at the end, what scrolled out at the top included, without the
            spaces at their ends and the empty lines after the last.
        moments: The lines as they stood whenever the command paused.
        raw: All that it wrote.
    """

    code: int
    lines: list[str]
    moments: list[list[str]]
    raw: str

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)

    @property
    def words(self) -> str:
        """The lines as one paragraph: what was wrapped between words is whole again."""
        return " ".join(self.text.split())


def in_terminal(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str],
    columns: int,
) -> Shown:
    """Run a command whose input, output and error output are a terminal.

    Args:
        command: Program and arguments.
        folder: Where it runs.
        environment: Its variables.
        columns: Width of the terminal.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = pyte.HistoryScreen(columns, ROWS, history=10_000)
    stream = pyte.ByteStream(screen)
    moments: list[list[str]] = []
    raw = bytearray()
    deadline = time.monotonic() + LONGEST
    while True:
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{command} did not end; it showed\n" + "\n".join(_lines(screen)))
        if not select.select([ours], [], [], PAUSE)[0]:
            moments.append(_lines(screen))
            continue
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the last one closed the terminal
            break
        if not part:
            break
        raw += part
        stream.feed(part)
    os.close(ours)
    return Shown(process.wait(LONGEST), _lines(screen), moments, raw.decode(errors="replace"))


def _lines(screen: pyte.HistoryScreen) -> list[str]:
    gone = [
        "".join(row[x].data for x in range(screen.columns)).rstrip() for row in screen.history.top
    ]
    lines = [*gone, *(line.rstrip() for line in screen.display)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def runner(
    folder: Path, repository: Path, columns: int = 80, **variables: str
) -> Callable[..., Shown]:
    """What runs ``srdeploy WORDS`` in a terminal of so many columns, with a cache of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(repository / ".src"),
        "SRDEPLOY_CACHE": str(folder / ".cache"),
        "HOME": str(folder),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        **variables,
    }

    def run(*words: str, program: Sequence[str] = ("-m", "srdeploy")) -> Shown:
        return in_terminal([sys.executable, *program, *words], folder, environment, columns)

    return run
