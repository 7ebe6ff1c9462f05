"""Screens of computers: windows, icons, small text and code."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Colour, Point
from .widgets import BLUE, DIM, GREY, INK, LINE, PALE, SHARPNESS, button, cross, window

Picture = NDArray[np.uint8]


def files() -> Picture:
    """A file manager with a dialog, over a desktop, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(c.ramp([(0, (28, 60, 120)), (0.5, (92, 72, 160)), (1, (226, 120, 130))], 60))
    c.polygon(
        [(0, 150), (70, 96), (130, 140), (200, 90), (264, 132), (264, 192), (0, 192)], (44, 40, 96)
    )
    window(c, (14, 10, 218, 150), "Documents", (236, 238, 242))
    c.box(15, 25, 52, 134, (238, 240, 244))
    c.box(67, 25, 1, 134, LINE)
    for i, place in enumerate(("Home", "Desktop", "Music", "Pictures", "Videos", "Trash")):
        if i == 3:
            c.box(17, 72, 48, 14, BLUE, 3)
        c.box(21, 33 + i * 15, 7, 6, (255, 255, 255) if i == 3 else (96, 150, 226), 1)
        c.text((32, 39 + i * 15), place, 7.5, (255, 255, 255) if i == 3 else INK)
    _file_list(c)
    _dialog(c)
    _task_bar(c)
    return c.pixels(SHARPNESS)


FILES = (
    ("budget_2026.ods", "48 kB", (70, 160, 90)),
    ("holiday.jpg", "2.1 MB", (226, 120, 70)),
    ("letter to Ada.odt", "17 kB", (70, 120, 220)),
    ("notes.txt", "3 kB", (130, 136, 150)),
    ("song_final_2.flac", "31 MB", (160, 90, 200)),
    ("report.pdf", "640 kB", (214, 60, 60)),
    ("thesis", "12 items", (240, 190, 70)),
    ("zebra.png", "905 kB", (226, 120, 70)),
)


def _file_list(c: Canvas) -> None:
    c.box(68, 25, 164, 12, GREY)
    c.box(68, 37, 164, 1, LINE)
    for x, words in ((76, "Name"), (160, "Size"), (198, "Kind")):
        c.text((x, 34), words, 7, DIM)
    c.box(154, 25, 1, 12, LINE)
    c.box(192, 25, 1, 12, LINE)
    for i, (name, size, colour) in enumerate(FILES):
        y = 38 + i * 14
        if i % 2:
            c.box(68, y, 164, 14, (247, 249, 252))
        if i == 2:
            c.box(68, y, 164, 14, PALE)
        c.box(74, y + 2, 8, 10, colour, 1)
        c.box(76, y + 5, 4, 1, (255, 255, 255))
        c.box(76, y + 7, 4, 1, (255, 255, 255))
        c.text((86, y + 10), name, 7.5, INK)
        c.text((184, y + 10), size, 7, DIM, "rs")
        c.text((198, y + 10), name[-3:].upper(), 6.5, DIM)


def _dialog(c: Canvas) -> None:
    window(c, (118, 88, 132, 76), "Rename", (226, 230, 238))
    c.text((126, 115), "New name of the file:", 7.5, INK)
    c.box(126, 120, 116, 14, BLUE, 2)
    c.box(127, 121, 114, 12, (255, 255, 255), 1)
    c.box(129, 123, 55, 8, (186, 212, 255))
    c.text((130, 130), "letter to Ada", 8, INK)
    c.box(184, 122, 1, 10, INK)
    button(c, (158, 144, 38, 14), "Cancel", False)
    button(c, (202, 144, 40, 14), "Rename", True)


def _task_bar(c: Canvas) -> None:
    c.box(0, 176, 264, 16, (22, 24, 34))
    for i, colour in enumerate(((66, 140, 240), (240, 160, 60), (90, 190, 110), (226, 80, 90))):
        c.box(6 + i * 18, 178, 12, 12, colour, 3)
        c.box(9 + i * 18, 181, 6, 6, (255, 255, 255), i)
    c.box(6, 191, 12, 1, (255, 255, 255))
    c.text((258, 187), "Tue 9:41", 8, (236, 238, 244), "rs")


CODE = (
    "# tides of the harbour",
    "import math",
    "",
    "def tide(hour, moon=0.8):",
    "    phase = hour * 6.283 / 12.4",
    "    if moon < 0:",
    '        raise ValueError("moon")',
    "    return moon * math.cos(phase)",
    "",
    "for hour in range(24):",
    "    level = tide(hour)",
    '    print(f"{hour:2} h {level:+.2f} m")',
)
KEYWORDS = {"import", "def", "if", "raise", "return", "for", "in"}


def editor() -> Picture:
    """A dark code editor with a terminal, 264×192."""
    c = Canvas(264, 192, (30, 32, 40))
    c.box(0, 0, 264, 16, (22, 23, 30))
    for i, name in enumerate(("tides.py", "moon.py", "README")):
        left = 52 + i * 52
        c.box(left, 0, 51, 16, (30, 32, 40) if not i else (38, 41, 51))
        c.text((left + 6, 11), name, 7.5, (230, 232, 240) if not i else (140, 146, 160))
        cross(c, (left + 43, 8), (140, 146, 160))
    c.box(52, 0, 51, 1, (90, 160, 255))
    c.box(52, 17, 212, 121, (30, 32, 40))
    _tree_of_files(c)
    for i, words in enumerate(CODE):
        y = 27 + i * 9.5
        if i == 7:
            c.box(52, 86, 186, 10, (44, 48, 62))
        c.text((66, y), str(i + 1), 6.5, (96, 102, 118), "rs")
        _code_line(c, (72, y), words)
    _small_map(c)
    _terminal(c)
    return c.pixels(SHARPNESS)


def _tree_of_files(c: Canvas) -> None:
    c.box(0, 16, 51, 166, (24, 26, 33))
    c.box(51, 16, 1, 166, (56, 60, 72))
    c.text((6, 26), "EXPLORER", 5.5, (140, 146, 160))
    c.box(0, 39, 51, 10, (50, 56, 74))
    names = ("src", "tides.py", "moon.py", "sun.py", "tests", "test_tides", "docs", "LICENSE")
    for i, name in enumerate(names):
        inner = name.endswith(".py") or name.startswith("test_")
        colour = (250, 206, 110) if not inner else (110, 170, 250)
        c.box(6 + 5 * inner, 31 + i * 10, 4, 5, colour, 1)
        c.text((14 + 5 * inner, 36.5 + i * 10), name, 6.2, (206, 210, 220))


def _code_line(c: Canvas, place: Point, words: str) -> None:
    """A line of code, each part in its kind's colour."""
    x, y = place
    if words.startswith("#"):
        c.text(place, words, 8.4, (112, 122, 140))
        return
    for part, following in re.findall(r'(f?"[^"]*"|\w+| +|[^\w" ]+)(?=(.?))', words):
        x += c.text((x, y), part, 8.4, _kind(part, following)) + (2 if part[0] == " " else 0)


def _kind(part: str, following: str) -> Colour:
    if part in KEYWORDS:
        return (206, 140, 250)
    if '"' in part:
        return (150, 214, 130)
    if part[0].isdigit():
        return (250, 170, 110)
    return (110, 190, 255) if part[0].isalpha() and following == "(" else (212, 216, 226)


def _small_map(c: Canvas) -> None:
    c.box(238, 16, 1, 122, (44, 48, 58))
    rng = np.random.default_rng(8)
    for i in range(50):
        indent = int(rng.integers(0, 3)) * 3
        colours = ((120, 130, 150), (150, 110, 180), (110, 150, 110), (90, 130, 180))
        c.box(241 + indent, 19 + 2 * i, int(rng.integers(3, 14)), 1, colours[i % 4])


def _terminal(c: Canvas) -> None:
    c.box(52, 138, 212, 44, (18, 19, 25))
    c.box(52, 138, 212, 1, (70, 76, 90))
    c.text((58, 148), "$ python tides.py", 7, (130, 230, 150))
    for i, words in enumerate((" 0 h +0.80 m", " 1 h +0.70 m", " 2 h +0.42 m")):
        c.text((58, 157 + i * 8), words, 7, (206, 210, 220))
    c.text((128, 157), "warning: 1 value is old", 7, (250, 200, 90))
    c.text((128, 165), "error: no tide on Mars", 7, (250, 110, 110))
    c.box(0, 182, 264, 10, (38, 102, 210))
    c.text((5, 189.5), "main*    12 errors", 6.5, (255, 255, 255))
    c.text((259, 189.5), "Ln 8, Col 34   UTF-8   Python 3.12", 6.5, (255, 255, 255), "rs")
