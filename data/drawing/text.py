"""Pages, boards and cards: antialiased text of several sizes, dark on light and light on dark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .canvas import OVER, Canvas, Colour, Point, clouds

Picture = NDArray[np.uint8]
SHARPNESS = 0.75  # blur of a photograph of print
BLACK, WHITE = (24, 22, 26), (250, 248, 244)

STORY = (
    "he ferry leaves the old harbour at six,",
    "long before the market opens, and the",
    'pilot steers by bells. "In 40 years," she says,',
    '"I have been late only twice." The boat has',
)


def article() -> Picture:
    """A page of a magazine with a dark box, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(c.ramp([(0, (250, 247, 240)), (1, (226, 220, 206))], 30))
    c.text((12, 15), "TRAVEL & PLACES", 9, (150, 40, 36), bold=0.25)
    c.text((252, 15), "No. 217", 9, (90, 86, 84), "rs")
    c.line([(12, 20), (252, 20)], BLACK, 1)
    c.text((11, 53), "Green Ferry", 42, BLACK, bold=0.9)
    c.text((12, 87), "T", 32, (150, 40, 36), bold=0.6)
    _lines(c, (32, 74), STORY[:2], 12, 14, (52, 50, 52))
    _lines(c, (12, 102), STORY[2:], 12, 14, (52, 50, 52))
    c.box(136, 124, 116, 58, (28, 44, 58))
    c.text((145, 140), "TIMETABLE", 14, (250, 206, 96), bold=0.5)
    _lines(c, (145, 157), ("Harbour  6:05",), 13, 15, WHITE)
    _lines(c, (145, 173), ("Mill Bay  6:41",), 13, 15, (164, 196, 214))
    _lines(
        c, (12, 132), ("38 seats, a stove,", "and a cat named", "Admiral."), 12, 14, (52, 50, 52)
    )
    c.text((12, 184), "22", 13, BLACK, bold=0.3)
    return c.pixels(SHARPNESS)


def _lines(
    c: Canvas, place: Point, lines: Sequence[str], size: float, step: float, colour: Colour
) -> None:
    for i, words in enumerate(lines):
        c.text((place[0], place[1] + i * step), words, size, colour)


DEPARTURES = (
    ("14:07", "Northbridge", "3", (236, 238, 244)),
    ("14:12", "Quarry Hill", "1", (255, 130, 110)),
    ("14:25", "Saint Olave", "7", (236, 238, 244)),
)


def departures() -> Picture:
    """A departure board, and a ticket in front of it, 264×192."""
    c = Canvas(264, 192, (12, 14, 20))
    c.box(0, 0, 264, 30, (26, 52, 120))
    c.text((8, 22), "Departures", 23, (255, 255, 255), bold=0.6)
    c.text((256, 22), "14:03", 19, (255, 214, 90), "rs")
    for i, (time, town, platform, colour) in enumerate(DEPARTURES):
        y = 52 + i * 24
        if i % 2:
            c.box(0, y - 18, 264, 24, (30, 34, 46))
        c.text((8, y), time, 19, (255, 222, 120))
        c.text((70, y), town, 20, colour)
        c.text((250, y), platform, 20, (130, 236, 150), "rs")
    _ticket(c)
    return c.pixels(1.4 * SHARPNESS)


def _ticket(c: Canvas) -> None:
    c.polygon([(26, 114), (250, 120), (250, 196), (22, 196)], (0, 0, 0), soft=3)
    c.box(24, 110, 226, 88, (250, 236, 214), 6)
    c.box(24, 110, 226, 20, (216, 84, 58), 6)
    c.text((32, 125), "RETURN TICKET", 14, (255, 250, 240), bold=0.4)
    c.text((242, 125), "2nd class", 12, (255, 250, 240), "rs")
    c.text((32, 153), "Quarry Hill", 23, BLACK, bold=0.5)
    c.text((32, 167), "via Mill Road, one day only", 10, (90, 74, 66))
    c.text((32, 187), "18.40", 18, (176, 48, 34), bold=0.4)
    c.text((92, 186), "not from 6:30 to 9:00", 9, (90, 74, 66))
    c.disc((218, 158), 19, (190, 60, 60))
    c.disc((218, 158), 16.5, (250, 236, 214))
    c.text((218, 165), "14", 20, (190, 60, 60), "ms", 0.5)


BOARD = (
    ("Onion soup", "6.50"),
    ("Trout, almonds", "14.80"),
    ("Mushroom pie", "11.20"),
    ("Plum cake", "5.40"),
)

CARD = (
    "Our bread is baked at",
    "four in the morning with",
    "flour from the mill at",
    "Ashby. Ask for the crust:",
    "it is free.",
)


def menu() -> Picture:
    """A chalk board on a wooden wall, and a printed card beside it, 384×288."""
    c = Canvas(384, 288)
    _wood(c)
    c.box(10, 10, 220, 268, (92, 58, 34), 3)
    c.box(16, 16, 208, 256, (30, 36, 34))
    c.text((120, 54), "Menu", 40, (250, 250, 236), "ms", 0.9)
    c.line([(40, 65), (200, 65)], (236, 196, 110), 1.6)
    for i, (dish, price) in enumerate(BOARD):
        y = 92 + i * 33
        c.text((26, y), dish, 18, (240, 240, 230), bold=0.2)
        c.text((216, y), price, 18, (255, 214, 120), "rs", 0.2)
        c.text((26, y + 12), "with salad, potatoes or rice", 9.5, (150, 166, 158))
    c.text((120, 232), "SOUP + PIE", 26, (255, 150, 130), "ms", 0.9)
    c.text((120, 260), "only 15.00", 23, (160, 226, 240), "ms", 0.5)
    _printed_card(c)
    return c.pixels(SHARPNESS)


def _wood(c: Canvas) -> None:
    width, height = c.image.size
    grain = np.asarray(
        Image.fromarray(clouds(31, 48, width // OVER, 1, 0.9).astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    )[..., None]
    planks = (np.arange(height) // (36 * OVER) % 3)[:, None, None] * 9
    pixels = np.array((146, 104, 66)) + (grain - 0.5) * (64, 52, 40) - planks
    c.image.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    for y in range(36, 288, 36):
        c.line([(0, y), (384, y)], (70, 44, 28), 1.2)


def _printed_card(c: Canvas) -> None:
    c.polygon([(246, 44), (378, 44), (378, 262), (246, 262)], (40, 26, 16), soft=4)
    c.box(242, 36, 132, 220, (252, 248, 238))
    c.box(247, 41, 122, 210, (196, 160, 96))
    c.box(248, 42, 120, 208, (252, 248, 238))
    c.text((308, 64), "Mill House", 21, (120, 30, 34), "ms", 0.4)
    c.text((308, 78), "since 1874", 11, (110, 100, 92), "ms")
    _lines(c, (253, 100), CARD, 10.2, 14, (52, 48, 48))
    c.box(252, 172, 112, 42, (120, 30, 34), 3)
    c.text((308, 189), "Open daily", 16, (255, 244, 226), "ms", 0.4)
    c.text((308, 206), "11:30 to 22:00", 13, (250, 206, 180), "ms")
    c.text((308, 239), "Cash only", 19, (40, 70, 110), "ms", 0.3)
