"""Smooth gradients over the whole range, with a few objects and highlights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .canvas import Canvas, Colour, Point, mix, ridge, spline

Picture = NDArray[np.uint8]


def sunset() -> Picture:
    """The sun sets over the sea behind a boat and palms, 264×192."""
    c = Canvas(264, 192)
    sky = [(0, (255, 250, 214)), (0.16, (255, 196, 92)), (0.42, (232, 98, 84))]
    c.image.paste(c.rings((104, 116), 250, [*sky, (0.68, (112, 52, 118)), (1, (8, 10, 44))]))
    c.disc((104, 110), 17, (255, 255, 240), soft=0.8)
    sea = [(0, (250, 170, 110)), (0.5, (122, 58, 96)), (1, (6, 8, 28))]
    c.polygon([(0, 122), (264, 122), (264, 192), (0, 192)], c.ramp(sea, 90, (0.63, 1)))
    _glitter(c, 104)
    c.polygon([*ridge(81, 90, 116, 5), (106, 122), (0, 122)], (74, 34, 66))
    _boat(c, (168, 134))
    _palm(c, (232, 192), (222, 66))
    _palm(c, (250, 192), (252, 96))
    return c.pixels(0.6)


def _glitter(c: Canvas, x: float) -> None:
    """The sun on waves, wider and rarer towards the viewer."""
    rng = np.random.default_rng(18)
    for _ in range(130):
        y = 123 + 68 * rng.uniform() ** 1.3
        near = (y - 122) / 70
        at = x + rng.normal(0, 5 + 26 * near)
        colour = (255, 214 - int(70 * near), 150 - int(80 * near))
        c.ellipse((at, y), 2 + 7 * near, 0.4 + 0.9 * near, colour)


def _boat(c: Canvas, at: Point) -> None:
    x, y = at
    c.polygon([(x - 22, y), (x + 24, y), (x + 15, y + 8), (x - 15, y + 8)], (22, 8, 22))
    c.line([(x, y), (x, y - 50)], (22, 8, 22), 1.2)
    c.polygon([(x + 2, y - 48), (x + 2, y - 3), (x + 28, y - 3)], (66, 24, 44))
    c.polygon([(x - 2, y - 42), (x - 2, y - 3), (x - 20, y - 3)], (94, 36, 50))


def _palm(c: Canvas, root: Point, top: Point) -> None:
    ink = (10, 4, 14)
    bend = ((root[0] + top[0]) / 2 - 6, (root[1] + top[1]) / 2)
    c.curve([root, bend, top], ink, 4)
    for angle in (-2.9, -2.3, -1.6, -0.9, -0.2, 0.5, 2.6):
        dx, dy = 26 * np.cos(angle), 18 * np.sin(angle)
        middle = (top[0] + dx * 0.55, top[1] + dy * 0.8 - 3)
        end = (top[0] + dx, top[1] + dy + 9)
        c.curve([top, middle, end], ink, 4.6, 0.8)


def bokeh() -> Picture:
    """A glass before lights that are out of focus, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(
        c.ramp([(0, (10, 8, 34)), (0.5, (70, 26, 74)), (1, (190, 90, 60))], 65, (0.1, 1.3))
    )
    _lights(c)
    table = [(0, (110, 66, 48)), (1, (18, 10, 12))]
    c.polygon([(0, 156), (264, 156), (264, 192), (0, 192)], c.ramp(table, 90, (0.8, 1)), soft=3)
    _glass(c, (176, 30))
    c.line([(24, 160), (96, 172)], (40, 26, 22), 7)
    c.line([(24, 159), (96, 171)], (226, 190, 140), 2)
    c.disc((24, 160), 4.4, (240, 90, 60))
    return c.pixels(0.6)


def _lights(c: Canvas) -> None:
    rng = np.random.default_rng(23)
    colours: tuple[Colour, ...] = ((255, 196, 90), (255, 120, 80), (120, 170, 255))
    for _ in range(46):
        centre = (rng.uniform(0, 264), rng.uniform(0, 140))
        radius, power = rng.uniform(7, 22), rng.uniform(0.2, 0.75)
        light = Canvas(c.width, c.height)
        colour = colours[int(rng.integers(3))]
        light.disc(centre, radius, colour, soft=0.9)
        light.disc(centre, radius - 2, mix(colour, (0, 0, 0), 0.2), soft=1.5)
        c.add_light(np.asarray(light.image) * power)


def _glass(c: Canvas, at: Point) -> None:
    x, y = at
    bowl = [(x - 26, y), (x - 30, y + 36), (x - 18, y + 62), (x, y + 70)]
    bowl = spline([*bowl, (x + 18, y + 62), (x + 30, y + 36), (x + 26, y)])
    wine = [p for p in bowl if p[1] > y + 30]
    red = c.ramp([(0, (60, 0, 10)), (0.5, (170, 10, 30)), (1, (40, 0, 8))], 0, (0.56, 0.78))
    c.polygon(wine, red)
    c.ellipse((x, y + 31), 29.5, 5, (206, 50, 60))
    c.line(bowl, (220, 214, 224), 1)
    c.ellipse((x, y), 26, 3.6, (206, 196, 206))
    c.ellipse((x, y + 0.4), 24.6, 2.8, (80, 46, 70))
    c.line([(x, y + 70), (x, y + 128)], (190, 176, 186), 3.4)
    c.line([(x - 0.8, y + 72), (x - 0.8, y + 126)], (250, 246, 250), 1)
    c.ellipse((x, y + 130), 27, 5, (176, 150, 152))
    c.ellipse((x, y + 129), 25, 3.8, (70, 40, 44))
    c.curve([(x - 22, y + 8), (x - 25, y + 34), (x - 18, y + 54)], (255, 255, 255), 2.6, 0.9)
    c.curve([(x + 20, y + 12), (x + 23, y + 30), (x + 20, y + 44)], (236, 190, 200), 1.4, 0.9)


BALLS = (
    ((118, 150), 78, (40, 110, 230)),
    ((262, 176), 58, (240, 130, 30)),
    ((196, 228), 32, (235, 235, 230)),
    ((330, 222), 26, (26, 24, 30)),
    ((46, 230), 28, (60, 190, 90)),
)


def balls() -> Picture:
    """Five glossy balls in a studio, lit from the upper left, 384×288."""
    c = Canvas(384, 288)
    c.image.paste(
        c.rings((120, 60), 420, [(0, (255, 255, 255)), (0.4, (190, 200, 214)), (1, (34, 36, 58))])
    )
    floor = [(0, (120, 128, 146)), (1, (236, 232, 226))]
    c.polygon([(0, 176), (384, 176), (384, 288), (0, 288)], c.ramp(floor, 90, (0.6, 1)), soft=12)
    for (x, y), radius, _ in BALLS:
        c.ellipse(
            (x + radius * 0.5, y + radius * 0.93),
            radius * 1.15,
            radius * 0.2,
            (34, 34, 48),
            radius / 10,
        )
    for centre, radius, colour in BALLS:
        _ball(c, centre, radius, colour)
    return c.pixels(0.5)


def _ball(c: Canvas, centre: Point, radius: float, colour: Colour) -> None:
    """A ball with diffuse light, an edge that mirrors, and a window's highlight."""
    x, y = c.grid()
    nx, ny = (x - centre[0]) / radius, (y - centre[1]) / radius
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    toward = np.clip(-0.5 * nx - 0.6 * ny + 0.62 * nz, 0, 1)
    below = np.clip(ny, 0, 1) * 0.35
    shade = (0.07 + 0.93 * toward + below * (1 - toward))[..., None] * np.array(colour)
    edge = (1 - nz)[..., None] ** 3 * np.array((150, 160, 180))
    shine = 255 * np.clip(toward, 0, 1)[..., None] ** 40
    lit = np.clip(shade + edge + shine, 0, 255).astype(np.uint8)
    c.disc(centre, radius, Image.fromarray(lit))
    _reflected_window(c, centre, radius)


def _reflected_window(c: Canvas, centre: Point, radius: float) -> None:
    left, top = centre[0] - 0.5 * radius, centre[1] - 0.58 * radius
    edge = 0.13 * radius
    for column in range(2):
        for row in range(2):
            x, y = left + column * edge * 1.15, top + row * edge * 1.15 - column * edge * 0.2
            pane = [(x, y), (x + edge, y - edge * 0.16), (x + edge, y + edge * 0.84), (x, y + edge)]
            c.polygon(pane, (255, 255, 255), soft=0.3)
