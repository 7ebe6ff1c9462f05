"""Scenes as grainy film shows them: the grain hides the bands of a sky, and is hard to compress."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .canvas import Canvas, Colour, Point, clouds, film_grain, oval, ridge, spline

Picture = NDArray[np.uint8]


def valley() -> Picture:
    """Hills at dusk with a tree and wires, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(
        c.ramp([(0, (74, 92, 132)), (0.6, (222, 166, 128)), (1, (250, 214, 150))], 90, (0, 0.7))
    )
    _clouded(c, 2, (246, 206, 176), 0.5)
    c.disc((84, 92), 13, (255, 240, 200), soft=1.2)
    c.glow((84, 92), 90, (150, 90, 40))
    shades = ((126, 118, 128), (96, 92, 108), (66, 68, 80), (38, 42, 44))
    for i, colour in enumerate(shades):
        c.polygon([*ridge(40 + i, 264, 104 + 20 * i, 13), (264, 192), (0, 192)], colour, soft=0.6)
    _bare_tree(c, (206, 168), 66)
    for i in range(3):
        x, height = 16 + 44 * i, 70 - 14 * i
        c.line([(x, 178), (x, 178 - height)], (26, 26, 30), 2.2 - 0.4 * i)
        c.line([(x - 8, 184 - height), (x + 8, 184 - height)], (26, 26, 30), 1.4)
    for lift in (0, 3):
        c.curve(
            [(16, 114 + lift), (38, 126 + lift), (60, 128 + lift), (82, 138), (104, 142)],
            (40, 38, 44),
            0.7,
        )
    return film_grain(c.pixels(0.6), 11, 7)


def _clouded(c: Canvas, seed: int, colour: Colour, share: float) -> None:
    """Mix clouds into the upper half, wider than high."""
    height, width = c.image.height, c.image.width
    cover = clouds(seed, height // 8, width // 20)
    mask = Canvas(c.width, c.height).image.convert("L")
    drawn = (255 * share * np.clip(cover * 1.6 - 0.6, 0, 1)).astype(np.uint8)
    mask.paste(_enlarged(drawn, (width, height // 2)), (0, 0))
    c.through(mask, colour, soft=2)


def _enlarged(mask: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(mask).resize(size, Image.Resampling.BICUBIC)


def _bare_tree(c: Canvas, root: Point, length: float) -> None:
    """A trunk that forks eight times."""
    rng = np.random.default_rng(17)

    def grow(at: Point, angle: float, long: float, wide: float) -> None:
        end = (at[0] + long * np.cos(angle), at[1] - long * np.sin(angle))
        c.brush([at, end], [wide, wide * 0.7], (24, 24, 26))
        if wide > 0.5:
            for side in (-1, 1):
                turn = angle + side * rng.uniform(0.2, 0.6)
                grow(end, turn, long * rng.uniform(0.66, 0.84), wide * 0.66)

    grow(root, np.pi / 2 + 0.06, length * 0.34, 6)


def lamp() -> Picture:
    """A street at night: a lamp, a house with lit windows, wet stones, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(c.ramp([(0, (16, 22, 40)), (1, (46, 52, 74))], 90, (0, 0.7)))
    c.polygon([(0, 28), (46, 12), (96, 40), (96, 140), (0, 140)], (30, 28, 36))
    for row in range(3):
        for column in range(3):
            lit = (row * 3 + column) % 4 == 1
            left, top = 10 + column * 28, 48 + row * 30
            c.box(left - 1, top - 1, 16, 20, (14, 14, 18))
            c.box(left, top, 14, 18, (240, 186, 96) if lit else (40, 44, 58))
            c.line([(left + 7, top), (left + 7, top + 18)], (20, 18, 20), 1)
            c.line([(left, top + 8), (left + 14, top + 8)], (20, 18, 20), 1)
    c.polygon([(200, 64), (264, 44), (264, 140), (200, 140)], (24, 24, 34))
    _stones(c)
    c.line([(168, 160), (168, 50)], (10, 10, 14), 3)
    c.curve([(168, 52), (166, 38), (152, 36)], (10, 10, 14), 2.4)
    c.glow((150, 42), 120, (236, 170, 84), 2.6)
    c.polygon([(143, 38), (157, 38), (162, 48), (138, 48)], (20, 18, 18))
    c.ellipse((150, 49), 10, 4, (255, 246, 214), soft=0.8)
    _walker(c, (222, 160))
    return film_grain(c.pixels(0.6), 12, 6)


def _stones(c: Canvas) -> None:
    """Cobbles that mirror the lamp, nearer ones larger."""
    c.polygon([(0, 140), (264, 140), (264, 192), (0, 192)], (26, 26, 34))
    rng = np.random.default_rng(6)
    y, high = 142.0, 2.4
    while y < 194:
        for x in np.arange(-8, 270, high * 2.6):
            near = np.exp(-(((x - 150) / (18 + y - 140)) ** 2)) * rng.uniform(0.5, 1)
            colour = np.array((38, 38, 48)) + near * np.array((190, 130, 60))
            c.ellipse(
                (x + rng.uniform(-2, 2), y),
                high * 1.15,
                high * 0.42,
                (*colour.astype(int).tolist(),),
            )
        y, high = y + high, high * 1.13


def _walker(c: Canvas, feet: Point) -> None:
    x, y = feet
    coat = [(-4, -34), (4, -34), (9, -8), (-8, -8)]
    c.polygon([(x + a, y + b) for a, b in coat], (14, 12, 16))
    c.line([(x - 3, y - 8), (x - 6, y)], (14, 12, 16), 3)
    c.line([(x + 3, y - 8), (x + 6, y)], (14, 12, 16), 3)
    c.disc((x, y - 38), 4, (14, 12, 16))
    dome = [p for p in oval((x - 2, y - 44), 17, 11) if p[1] <= y - 44]
    c.polygon(dome, (120, 34, 36))
    c.line([(x - 2, y - 54), (x - 2, y - 28)], (14, 12, 16), 1)


def lighthouse() -> Picture:
    """A lighthouse on a cliff above the sea under clouds, 384×288."""
    c = Canvas(384, 288)
    c.image.paste(c.ramp([(0, (112, 140, 164)), (1, (206, 208, 198))], 90, (0, 0.6)))
    _clouded(c, 9, (238, 236, 228), 0.85)
    c.polygon([(0, 168), (384, 168), (384, 288), (0, 288)], (66, 96, 108))
    _waves(c)
    c.polygon([*ridge(63, 150, 160, 7), (176, 168), (0, 168)], (110, 120, 124), soft=0.8)
    cliff = [(384, 130), (330, 138), (268, 134), (244, 152), (250, 182), (222, 214), (232, 250)]
    c.polygon([*cliff, (196, 288), (384, 288)], (104, 92, 76))
    _cliff_face(c)
    c.polygon(
        [*spline([(384, 126), (330, 134), (268, 130), (246, 148)]), (262, 150), (384, 152)],
        (92, 112, 66),
    )
    _tower(c)
    _sailing_boat(c, (92, 196))
    for x, y in ((60, 60), (84, 72), (132, 48), (150, 84)):
        c.curve(
            [(x - 7, y - 3), (x - 3, y - 4), (x, y), (x + 3, y - 4), (x + 7, y - 3)],
            (60, 64, 70),
            1.2,
            0.7,
        )
    return film_grain(c.pixels(0.6), 13, 6)


def _waves(c: Canvas) -> None:
    rng = np.random.default_rng(14)
    for _ in range(240):
        y = 168 + 120 * rng.uniform(0, 1) ** 1.6
        x, long = rng.uniform(0, 300), 2 + (y - 160) / 9
        crest = int(rng.integers(0, 3))
        colour = ((92, 124, 134), (52, 80, 94), (196, 208, 206))[crest]
        c.curve([(x, y), (x + long, y - long / 9), (x + 2 * long, y)], colour, (y - 150) / 50, 0.9)


def _cliff_face(c: Canvas) -> None:
    rng = np.random.default_rng(15)
    for _ in range(70):
        x, y = rng.uniform(256, 380), rng.uniform(154, 280)
        tone = int(rng.integers(-26, 30))
        colour = (104 + tone, 92 + tone, 78 + tone)
        tall = rng.uniform(4, 16)
        c.polygon(
            [(x, y), (x + rng.uniform(4, 12), y + 2), (x + 5, y + tall), (x - 3, y + tall * 0.7)],
            colour,
        )


def _tower(c: Canvas) -> None:
    shades = [(0, (250, 246, 236)), (0.5, (230, 224, 214)), (1, (150, 146, 146))]
    lit = c.ramp(shades, 0, (290 / 384, 326 / 384))
    c.polygon([(294, 60), (318, 60), (326, 132), (286, 132)], lit)
    reds = c.ramp([(0, (206, 60, 48)), (1, (120, 30, 34))], 0, (290 / 384, 326 / 384))
    for top, wide in ((76, 13.6), (108, 17.4)):
        c.polygon(
            [
                (306 - wide, top),
                (306 + wide, top),
                (307.7 + wide, top + 14),
                (304.3 - wide, top + 14),
            ],
            reds,
        )
    c.box(290, 56, 32, 4, (60, 60, 64))
    c.box(297, 40, 18, 16, (255, 236, 170))
    for x in (297, 303, 309, 315):
        c.line([(x, 40), (x, 56)], (50, 50, 54), 1)
    c.polygon([(294, 40), (318, 40), (306, 28)], (170, 46, 42))
    c.glow((306, 48), 40, (180, 160, 90))
    c.polygon([(330, 132), (330, 114), (346, 104), (362, 114), (362, 132)], (226, 220, 206))
    c.polygon([(327, 115), (346, 101), (365, 115)], (150, 70, 56))
    c.box(340, 118, 8, 14, (70, 60, 56))


def _sailing_boat(c: Canvas, at: Point) -> None:
    x, y = at
    c.polygon([(x - 18, y), (x + 20, y), (x + 12, y + 8), (x - 12, y + 8)], (120, 44, 40))
    c.line([(x, y), (x, y - 42)], (70, 54, 44), 1.4)
    c.polygon([(x + 2, y - 40), (x + 2, y - 3), (x + 24, y - 3)], (246, 240, 226))
    c.polygon([(x - 2, y - 36), (x - 2, y - 3), (x - 18, y - 3)], (214, 206, 196))
