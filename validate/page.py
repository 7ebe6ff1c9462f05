"""The parts that every page is made of: one HTML file that needs nothing else.

A page is for screen, phone and paper. The functions escape what they are given, but for
arguments called ``body`` and for cells, which are HTML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

LONGEST_OPEN_TABLE = 20
LONGEST_TERM = 400  # characters; what is longer is folded


def page(kicker: str, title: str, body: str) -> str:
    """A whole document.

    Args:
        kicker: What kind of page it is, above the title.
        title: Heading, and name of the window.
        body: Everything below.
    """
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {escape(kicker)}</title><style>{style}</style></head>"
        f"<body><header><p class='soft'>{escape(kicker)}</p><h1>{escape(title)}</h1></header>"
        f"{body}</body></html>\n"
    )


def verdict(kind: str, headline: str, said: str) -> str:
    """The box on top; ``kind`` is ``pass``, ``fail``, ``open`` (not known) or ``plain``."""
    return (
        f"<div class='verdict {kind}'><strong>{escape(headline)}</strong>"
        f"<p>{escape(said)}</p></div>"
    )


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """A few large figures, each over what it is."""
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in entries
    )
    return f"<dl class='facts'>{tiles}</dl>"


def table(heads: Sequence[str], rows: Iterable[str], words: frozenset[str] = frozenset()) -> str:
    """A table that scrolls where the screen is narrow.

    Args:
        heads: Of the columns.
        rows: Of :func:`row`.
        words: Heads of the columns that hold words, not figures; the first always does.
    """
    cells = "".join(
        f"<th scope='col'{_WORDS if head in words else ''}>{escape(head)}</th>" for head in heads
    )
    return (
        f"<div class='scroll'><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Iterable[str], kind: str = "") -> str:
    """A row of cells that :func:`words`, :func:`figure` or :func:`decibels` made."""
    return f"<tr class='{kind}'>{''.join(cells)}</tr>"


_WORDS = " class='words'"


def words(text: str) -> str:
    """A cell of words."""
    return f"<td{_WORDS}>{escape(text)}</td>"


def named(name: str, said: str) -> str:
    """A cell of a long dotted name, which may break at its dots, over what else it is called."""
    shown, below = (
        escape(text).replace(".", ".<wbr>").replace("/", "/<wbr>") for text in (name, said)
    )
    return f"<td class='words name'>{shown}<br><span class='soft'>{below}</span></td>"


def figure(text: str) -> str:
    """A cell of a figure."""
    return f"<td>{escape(text)}</td>"


def decibels(value: float, unknown: str = "–") -> str:
    """A cell of a drift; a loss that shows is marked."""
    if math.isnan(value):
        return figure(unknown)
    return f"<td{_DOWN if value <= -0.0005 else ''}>{signed(value)}</td>"


_DOWN = " class='down'"


def signed(value: float) -> str:
    """Three decimals, a true minus sign, and no sign before zero."""
    text = f"{value:+z.3f}".replace("-", "−")
    return text[1:] if text[1:] == "0.000" else text


def folded(summary: str, count: int, body: str) -> str:
    """A part that opens at a click and on paper; where ``count`` is small it stands open."""
    state = " open" if count <= LONGEST_OPEN_TABLE else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{body}</details>"


def aside(summary: str, body: str) -> str:
    """A part that few want to read: it opens at a click alone."""
    return f"<details class='aside'><summary>{escape(summary)}</summary>{body}</details>"


def counted(count: int, thing: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{count} {thing}{'s' * (count != 1)}"


def terms(entries: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; empty values are left out, long ones folded."""
    return f"<dl>{''.join(_term(name, value) for name, value in entries if value)}</dl>"


def _term(name: str, value: str) -> str:
    shown = escape(value)
    if len(value) > LONGEST_TERM:
        summary = f"{escape(value[:60])} … ({len(value):,} characters)"
        shown = f"<details><summary>{summary}</summary>{shown}</details>"
    return f"<dt>{escape(name)}</dt><dd>{shown}</dd>"


def listed(heading: str, sentences: Iterable[str]) -> str:
    """A heading over sentences; nothing where there is none."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h3>{escape(heading)}</h3><ul>{items}</ul>" if items else ""
