"""What commands show: lines, tables, a progress bar, errors and the result as JSON.

On a terminal lines are wrapped between words and stand above the live bar; in a pipe or file
every line stays whole, and progress is a plain line now and then.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SECONDS_BETWEEN_LINES = 10
BAR_COLUMNS = 20
TIME_COLUMNS = len("  00:00:00 ")
STANDARD = Path("-")
"""What stands for standard input or output on a command line."""
PIPE_WIDTH = 10_000
"""Columns of a pipe: as many as any table takes."""

Update = Callable[[float, float | None, str], None]
"""Takes what is done, what there is in all if that is known, and a word on it."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STYLES = {"error: ": "bold red", "hint: ": "cyan", "note: ": "yellow"}


@dataclass
class Output:
    """Where a command's words go.

    Attributes:
        quiet: Print nothing but errors and the JSON.
        verbose: Print the trace of an error too.
        json_file: File for the result as JSON, ``STANDARD`` for standard output, None for none.
        piped: Whether standard output takes a video.
    """

    quiet: bool = False
    verbose: bool = False
    json_file: Path | None = None
    piped: bool = False
    _live: Console | None = field(default=None, repr=False)

    @property
    def _stream(self) -> IO[str]:
        """Standard error where standard output takes something else than words."""
        return sys.stderr if self.piped or self.json_file == STANDARD else sys.stdout

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            _write(line, self._stream, self._live)

    def show(self, table: RenderableType) -> None:
        """Print what rich draws: fitted to a terminal, at its natural width in a pipe."""
        if self.quiet:
            return
        if self._stream.isatty():
            _console(self._stream).print(table, crop=False)
            return
        console = _console(self._stream, PIPE_WIDTH)
        with console.capture() as captured:
            console.print(table, crop=False)
        text = captured.get()
        click.echo("\n".join(line.rstrip() for line in text.splitlines()), file=self._stream)

    def result(self, document: dict[str, Any]) -> None:
        """Write the command's result as JSON if it was asked for."""
        if self.json_file is None:
            return
        text = json.dumps(document, indent=1, default=str) + "\n"
        if self.json_file == STANDARD:
            check_standard_output()
            click.echo(text, nl=False)
            return
        from .files import write_bytes

        write_bytes(self.json_file, text.encode())

    def fail(self, message: str, hint: str) -> None:
        """Print an error and what to do about it, on standard error."""
        if self.verbose:
            click.echo(traceback.format_exc(), err=True, nl=False)
        _write(f"error: {message}", sys.stderr)
        if hint:
            _write(f"hint: {hint}", sys.stderr)

    @contextmanager
    def progress(self, unit: str = "") -> Iterator[Update]:
        """A progress bar on a terminal; elsewhere a plain line now and then.

        Args:
            unit: Of what is counted, such as ``frames``; ``bytes`` are shown in MB.
        """
        if self.quiet:
            yield _silent
            return
        # beside a terminal that takes the words the bar must be drawn by the same hand
        shared = self._stream.isatty()
        console = _console(self._stream if shared else sys.stderr)
        # what reads a pipe may print the words on this terminal too, into the bar
        disturbed = console.is_dumb_terminal or _is_pipe(self._stream)
        if not sys.stderr.isatty() or disturbed:
            yield _lines(unit)
            return
        with _bar(console, unit, shared) as update:
            self._live = console if shared else None
            try:
                yield update
            finally:
                self._live = None


@contextmanager
def _bar(console: Console, unit: str, shared: bool) -> Iterator[Update]:
    """Draw a bar below everything that is printed meanwhile.

    Args:
        console: Of the terminal.
        unit: Of what is counted.
        shared: Whether the words go to that terminal too.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(BAR_COLUMNS),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=shared) as bar:
        # rich hides it, and a process that is stopped or killed would leave it so
        console.show_cursor()
        task = bar.add_task("", total=None)

        def update(done: float, total: float | None, word: str) -> None:
            told = f"{counted(done, total, unit)}  {printable(word)}".strip()
            room = max(0, console.width - BAR_COLUMNS - TIME_COLUMNS)
            if len(told) > room:  # rich would make the bar shorter too
                told = f"{told[: room - 1]}…"
            bar.update(task, completed=done, total=total, description=told)

        yield update


def _is_pipe(stream: IO[str]) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except OSError:  # a stream of a test, which is no file
        return False


def _lines(unit: str) -> Update:
    """At most one line every ten seconds, so that a log stays readable."""
    last = time.monotonic()

    def update(done: float, total: float | None, word: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            _write(f"{counted(done, total, unit)} {word}".rstrip(), sys.stderr)

    return update


def _silent(_done: float, _total: float | None, _word: str) -> None:
    """Say nothing."""


def counted(done: float, total: float | None, unit: str) -> str:
    """Such as ``12 of 300 frames``, or ``12 frames`` where the end is not known."""
    size = 1e6 if unit == "bytes" else 1.0
    digits = ",.1f" if unit == "bytes" else ",.0f"
    parts = [format(done / size, digits)]
    if total:
        parts += ["of", format(total / size, digits)]
    return " ".join([*parts, "MB" if unit == "bytes" else unit]).rstrip()


def printable(text: str) -> str:
    """Without what a hostile manifest could steer a terminal with, and without the colours that
    libraries give their errors."""
    text = _COLOUR.sub("", text)
    return "".join(c if c.isprintable() or c in "\n\t\xa0" else "\ufffd" for c in text)


def _write(line: str, stream: IO[str], live: Console | None = None) -> None:
    line = printable(line)
    if not stream.isatty():
        click.echo(line, file=stream)
        return
    from rich.text import Text

    console = live or _console(stream)
    text = Text(wrapped(line, console.width))
    for label, style in _STYLES.items():
        if line.startswith(label):
            text.stylize(style, 0, len(label) - 1)
    console.print(text, overflow="ignore", crop=False)


def wrapped(line: str, width: int) -> str:
    """Broken between words only: one that is longer than a line, such as a path, stays whole."""
    if "\n" in line:
        return "\n".join(wrapped(part, width) for part in line.split("\n"))
    if len(line) <= width:
        return line
    import textwrap

    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _console(stream: IO[str], width: int | None = None) -> Console:
    from rich.console import Console

    # rich takes FORCE_COLOR for a terminal; a file has no cursor to move and keeps no colour
    terminal = stream.isatty()
    return Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        highlight=False,
        emoji=False,
    )


def prepare_streams() -> None:
    """Make the standard streams take whatever is written: one that is closed takes it nowhere, one
    that lacks a character, such as × in KOI8-R, shows a ? for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def check_standard_output() -> None:
    """See that somebody takes what is not words: a video, JSON.

    Raises:
        OutputError: It was closed when srdeploy started, so that :func:`prepare_streams` has put
            a stream that takes it nowhere in its place.
    """
    if sys.stdout.name == os.devnull:
        raise OutputError("standard output is closed", "name a file to write")
