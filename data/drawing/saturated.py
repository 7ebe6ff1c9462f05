"""Vivid colours side by side, with soft and hard edges, up to the ends of the range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Colour, Point, Points, mix, oval, ridge, spline

Picture = NDArray[np.uint8]
RED, YELLOW, GREEN = (255, 0, 0), (255, 255, 0), (0, 200, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CYAN, BLUE, MAGENTA = (0, 255, 255), (0, 0, 255), (255, 0, 255)


def tulips() -> Picture:
    """Tulips before a blue sky, 264×192."""
    c = Canvas(264, 192)
    c.image.paste(c.ramp([(0, (0, 70, 255)), (1, (90, 220, 255))], 90, (0, 0.6)))
    rows = ((104, RED), (112, YELLOW), (121, MAGENTA), (132, (255, 110, 0)), (146, RED))
    c.polygon([*ridge(5, 264, 96, 5), (264, 192), (0, 192)], (0, 120, 30))
    for y, colour in rows:
        c.box(0, y, 264, 90, (0, 96 + y // 3, 0))
        for x in range(-4, 268, (y - 88) // 3 + 2):
            c.ellipse((x, y + 1 + x % 3), (y - 88) / 6, (y - 88) / 5, colour)
    c.blur(1.6)
    flowers = ((40, 70, 1.15, RED), (104, 96, 1.0, YELLOW), (168, 60, 1.25, MAGENTA))
    for x, y, size, colour in (*flowers, (228, 92, 1.05, (255, 90, 0))):
        _tulip(c, (x, y), size, colour)
    return c.pixels(0.5)


def _tulip(c: Canvas, at: Point, size: float, colour: Colour) -> None:
    x, y = at
    dark = mix(colour, BLACK, 0.375)
    light = mix(colour, WHITE, 0.4)
    shades = c.ramp([(0, dark), (0.5, colour), (1, light)], 0, ((x - 26) / 264, (x + 26) / 264))
    c.curve([(x, y + 20), (x - 3, y + 70), (x + 2, 200)], (0, 150, 20), 5 * size)
    for side in (-1, 1):
        leaf = [(x, 196), (x + side * 10, 150), (x + side * 26 * size, y + 46)]
        back = [(x + side * 26, 160), (x + side * 6, 200)]
        c.polygon(spline([*leaf, *back], closed=True), (0, 190, 40) if side < 0 else (0, 140, 60))
    petals = ((0, 0.95, 0), (-15, 0.9, -12), (15, 0.9, 12), (0, 0.8, 0))
    for dx, wide, turn in petals:
        tip = oval((x + dx * size, y), 13 * size * wide, 27 * size, turn)
        c.polygon(tip, dark if dx == 0 and wide > 0.9 else shades)
        c.line([*tip[10:60:2]], dark, 0.7)
    c.ellipse((x - 6 * size, y - 6), 2.4 * size, 12 * size, light, soft=1.6)


def neon() -> Picture:
    """Signs of neon tubes on a wall at night, 264×192."""
    c = Canvas(264, 192, (8, 0, 26))
    for row in range(16):
        for column in range(-1, 11):
            left = column * 28 + row % 2 * 14
            c.box(left + 1, row * 12 + 1, 26, 10, (20 + row, 2, 44 + (column * 7 + row * 5) % 18))
    arrow = [(20, 30), (180, 30), (180, 14), (226, 50), (180, 86), (180, 70), (20, 70), (20, 30)]
    _tube(c, arrow, (255, 220, 0))
    _letters(c)
    _tube(c, oval((54, 136), 34, 34), CYAN)
    star = [
        (54 + r * np.sin(i * np.pi / 5), 136 - r * np.cos(i * np.pi / 5))
        for i, r in enumerate([26, 11] * 5 + [26])
    ]
    _tube(c, star, (255, 0, 60))
    _tube(c, spline([(110, 110), (130, 96), (152, 116), (130, 150), (108, 122)], True), MAGENTA)
    _tube(c, [(172, 100), (248, 100), (210, 140), (172, 100)], (0, 255, 60))
    _tube(c, [(210, 140), (210, 178)], (0, 255, 60))
    _tube(c, [(184, 178), (236, 178)], (0, 255, 60))
    _tube(c, spline([(106, 172), (120, 164), (134, 174), (148, 164), (162, 172)]), (30, 60, 255))
    c.box(0, 186, 264, 6, (0, 0, 0))
    return c.pixels(0.4)


def _tube(c: Canvas, points: Points, colour: Colour) -> None:
    """A tube with its light on the wall."""
    light = Canvas(c.width, c.height)
    light.line(points, colour, 7)
    light.blur(7)
    c.add_light(np.asarray(light.image) * 1.5)
    c.line(points, colour, 4)
    core = mix(colour, WHITE, 0.75)
    c.line(points, core, 1.6)


def _letters(c: Canvas) -> None:
    light = Canvas(c.width, c.height)
    light.text((100, 60), "OPEN", 34, RED, "ms", 3)
    light.blur(5)
    c.add_light(np.asarray(light.image) * 1.2)
    c.text((100, 62), "OPEN", 34, RED, "ms", 1.8)
    c.text((100, 62), "OPEN", 34, (255, 190, 170), "ms")


def balloons() -> Picture:
    """Striped balloons over a field of flowers, 384×288."""
    c = Canvas(384, 288)
    c.image.paste(
        c.ramp([(0, (0, 0, 190)), (0.6, (0, 150, 255)), (1, (0, 255, 255))], 90, (0, 0.8))
    )
    c.polygon([*ridge(21, 384, 216, 14), (384, 288), (0, 288)], (110, 0, 200))
    c.polygon([*ridge(22, 384, 232, 9), (384, 288), (0, 288)], (0, 130, 70))
    _field(c)
    _balloon(c, (118, 92), 74, (RED, YELLOW, RED, (255, 255, 255)))
    _balloon(c, (286, 70), 50, (BLUE, CYAN, MAGENTA, YELLOW))
    _balloon(c, (222, 166), 30, (GREEN, (255, 128, 0), GREEN, MAGENTA))
    _balloon(c, (348, 170), 20, (RED, (0, 0, 0), YELLOW, (0, 0, 0)))
    return c.pixels(0.4)


def _field(c: Canvas) -> None:
    rng = np.random.default_rng(3)
    c.polygon([(0, 238), (384, 246), (384, 288), (0, 288)], (0, 160, 0))
    colours = (RED, YELLOW, MAGENTA, (255, 255, 255), (255, 100, 0))
    for y in sorted(rng.uniform(240, 290, 260)):
        x, size = rng.uniform(0, 384), (y - 226) / 14
        c.line([(x, y), (x + 1, y + 3 * size)], (0, 90, 0), 0.4 * size)
        c.ellipse((x, y), size, size * 0.7, colours[int(rng.integers(5))])
        c.ellipse((x, y), size * 0.3, size * 0.25, (90, 40, 0))


def _balloon(c: Canvas, at: Point, radius: float, colours: tuple[Colour, ...]) -> None:
    """Gores are half ellipses about the axis, from the widest to the narrowest."""
    x, y = at
    for i, share in enumerate((1.0, 0.86, 0.64, 0.36)):
        dark = mix(colours[i], BLACK, 0.4)
        left, right = (x - radius) / c.width, (x + radius) / c.width
        lit = c.ramp([(0, colours[i]), (0.55, colours[i]), (1, dark)], 0, (left, right))
        c.polygon(_envelope(at, radius, share), lit)
    for i, share in enumerate((0.93, 0.75, 0.5)):
        c.line(_envelope(at, radius, share), mix(colours[i], BLACK, 0.5), 0.6)
    c.ellipse(
        (x - radius * 0.4, y - radius * 0.45), radius * 0.16, radius * 0.22, (255, 255, 255), 4
    )
    top, edge = y + radius * 1.22, radius * 0.16
    for side in (-1, 1):
        c.line([(x + side * edge, top), (x + side * edge * 0.8, top + edge * 2)], (60, 20, 0), 0.7)
    c.box(x - edge, top + edge * 2, 2 * edge, 1.6 * edge, (150, 70, 0), 1)
    c.box(x - edge, top + edge * 2, 2 * edge, 0.4 * edge, (255, 170, 0))


def _envelope(at: Point, radius: float, share: float) -> list[Point]:
    """The outline of a balloon, narrowed to a share of its width."""
    x, y = at
    angles = np.linspace(-np.pi, 0, 40)
    dome = [(x + radius * share * np.cos(a), y + radius * np.sin(a)) for a in angles]
    skirt = [(0.9, 0.4), (0.55, 0.85), (0.2, 1.2), (-0.2, 1.2), (-0.55, 0.85), (-0.9, 0.4)]
    return [*dome, *((x + radius * share * a, y + radius * b) for a, b in skirt)]


def chart() -> Picture:
    """A test chart: all corners of the colour cube in fields that meet, 264×192."""
    c = Canvas(264, 192)
    corners = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]
    order = (1, 6, 2, 4, 5, 3, 0, 7)
    for place, corner in enumerate(order):
        c.box(place % 4 * 66, place // 4 * 96, 66, 96, corners[corner])
    for place, corner in enumerate(reversed(order)):
        c.disc((33 + place % 4 * 66, 48 + place // 4 * 96), 18, corners[corner])
    return c.pixels(0.5)


def hues() -> Picture:
    """All hues at full saturation, from black over the hue to white, 264×192."""
    c = Canvas(264, 192)
    wheel = (RED, YELLOW, (0, 255, 0), CYAN, BLUE, MAGENTA, RED)
    for row in range(24):
        share = row / 11.5 - 1
        end = WHITE if share > 0 else BLACK
        stops = [(i / 6, mix(hue, end, abs(share) ** 2)) for i, hue in enumerate(wheel)]
        c.box(0, row * 8, 264, 8, c.ramp(stops, 0))
    return c.pixels(0.5)


def ball() -> Picture:
    """A beach ball on red sand before a blue sea, 264×192."""
    c = Canvas(264, 192, (0, 40, 255))
    c.box(0, 0, 264, 60, c.ramp([(0, (0, 0, 255)), (1, CYAN)], 90, (0, 0.31)))
    c.polygon([*ridge(8, 264, 140, 6), (264, 192), (0, 192)], (255, 30, 0))
    centre = (132.0, 104.0)
    for sector, colour in enumerate((RED, WHITE, BLUE, YELLOW, GREEN, MAGENTA)):
        turns = np.linspace(sector, sector + 1, 24) * np.pi / 3
        edge = [(centre[0] + 66 * np.cos(t), centre[1] + 66 * np.sin(t)) for t in turns]
        c.polygon([centre, *edge], colour)
    c.disc(centre, 10, WHITE)
    c.polygon([(200, 60), (252, 60), (226, 8)], YELLOW)
    c.box(222, 60, 8, 84, (255, 0, 120))
    return c.pixels(0.7)
