"""Lines as wide as the console, for lists and tables: whole words, nothing behind their end.

rich's own tables fill their cells with spaces and break words where a terminal is narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..console import printable, wrapped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text


class Page:
    """Lines for rich to draw, to be printed with ``crop=False``.

    Args:
        lines: Makes them for a width in columns.
    """

    def __init__(self, lines: Callable[[int], Iterable[Text]]) -> None:
        self._lines = lines

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Text]:
        return iter(self._lines(options.max_width))


def whole(line: str, style: str = "") -> Text:
    """A line that is never broken, without what could steer a terminal."""
    from rich.text import Text

    return Text(printable(line), style=style, no_wrap=True, overflow="ignore")


def broken(line: str, width: int) -> list[str]:
    """A line as the lines that it takes, broken between words, all as far indented."""
    return wrapped(line, max(width, 1)).split("\n")


def aligned(rows: Sequence[Sequence[str]], figures: frozenset[int], gap: int) -> list[str]:
    """Rows of cells as lines, each column as wide as what it holds.

    Args:
        rows: Of equally many cells.
        figures: Columns that stand on the right.
        gap: Spaces between two columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (" " * gap)
        .join(
            cell.rjust(width) if column in figures else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]
