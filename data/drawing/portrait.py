"""A frame in the manner of Japanese animation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, spline
from .ink import INK, SHARPNESS, inked

Picture = NDArray[np.uint8]
HAIR, HAIR_SHADE, HAIR_LINE = (86, 104, 176), (58, 66, 132), (40, 36, 84)
SKIN, SKIN_SHADE = (255, 228, 208), (240, 184, 172)


def girl() -> Picture:
    """A face in the manner of Japanese animation before an evening sky, 384×288."""
    c = Canvas(384, 288, (250, 190, 150))
    c.image.paste(c.ramp([(0, (92, 120, 206)), (0.5, (238, 160, 176)), (1, (255, 214, 150))]))
    for x, y, w in ((40, 70, 60), (330, 96, 74), (60, 160, 90), (344, 186, 60), (300, 30, 40)):
        c.ellipse((x, y), w, w * 0.13, (255, 224, 214))
        c.ellipse((x + w * 0.2, y + w * 0.08), w * 0.8, w * 0.08, (234, 172, 190))
    _hair_behind(c)
    _shoulders(c)
    _face(c)
    for side in (-1, 1):
        _eye(c, 192 + side * 34, side)
    _fringe(c)
    return c.pixels(SHARPNESS)


def _hair_behind(c: Canvas) -> None:
    left = [(192, 22), (120, 44), (94, 110), (98, 190), (76, 262), (120, 300)]
    right = [(262, 300), (312, 258), (288, 190), (292, 110), (266, 46)]
    inked(c, spline([*left, *right], closed=True), HAIR_SHADE, (44, 48, 106), (6, -10), 2.4)
    for x in (112, 120, 128, 256, 264, 272):
        bend = (x - 192) * 0.06
        c.curve([(x, 120), (x + bend, 190), (x + 3 * bend, 280)], (40, 42, 96), 1.6, 0.9)


def _shoulders(c: Canvas) -> None:
    c.polygon([(166, 200), (218, 200), (220, 262), (164, 262)], SKIN_SHADE)
    c.line([(166, 214), (162, 250)], INK, 1.8)
    c.line([(218, 214), (222, 250)], INK, 1.8)
    coat = [(60, 300), (80, 262), (160, 244), (192, 276), (224, 244), (304, 262), (324, 300)]
    inked(c, coat, (250, 250, 255), (186, 196, 226), (-8, 8), 2.4)
    for side in (-1, 1):
        flap = [(192, 278), (192 + side * 36, 240), (192 + side * 58, 254), (192 + side * 22, 296)]
        inked(c, flap, (56, 84, 150), (38, 56, 112), (3, -5), 2)
        stripe = [(192 + side * 54, 258), (192 + side * 24, 290)]
        c.line(stripe, (255, 255, 255), 1.4)
        bow = [(192, 280), (192 + side * 26, 268), (192 + side * 24, 294)]
        inked(c, bow, (232, 70, 84), (170, 36, 66), (0, -5), 2)


def _face(c: Canvas) -> None:
    cheek = [(130, 92), (130, 150), (142, 190), (168, 218), (192, 230)]
    mirrored = [(384 - x, y) for x, y in reversed(cheek[:-1])]
    inked(c, spline([*cheek, *mirrored, (192, 60)], closed=True), SKIN, SKIN_SHADE, (-6, -5), 2)
    for x in (150, 234):
        c.ellipse((x, 178), 13, 6, (252, 196, 184), soft=1.5)
        for i in range(3):
            c.line([(x - 6 + i * 5, 181), (x - 3 + i * 5, 175)], (232, 120, 118), 0.9)
    c.line([(193, 170), (190, 177), (193, 178)], (196, 122, 112), 1.2)
    mouth = spline([(178, 196), (192, 199), (206, 196), (202, 206), (192, 211), (182, 206)], True)
    inked(c, mouth, (196, 66, 76), (150, 40, 60), (0, 3), 1.3)
    c.ellipse((192, 209), 6, 2.4, (244, 140, 140))


def _eye(c: Canvas, x: float, side: int) -> None:
    """``side`` is -1 for the eye on the left, 1 for that on the right."""
    white = [
        (x - 19, 140),
        (x - 10, 124),
        (x + 10, 124),
        (x + 19, 140),
        (x + 10, 162),
        (x - 10, 162),
    ]
    c.polygon(spline(white, closed=True), (255, 255, 255))
    c.polygon([(x - 19, 136), (x, 122), (x + 19, 136), (x, 132)], (196, 204, 232))
    iris = c.ramp(
        [(0, (24, 60, 92)), (0.5, (34, 148, 160)), (1, (150, 236, 200))], 90, (0.43, 0.58)
    )
    c.ellipse((x, 143), 13, 19, INK)
    c.ellipse((x, 143), 11.6, 17.6, iris)
    c.ellipse((x, 142), 5.2, 9, (16, 26, 48))
    c.ellipse((x - 5, 133), 4.4, 5.6, (255, 255, 255))
    c.disc((x + 5.5, 152), 2.4, (232, 255, 250))
    lid = [(x - 22 * side, 139), (x - 12 * side, 125), (x + 6 * side, 121), (x + 23 * side, 138)]
    c.curve(lid, INK, 5.2, 0.7)
    for i in range(3):
        a, b = x + side * (16 + 3 * i), 128 + 4 * i
        c.curve([(a, b), (a + 4 * side, b - 2), (a + 8 * side, b - 5)], INK, 2.2, 0.9)
    c.curve([(x - 10, 163), (x, 165), (x + 11, 162)], (120, 70, 84), 1.4, 0.8)
    brow = [(x - 18 * side, 108), (x, 101), (x + 18 * side, 106)]
    c.curve(brow, HAIR_LINE, 2.6, 0.8)


def _fringe(c: Canvas) -> None:
    top = [(192, 20), (128, 40), (104, 100), (106, 168)]
    edge = [(122, 130), (132, 108), (138, 138), (160, 84), (170, 122), (192, 76)]
    other = [(208, 118), (226, 84), (246, 136), (254, 106), (264, 130), (279, 168)]
    shape = [*spline(top), *edge, *other, *spline([(281, 160), (280, 100), (256, 40), (192, 20)])]
    inked(c, shape, HAIR, HAIR_SHADE, (3, -9), 2.2)
    for a, b in (((186, 28), (150, 92)), ((196, 28), (214, 96)), ((170, 34), (124, 108))):
        middle = ((a[0] + b[0]) / 2 + (b[0] - a[0]) * 0.2, (a[1] + b[1]) / 2)
        c.curve([a, middle, b], HAIR_LINE, 1.8, 0.9)
    shine = [(128, 70), (160, 52), (192, 47), (226, 53), (256, 70)]
    c.curve(shine, (170, 196, 244), 7, 0.9)
    for x in (140, 164, 188, 212, 236):
        c.curve([(x, 42), (x - 2, 56), (x, 72)], HAIR, 3.4, 0.8)
    c.curve([(196, 22), (206, 6), (226, 4)], HAIR_LINE, 3.4, 0.9)
