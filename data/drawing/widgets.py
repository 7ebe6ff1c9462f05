"""Parts of a screen: windows, buttons. They lie on whole pixels, as a desktop draws them."""

from __future__ import annotations

from .canvas import Canvas, Colour, Point

GREY, LINE, DIM = (246, 247, 249), (206, 210, 218), (110, 116, 128)
INK, BLUE, PALE = (34, 38, 46), (38, 112, 232), (224, 236, 255)
SHARPNESS = 0.45  # blur of a video of a screen


def window(c: Canvas, place: tuple[int, int, int, int], title: str, bar: Colour) -> None:
    """A window with a title bar of 14 pixels."""
    left, top, width, height = place
    c.polygon(
        [
            (left, top + 4),
            (left + width, top + 4),
            (left + width, top + height + 5),
            (left, top + height + 5),
        ],
        (16, 16, 40),
        soft=4,
    )
    c.box(left - 1, top - 1, width + 2, height + 2, (150, 154, 164), 4)
    c.box(left, top, width, height, (255, 255, 255), 3)
    c.box(left, top, width, 14, bar, 3)
    c.box(left, top + 14, width, 1, LINE)
    c.text((left + width // 2, top + 10), title, 8, INK, "ms")
    for i, colour in enumerate(((240, 96, 88), (250, 190, 64), (96, 200, 90))):
        c.disc((left + 9 + i * 10, top + 7), 3, colour)


def button(c: Canvas, place: tuple[int, int, int, int], words: str, main: bool) -> None:
    """A button with its words in the middle; ``main`` is the one that Enter presses."""
    left, top, width, height = place
    c.box(left, top, width, height, BLUE if main else LINE, 3)
    if not main:
        c.box(left + 1, top + 1, width - 2, height - 2, (255, 255, 255), 2)
    colour = (255, 255, 255) if main else INK
    c.text((left + width / 2, top + height / 2 + 0.5), words, 7.5, colour, "mm")


def cross(c: Canvas, centre: Point, colour: Colour) -> None:
    """The sign that closes a tab."""
    x, y = centre
    c.line([(x - 2, y - 2), (x + 2, y + 2)], colour, 0.8)
    c.line([(x - 2, y + 2), (x + 2, y - 2)], colour, 0.8)
