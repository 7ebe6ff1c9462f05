"""A web page of figures: cards, lines of one pixel, charts, small text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, spline
from .widgets import BLUE, DIM, INK, LINE, SHARPNESS, button, cross

Picture = NDArray[np.uint8]


def dashboard() -> Picture:
    """A web page of figures and charts in a browser, 384×288."""
    c = Canvas(384, 288, (243, 245, 248))
    _browser(c)
    c.box(0, 37, 64, 251, (24, 32, 52))
    for i, words in enumerate(("Overview", "Orders", "Stock", "People", "Reports", "Settings")):
        if i == 0:
            c.box(4, 62, 56, 17, (54, 74, 122), 3)
        c.box(9, 66 + i * 21, 9, 9, (120, 160, 240) if not i else (104, 116, 144), 2)
        c.text((22, 74 + i * 21), words, 7.5, (255, 255, 255) if not i else (170, 180, 204))
    c.text((10, 53), "Bakery HQ", 9.5, (255, 255, 255), bold=0.3)
    _figures(c)
    _line_chart(c)
    _ring(c)
    _table(c)
    return c.pixels(SHARPNESS)


def _browser(c: Canvas) -> None:
    c.box(0, 0, 384, 18, (218, 222, 230))
    c.box(6, 3, 110, 15, (250, 251, 253), 4)
    c.disc((16, 10), 3.5, (232, 120, 50))
    c.text((24, 13), "Sales this week", 8, INK)
    cross(c, (108, 10), DIM)
    c.box(0, 18, 384, 18, (250, 251, 253))
    c.box(0, 36, 384, 1, LINE)
    c.line([(16, 23), (12, 27), (16, 31)], DIM, 1.2)
    c.line([(28, 23), (32, 27), (28, 31)], (190, 196, 206), 1.2)
    c.box(46, 21, 280, 12, (236, 239, 244), 6)
    c.text((56, 30), "https://bakery.example/overview?week=37", 7.5, DIM)
    for i in range(3):
        c.box(364, 23 + i * 3, 8, 1, DIM)


def _card(c: Canvas, left: int, top: int, width: int, height: int) -> None:
    c.box(left, top + 1, width, height, (214, 218, 226), 4)
    c.box(left, top, width, height, LINE, 4)
    c.box(left + 1, top + 1, width - 2, height - 2, (255, 255, 255), 3)


def _figures(c: Canvas) -> None:
    shown = (
        ("Revenue", "8,412", "+4.2 %", (30, 150, 90)),
        ("Loaves", "2,907", "+1.1 %", (30, 150, 90)),
        ("Returned", "36", "-0.8 %", (214, 60, 60)),
        ("Customers", "1,184", "+9.6 %", (30, 150, 90)),
    )
    for i, (name, value, change, colour) in enumerate(shown):
        left = 72 + i * 78
        _card(c, left, 46, 70, 42)
        c.text((left + 8, 58), name, 7, DIM)
        c.text((left + 8, 73), value, 13.5, INK, bold=0.3)
        c.text((left + 8, 83), change, 7, colour)


def _line_chart(c: Canvas) -> None:
    _card(c, 72, 96, 196, 98)
    c.text((80, 109), "Loaves per hour", 8.5, INK, bold=0.2)
    for i in range(5):
        y = 118 + 15 * i
        c.box(96, y, 164, 1, (230, 233, 238))
        c.text((92, y + 2.5), str(400 - 100 * i), 6, DIM, "rs")
    rng = np.random.default_rng(12)
    for colour, base, rise in ((BLUE, 150, 22), ((240, 130, 50), 164, 10)):
        tops = base - rise * np.sin(np.linspace(0.2, 2.9, 9)) + rng.normal(0, 5, 9)
        points = spline([(98 + i * 20, float(y)) for i, y in enumerate(tops)])
        if colour == BLUE:
            c.polygon([*points, (258, 178), (98, 178)], (222, 234, 254))
        c.line(points, colour, 1.6)
        for point in points[::10]:
            c.disc(point, 2.4, colour)
            c.disc(point, 1.2, (255, 255, 255))
    for i in range(9):
        c.text((98 + i * 20, 187), f"{6 + 2 * i} h", 6, DIM, "ms")
    c.box(186, 104, 48, 24, (30, 36, 48), 3)
    c.text((191, 113), "14 h", 6.5, (180, 188, 204))
    c.text((191, 123), "342 loaves", 7.5, (255, 255, 255))


def _ring(c: Canvas) -> None:
    _card(c, 276, 96, 100, 98)
    c.text((284, 109), "By kind", 8.5, INK, bold=0.2)
    kinds = (("Rye", 0.42, BLUE), ("Wheat", 0.27, (36, 180, 140)), ("Rolls", 0.19, (240, 180, 50)))
    start = -np.pi / 2
    for _, share, colour in (*kinds, ("Cake", 0.12, (226, 84, 110))):
        angles = np.linspace(start, start + 2 * np.pi * share, 40)
        arc = [(310 + 24 * np.cos(a), 142 + 24 * np.sin(a)) for a in angles]
        c.polygon([(310, 142), *arc], colour)
        start += 2 * np.pi * share
    c.disc((310, 142), 14, (255, 255, 255))
    c.text((310, 145), "42 %", 8, INK, "ms")
    for i, (name, _, colour) in enumerate(kinds):
        c.box(342, 126 + i * 12, 6, 6, colour, 1)
        c.text((351, 131.5 + i * 12), name, 6.5, INK)
    c.text((284, 186), "show all kinds", 6.5, BLUE)
    c.box(284, 188, 41, 1, (150, 190, 250))


ROWS: Sequence[tuple[str, str, str, float]] = (
    ("#4821", "Ada Pemberton", "paid", 0.9),
    ("#4820", "Cafe Lindgren", "open", 0.35),
    ("#4819", "Hotel Meridian", "paid", 0.6),
    ("#4818", "J. Okafor & Sons", "late", 0.15),
)


def _table(c: Canvas) -> None:
    _card(c, 72, 202, 304, 80)
    c.text((80, 214), "Last orders", 8.5, INK, bold=0.2)
    button(c, (290, 206, 34, 12), "Export", False)
    button(c, (330, 206, 40, 12), "+ Order", True)
    colours = {"paid": (30, 150, 90), "open": (210, 140, 20), "late": (214, 60, 60)}
    for i, (number, name, state, share) in enumerate(ROWS):
        y = 222 + i * 15
        c.box(73, y - 1, 302, 1, (230, 233, 238))
        c.box(80, y + 3, 8, 8, BLUE if i == 0 else LINE, 1)
        if i == 0:
            c.line([(82, y + 7), (83.6, y + 9), (86.4, y + 5)], (255, 255, 255), 1)
        else:
            c.box(81, y + 4, 6, 6, (255, 255, 255))
        c.text((96, y + 10), number, 7.5, DIM)
        c.text((132, y + 10), name, 7.5, INK)
        c.box(218, y + 2, 26, 10, colours[state], 5)
        c.text((231, y + 9.3), state, 6.5, (255, 255, 255), "ms")
        c.box(262, y + 5, 104, 4, (230, 233, 238), 2)
        c.box(262, y + 5, round(104 * share), 4, colours[state], 2)
