"""Large even areas with few edges: one nearly white (250 to 255), one nearly black."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Point, oval, ridge, spline

Picture = NDArray[np.uint8]


def room() -> Picture:
    """A white wall, a black sofa and a lamp, 264×192."""
    c = Canvas(264, 192, (252, 252, 251))
    c.image.paste(c.ramp([(0, (255, 255, 254)), (1, (250, 249, 248))], 20))
    c.box(0, 164, 264, 28, (176, 140, 104))
    c.box(0, 159, 264, 5, (236, 235, 233))
    for x in range(-20, 300, 44):
        c.line([(x + 12, 164), (x - 8, 192)], (150, 116, 84), 0.8)
    _frames(c)
    _sofa(c)
    c.line([(226, 172), (226, 76)], (60, 56, 52), 2)
    c.ellipse((226, 174), 15, 3, (50, 46, 44))
    shade = c.ramp([(0, (246, 206, 120)), (1, (220, 158, 74))], 0, (0.76, 0.95))
    c.polygon([(213, 44), (239, 44), (251, 78), (201, 78)], shade)
    _plant(c, (22, 164))
    return c.pixels(0.6)


def _frames(c: Canvas) -> None:
    for left, top, width, height in ((70, 20, 42, 54), (122, 30, 56, 40)):
        c.polygon(
            [
                (left + 2, top + 3),
                (left + width + 3, top + 3),
                (left + width + 3, top + height + 4),
            ],
            (214, 212, 210),
            soft=2,
        )
        c.box(left, top, width, height, (30, 28, 28))
        c.box(left + 2.5, top + 2.5, width - 5, height - 5, (250, 248, 242))
    c.box(82, 30, 18, 34, (40, 96, 140))
    c.disc((91, 42), 6, (240, 180, 70))
    c.polygon([*spline([(82, 54), (90, 50), (100, 56)]), (100, 64), (82, 64)], (30, 60, 80))
    c.polygon([(132, 60), (146, 42), (156, 54), (164, 48), (170, 60)], (90, 110, 96))


def _sofa(c: Canvas) -> None:
    c.ellipse((126, 172), 84, 6, (120, 92, 66), soft=3)
    c.box(54, 98, 144, 52, (6, 6, 8), 9)
    c.box(44, 112, 20, 56, (3, 3, 4), 8)
    c.box(188, 112, 20, 56, (3, 3, 4), 8)
    c.box(62, 136, 128, 28, (10, 10, 12), 5)
    c.line([(126, 104), (126, 160)], (30, 30, 34), 1)
    c.line([(64, 136), (188, 136)], (34, 34, 38), 1.2)
    c.polygon([(72, 108), (100, 104), (104, 132), (76, 136)], (196, 62, 54))
    c.polygon([(158, 110), (184, 114), (180, 138), (154, 134)], (226, 222, 212))
    for x in (52, 196):
        c.line([(x, 166), (x, 173)], (70, 50, 36), 2.4)


def _plant(c: Canvas, foot: Point) -> None:
    x, y = foot
    for i, bend in enumerate((-18, -10, -3, 6, 14, 22)):
        top = y - 74 - 9 * (i % 3)
        leaf = [
            (x, y - 20),
            (x + bend * 0.3 - 3, y - 50),
            (x + bend, top),
            (x + bend * 0.5 + 4, y - 48),
        ]
        c.polygon(spline(leaf, closed=True), (48 + 8 * i, 110 + 6 * (i % 3), 60))
    c.polygon([(x - 11, y - 24), (x + 11, y - 24), (x + 8, y + 8), (x - 8, y + 8)], (190, 104, 70))


def snow() -> Picture:
    """A black barn on a field of snow under a pale sky, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(c.ramp([(0, (132, 176, 224)), (1, (214, 230, 244))], 90, (0, 0.5)))
    c.polygon([*ridge(72, 264, 82, 9), (264, 120), (0, 120)], (160, 178, 200), soft=0.5)
    white = c.ramp([(0, (250, 251, 254)), (1, (255, 255, 255))], 60)
    c.polygon(
        [*spline([(-10, 104), (60, 92), (150, 98), (280, 86)]), (280, 200), (-10, 200)], white
    )
    c.polygon(
        [*spline([(-10, 164), (90, 142), (200, 158), (280, 150)]), (280, 200), (-10, 200)],
        (252, 252, 253),
    )
    for x, y, height in ((14, 96, 44), (34, 94, 30), (246, 90, 52), (226, 92, 34)):
        _fir(c, (x, y), height)
    _barn(c)
    for x in range(6, 262, 22):
        y = 150 - 12 * np.sin(x / 60)
        c.line([(x, y), (x, y - 16)], (72, 58, 50), 2.2)
    for lift in (4, 10):
        c.line([(x, 150 - lift - 12 * np.sin(x / 60)) for x in range(0, 265, 8)], (92, 76, 66), 1)
    _skier(c, (60, 132))
    for i in range(7):
        c.ellipse((96 + 9 * i, 186 - 4 * i), 2.6, 1.2, (206, 216, 232))
    return c.pixels(0.6)


def _fir(c: Canvas, root: Point, height: float) -> None:
    x, y = root
    for i in range(4):
        top, wide = y - height + i * height * 0.2, height * (0.12 + 0.07 * i)
        c.polygon(
            [(x, top), (x + wide, top + height * 0.38), (x - wide, top + height * 0.38)],
            (34, 60 + 6 * i, 56),
        )
        c.polygon(
            [(x, top), (x - wide * 0.2, top + height * 0.2), (x - wide * 0.7, top + height * 0.28)],
            (240, 246, 252),
        )


def _barn(c: Canvas) -> None:
    c.polygon([(114, 62), (152, 40), (190, 62), (190, 126), (114, 126)], (7, 6, 7))
    c.polygon([(190, 62), (212, 66), (212, 122), (190, 126)], (2, 2, 3))
    c.polygon([(108, 64), (152, 36), (196, 64), (194, 68), (152, 43), (110, 68)], (246, 249, 255))
    c.polygon([(152, 36), (172, 40), (216, 66), (196, 64)], (226, 234, 246))
    c.box(140, 92, 24, 34, (112, 32, 28))
    c.line([(140, 92), (164, 126)], (228, 222, 214), 1.4)
    c.line([(164, 92), (140, 126)], (228, 222, 214), 1.4)
    c.box(146, 58, 12, 12, (240, 198, 110))
    c.line([(152, 58), (152, 70)], (7, 6, 7), 1.2)


def _skier(c: Canvas, at: Point) -> None:
    x, y = at
    c.line([(x - 16, y + 3), (x + 16, y + 1), (x + 19, y - 1)], (30, 30, 36), 1.2)
    c.line([(x - 2, y), (x + 3, y - 9), (x, y - 17)], (24, 40, 90), 3.6)
    c.line([(x, y - 16), (x + 4, y - 27)], (214, 44, 40), 5)
    c.line([(x + 3, y - 25), (x + 11, y - 18)], (214, 44, 40), 2.6)
    c.line([(x + 11, y - 19), (x + 7, y + 1)], (50, 50, 56), 0.9)
    c.disc((x + 6, y - 32), 3.6, (240, 200, 60))


def desk() -> Picture:
    """A dark monitor, books and a mug before a white wall, 384×288."""
    c = Canvas(384, 288)
    c.image.paste(c.ramp([(0, (250, 250, 251)), (0.5, (255, 255, 255)), (1, (251, 250, 249))], 15))
    c.box(0, 214, 384, 74, (222, 196, 160))
    c.box(0, 212, 384, 4, (244, 226, 196))
    c.box(0, 268, 384, 20, (150, 112, 78))
    _monitor(c)
    _books(c)
    c.ellipse((330, 244), 34, 5, (186, 156, 120), soft=3)
    mug = c.ramp([(0, (70, 150, 168)), (0.4, (40, 124, 146)), (1, (20, 70, 90))], 0, (0.79, 0.92))
    c.line([*oval((352, 222), 12, 13)], (30, 100, 120), 5)
    c.polygon([(306, 198), (352, 198), (349, 240), (340, 246), (318, 246), (309, 240)], mug)
    c.ellipse((329, 198), 23, 4.6, (18, 52, 66))
    c.ellipse((329, 199), 19, 3, (70, 40, 24))
    _wall_things(c)
    c.box(120, 250, 96, 12, (60, 62, 68), 3)
    for i in range(13):
        c.box(124 + 7 * i, 252, 5, 3, (206, 208, 212))
        c.box(124 + 7 * i, 257, 5, 3, (206, 208, 212))
    return c.pixels(0.6)


def _monitor(c: Canvas) -> None:
    c.ellipse((168, 230), 50, 6, (186, 156, 120), soft=3)
    c.polygon([(156, 188), (180, 188), (184, 228), (152, 228)], (150, 152, 158))
    c.ellipse((168, 229), 34, 5, (176, 178, 184))
    c.box(64, 60, 208, 132, (22, 22, 24), 5)
    c.box(69, 65, 198, 118, (4, 4, 5))
    sheen = c.ramp([(0, (22, 22, 26)), (1, (7, 7, 9))], 60, (0.2, 0.8))
    c.polygon([(200, 65), (267, 65), (267, 150)], sheen)
    c.text((80, 92), "12:47", 24, (206, 208, 214))
    c.text((80, 108), "Thursday", 11, (120, 124, 134))
    c.box(69, 172, 198, 11, (14, 16, 22))
    for i, colour in enumerate(((220, 80, 60), (70, 150, 230), (240, 190, 60))):
        c.box(76 + 14 * i, 174, 7, 7, colour, 2)
    c.disc((168, 187.5), 1.4, (110, 230, 120))


def _books(c: Canvas) -> None:
    shown = ((10, 80, (170, 52, 48)), (12, 92, (38, 70, 110)), (8, 72, (228, 190, 90)))
    left = 14.0
    for wide, high, colour in (*shown, (9, 86, (60, 110, 80))):
        c.box(left, 213 - high, wide, high, colour, 1)
        c.box(left, 213 - high + 10, wide, 2, (244, 232, 206))
        c.box(left, 213 - 16, wide, 1.4, (244, 232, 206))
        left += wide + 0.6


def _wall_things(c: Canvas) -> None:
    c.disc((328, 69), 34, (222, 221, 220), soft=3)
    c.disc((326, 66), 33, (40, 40, 44))
    c.disc((326, 66), 30, (252, 252, 252))
    for i in range(12):
        a = i * np.pi / 6
        inner = 23 if i % 3 else 21
        ends = [(326 + r * np.sin(a), 66 - r * np.cos(a)) for r in (inner, 27)]
        c.line(ends, (40, 40, 44), 1.2 if i % 3 else 2.4)
    c.line([(326, 66), (337, 57)], (30, 30, 34), 3)
    c.line([(326, 66), (309, 84)], (30, 30, 34), 2)
    c.disc((326, 66), 2.6, (200, 50, 44))
