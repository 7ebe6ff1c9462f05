"""Cartoon frames: a house and a robot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Point, oval, spline
from .ink import INK, SHARPNESS, inked, outline

Picture = NDArray[np.uint8]


def house() -> Picture:
    """A house and a tree on a hill, 264×192."""
    c = Canvas(264, 192, (150, 214, 240))
    c.polygon([(0, 0), (264, 0), (264, 30), (0, 70)], (122, 196, 234))
    inked(c, oval((222, 34), 18, 18), (255, 226, 110), (250, 196, 70), (-5, -4), 1.6)
    for x, y, size in ((46, 36, 1.0), (142, 24, 0.7), (200, 70, 0.55)):
        _cloud(c, x, y, size)
    far = spline([(-10, 130), (40, 104), (96, 122), (170, 96), (280, 128)])
    inked(c, [*far, (280, 200), (-10, 200)], (126, 190, 120), (104, 166, 110), (0, -9), 1.2)
    near = spline([(-10, 158), (60, 138), (140, 132), (210, 146), (280, 168)])
    inked(c, [*near, (280, 210), (-10, 210)], (160, 214, 96), (128, 188, 84), (4, -12), 2.0)
    _cottage(c)
    _tree(c, (48, 96))
    _fence(c)
    for x in range(4, 262, 13):
        y = 176 + 9 * np.sin(x * 1.7)
        c.curve([(x, y), (x + 2, y - 6), (x + 5, y - 8)], (74, 132, 60), 1.4, 0.8)
    return c.pixels(SHARPNESS)


def _cloud(c: Canvas, x: float, y: float, size: float) -> None:
    bumps = [(-30, 6), (-26, -4), (-14, -7), (-6, -16), (10, -14), (16, -5), (28, -3), (32, 7)]
    shape = spline([(x + a * size, y + b * size) for a, b in bumps], closed=True)
    inked(c, shape, (255, 255, 255), (206, 226, 244), (-2, -5 * size), 1.1)


def _cottage(c: Canvas) -> None:
    front = [(118, 88), (172, 88), (172, 146), (118, 146)]
    inked(c, [(172, 88), (206, 82), (206, 138), (172, 146)], (206, 168, 138), INK, (0, 0))
    inked(c, front, (250, 232, 204), (222, 190, 166), (-4, 7))
    inked(c, [(184, 46), (195, 46), (195, 66), (184, 64)], (196, 96, 80), (150, 66, 66), (-4, 0))
    inked(c, [(145, 54), (184, 50), (214, 84), (174, 91)], (188, 70, 62), INK, (0, 0), 1.8)
    inked(c, [(145, 54), (177, 92), (112, 92)], (240, 214, 180), (208, 172, 150), (0, 8), 1.8)
    for row in range(1, 5):
        share = row / 5
        left, right = 145 + 29 * share, 184 + 30 * share
        c.line([(left, 54 + 37 * share), (right, 50 + 34 * share)], (128, 42, 44), 0.8)
    inked(c, [(136, 112), (153, 112), (153, 146), (136, 146)], (128, 84, 60), (98, 60, 50), (-4, 0))
    c.disc((149.5, 130), 1.3, (250, 210, 90))
    for left, top in ((122, 100), (157, 100), (139, 70)):
        _window(c, left, top)
    c.polygon([(180, 104), (194, 101), (194, 117), (180, 121)], (150, 208, 236))
    outline(c, [(180, 104), (194, 101), (194, 117), (180, 121)], 1.2)


def _window(c: Canvas, left: float, top: float) -> None:
    shape = [(left, top), (left + 11, top), (left + 11, top + 13), (left, top + 13)]
    inked(c, shape, (176, 226, 246), (120, 180, 216), (4, 5), 1.2)
    c.line([(left + 5.5, top), (left + 5.5, top + 13)], INK, 0.7)
    c.line([(left, top + 6), (left + 11, top + 6)], INK, 0.7)


def _tree(c: Canvas, at: Point) -> None:
    x, y = at
    trunk = [(x - 6, y + 60), (x - 4, y + 20), (x + 5, y + 20), (x + 8, y + 60)]
    inked(c, trunk, (150, 102, 66), (110, 70, 56), (-4, 0))
    bumps = [(-30, 20), (-36, 4), (-24, -10), (-20, -28), (0, -36), (18, -28)]
    crown = [(x + a, y + b) for a, b in [*bumps, (28, -10), (38, 4), (30, 22), (0, 28)]]
    inked(c, spline(crown, closed=True), (94, 178, 86), (58, 136, 82), (-7, -9), 2.2)
    for a, b in ((-14, -10), (6, -18), (12, 2), (-8, 8)):
        c.curve(
            [(x + a - 5, y + b), (x + a, y + b + 3), (x + a + 5, y + b)], (44, 108, 70), 1.3, 0.8
        )


def _fence(c: Canvas) -> None:
    for x in range(216, 264, 12):
        top = 134 + (x - 216) * 0.16
        shape = [(x, top), (x + 3, top - 4), (x + 6, top), (x + 6, top + 26), (x, top + 24)]
        inked(c, shape, (255, 248, 236), (214, 202, 206), (-2, 0), 1.1)


def robot() -> Picture:
    """A robot that waters a flower, before a screen of printed dots, 264×192."""
    c = Canvas(264, 192, (255, 222, 128))
    for row in range(26):
        for column in range(36):
            radius = 2.3 * (1 - row / 26)
            c.disc((column * 8 + row % 2 * 4, row * 8), radius, (255, 196, 108))
    c.box(0, 150, 264, 42, (206, 128, 96))
    for x in range(-20, 290, 26):
        c.line([(x, 150), (x * 1.25 - 30, 192)], (164, 88, 76), 1)
    c.line([(0, 150), (264, 150)], INK, 2.4)
    _robot_body(c)
    _robot_head(c)
    _can_and_flower(c)
    _speech(c)
    return c.pixels(SHARPNESS)


def _rounded(left: float, top: float, width: float, height: float, r: float) -> list[Point]:
    """Points of a rectangle with round corners."""
    quarter = np.linspace(0, np.pi / 2, 7)
    corners = ((width - r, height - r), (r, height - r), (r, r), (width - r, r))
    return [
        (left + x + r * np.cos(a + i * np.pi / 2), top + y + r * np.sin(a + i * np.pi / 2))
        for i, (x, y) in enumerate(corners)
        for a in quarter
    ]


def _robot_body(c: Canvas) -> None:
    for x in (86, 116):
        inked(c, _rounded(x, 140, 14, 24, 3), (140, 156, 180), (94, 106, 138), (-4, 0))
        inked(c, _rounded(x - 6, 160, 26, 13, 6), (98, 112, 146), (62, 72, 108), (-3, -4), 2)
    c.curve([(76, 104), (54, 112), (52, 132)], INK, 10)
    c.curve([(76, 104), (54, 112), (52, 132)], (160, 176, 198), 6.4)
    inked(c, oval((52, 136), 8, 8), (226, 84, 78), (168, 48, 66), (-3, -3))
    inked(c, _rounded(70, 90, 76, 56, 10), (118, 188, 206), (74, 138, 174), (-8, -7), 2.4)
    inked(c, _rounded(82, 100, 36, 24, 3), (40, 58, 84), (28, 40, 64), (2, 3), 1.3)
    wave = [(84 + i, 112 + 8 * np.sin(i * 0.9) * np.exp(-((i - 16) ** 2) / 90)) for i in range(33)]
    c.line(wave, (120, 250, 160), 1.2)
    for i, colour in enumerate(((244, 92, 84), (255, 214, 90), (126, 222, 120))):
        inked(c, oval((130, 104 + i * 9.5), 3.4, 3.4), colour, colour, (0, 0), 1)
    for x, y in ((76, 96), (140, 96), (76, 140), (140, 140)):
        c.disc((x, y), 1.3, INK)
    for i in range(6):
        c.line([(84 + i * 7, 131), (88 + i * 7, 138)], (50, 104, 140), 1.2)


def _robot_head(c: Canvas) -> None:
    inked(c, _rounded(98, 82, 20, 10, 2), (140, 156, 180), (94, 106, 138), (-4, 0))
    c.line([(108, 30), (108, 16)], INK, 2.6)
    inked(c, oval((108, 13), 5, 5), (244, 92, 84), (180, 50, 66), (-2, -2), 1.3)
    inked(c, _rounded(74, 30, 68, 54, 16), (214, 226, 236), (150, 168, 196), (-7, -7), 2.6)
    for x in (66, 142):
        inked(c, _rounded(x, 48, 8, 18, 3), (226, 84, 78), (168, 48, 66), (-3, 0))
    for x in (92, 124):
        inked(c, oval((x, 52), 10, 10), (255, 255, 255), (190, 206, 226), (0, 3), 1.8)
        c.disc((x + 2, 54), 5.4, INK)
        c.disc((x + 0.4, 51.8), 1.8, (255, 255, 255))
    c.curve([(94, 70), (108, 77), (122, 70)], INK, 2.6, 0.7)
    c.curve([(82, 44), (86, 36), (98, 35)], (255, 255, 255), 2.6, 0.8)


def _can_and_flower(c: Canvas) -> None:
    c.curve([(146, 108), (166, 112), (176, 104)], INK, 10)
    c.curve([(146, 108), (166, 112), (176, 104)], (160, 176, 198), 6.4)
    inked(
        c, [(176, 92), (200, 96), (196, 120), (174, 116)], (96, 190, 110), (60, 140, 92), (-5, -4)
    )
    inked(c, [(198, 106), (218, 92), (221, 97), (197, 114)], (96, 190, 110), (60, 140, 92), (0, -3))
    for i in range(7):
        x = 219 + i % 3 * 4
        c.line([(x, 100 + i * 5), (x + 1.4, 104 + i * 5)], (70, 130, 220), 1.3)
    inked(
        c,
        [(208, 158), (240, 158), (235, 180), (213, 180)],
        (214, 110, 76),
        (160, 74, 64),
        (-6, 0),
        2,
    )
    c.curve([(224, 158), (222, 150), (226, 140)], (60, 130, 70), 2.6)
    for i in range(7):
        a = i * 2 * np.pi / 7
        petal = oval((226 + 7 * np.cos(a), 136 + 7 * np.sin(a)), 5, 3.6, np.degrees(a))
        inked(c, petal, (250, 130, 170), (214, 84, 140), (-1.5, -1.5), 1)
    inked(c, oval((226, 136), 4.4, 4.4), (255, 214, 90), (230, 164, 60), (-1, -1), 1)


def _speech(c: Canvas) -> None:
    tail = [(176, 50), (152, 58), (170, 40)]
    inked(c, spline(oval((208, 34), 44, 24)[::6], closed=True), (255, 255, 255), INK, (0, 0), 1.8)
    c.polygon(tail, (255, 255, 255))
    c.line([(168, 43), (152, 58), (180, 53)], INK, 1.6)
    c.text((208, 32), "Grow up,", 14, INK, "ms", 0.4)
    c.text((208, 47), "little one!", 14, INK, "ms", 0.4)
