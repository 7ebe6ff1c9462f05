"""Drawings in a page: what the charts have in common, as inline SVG.

Places are pixels from the top left corner; colours come from the page's CSS, by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

WIDTH = 760
LEFT, RIGHT = 80, WIDTH - 24
"""Edges of what is plotted; the labels of a vertical axis stand left of it."""


class Axis:
    """Maps ``low`` to ``high`` onto the pixels from ``start`` to ``end``.

    Attributes:
        step: Distance of two ticks.
        low: The least value in sight.
        high: The greatest.
    """

    def __init__(
        self, low: float, high: float, start: float, end: float, ticks: int = 4, margin: float = 0.0
    ) -> None:
        """Choose the ticks.

        Args:
            low: Finite and below ``high``.
            high: Finite.
            start: Pixel of ``low``.
            end: Pixel of ``high``; below ``start`` where values grow upwards.
            ticks: How many steps, about.
            margin: Room at either end, as a share of the range.
        """
        self.step = _round_step((high - low) / ticks)
        room = margin * (high - low)
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self, signed: bool = False) -> Iterator[tuple[float, str]]:
        """Value and label of every tick; zero has no sign."""
        decimals = max(0, -math.floor(math.log10(self.step)))
        for index in range(math.ceil(self.low / self.step), math.floor(self.high / self.step) + 1):
            value = index * self.step
            label = f"{value:+z,.{decimals}f}" if signed else f"{value:,.{decimals}f}"
            yield value, label.replace("-", "−") if index else "0"


def _round_step(rough: float) -> float:
    """The next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


class Drawing:
    """An ``<svg>`` element, which a template takes as it is; all text in it is escaped.

    Args:
        height: Pixels.
        label: What it shows, for who cannot see it.
        width: Pixels.
        kind: Class of it in the CSS, as ``kind`` is everywhere here.
    """

    def __init__(self, height: float, label: str, width: float = WIDTH, kind: str = "") -> None:
        self._into = ElementTree.Element("svg", {"class": kind} if kind else {})
        self._into.set("viewBox", f"0 0 {width:g} {height:g}")
        self._into.set("role", "img")
        self._into.set("aria-label", label)

    def __html__(self) -> str:
        return ElementTree.tostring(self._into, encoding="unicode")

    def add(
        self, tag: str, kind: str, title: str = "", **places: float | str
    ) -> ElementTree.Element:
        """Append an element of the given attributes; ``title`` is shown where a mouse rests."""
        made = ElementTree.SubElement(self._into, tag, {"class": kind} if kind else {})
        for name, place in places.items():
            made.set(name, place if isinstance(place, str) else f"{round(place, 2):g}")
        if title:
            ElementTree.SubElement(made, "title").text = title
        return made

    def line(self, kind: str, x1: float, x2: float, y1: float, y2: float) -> None:
        """A line between two points."""
        self.add("line", kind, x1=x1, x2=x2, y1=y1, y2=y2)

    def bar(
        self, kind: str, x: float, y: float, width: float, height: float, title: str = ""
    ) -> None:
        """A filled rectangle."""
        self.add("rect", kind, title, x=x, y=y, width=width, height=height)

    def text(self, kind: str, x: float, y: float, text: str, title: str = "") -> None:
        """A line of text on the height ``y``; ``kind`` says which end of it ``x`` is."""
        self.add("text", kind, title, x=x, y=y).text = text

    def curve(self, points: Sequence[tuple[float, float]]) -> None:
        """A line through all points."""
        self.add("polyline", "front", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def level(self, kind: str, y: float) -> None:
        """A line across all that is plotted."""
        self.line(kind, LEFT, RIGHT, y, y)

    def vertical(self, axis: Axis, signed: bool = False) -> None:
        """Levels at the ticks of an axis, and their labels; with a sign, zero stands out."""
        for value, label in axis.ticks(signed):
            y = axis.at(value)
            self.level("grid" if value or not signed else "zero", y)
            self.text("tick", LEFT - 8, y + 4, label)

    def horizontal(self, axis: Axis, bottom: float) -> None:
        """The ticks of an axis on the height ``bottom``, and their labels below."""
        for value, label in axis.ticks():
            x = axis.at(value)
            self.line("grid", x, x, bottom, bottom + 5)
            self.text("mid", x, bottom + 23, label)

    @contextmanager
    def group(self, kind: str, title: str) -> Iterator[None]:
        """What is drawn meanwhile belongs together and has one title."""
        outer = self._into
        self._into = self.add("g", kind, title)
        yield
        self._into = outer


def histogram(shares: Sequence[float], label: str) -> Drawing:
    """Shares as a row of small bars."""
    drawing, most = Drawing(60, label, 20 * len(shares), "small"), max([*shares, 1e-9])
    for index, share in enumerate(shares):
        height = 58 * max(share, 0) / most
        drawing.bar("loss", 20 * index, 60 - height, 18, max(height, 0.5), f"{share:.1%}")
    return drawing
