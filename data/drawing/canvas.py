"""A canvas that is drawn on at four times its size and then averaged down.

Coordinates and lengths are pixels of the finished picture, x to the right and y down; colours
are sRGB from 0 to 255. The average is that of the stored (gamma) values, as most programs that
draw take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import cos, pi, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]
Points = Sequence[Point]
Stops = Sequence[tuple[float, Colour]]
"""Places from 0 to 1, rising, and their colours."""
Paint = Colour | Image.Image
Plane = NDArray[np.float64]

OVER = 4
"""Drawn pixels in a row for one of the finished picture."""


class Canvas:
    """A picture of ``width`` × ``height`` pixels in the making."""

    def __init__(self, width: int, height: int, paint: Paint = (0, 0, 0)) -> None:
        self.width, self.height = width, height
        self._size = (width * OVER, height * OVER)
        self.image = Image.new("RGB", self._size)
        self.image.paste(paint, (0, 0, *self._size))
        self._draw = ImageDraw.Draw(self.image)

    def pixels(self, lens: float = 0) -> NDArray[np.uint8]:
        """The finished picture, H×W×3 uint8, as a lens of that blur (a radius) sees it.

        Without one a network of x4 gets no more than 20 dB on small text: int8 would not show.
        """
        if lens:
            self.blur(lens)
        return np.asarray(self.image.reduce(OVER))

    def polygon(self, points: Points, paint: Paint, soft: float = 0) -> None:
        """Fill a polygon; ``soft`` is the radius of the Gaussian that blurs its edge."""
        drawn = [(x * OVER, y * OVER) for x, y in points]
        if soft or isinstance(paint, Image.Image):
            mask = Image.new("L", self._size)
            ImageDraw.Draw(mask).polygon(drawn, 255)
            self.through(mask, paint, soft)
        else:
            self._draw.polygon(drawn, paint)

    def ellipse(self, centre: Point, rx: float, ry: float, paint: Paint, soft: float = 0) -> None:
        """Fill an ellipse of two radii."""
        self.polygon(oval(centre, rx, ry), paint, soft)

    def disc(self, centre: Point, radius: float, paint: Paint, soft: float = 0) -> None:
        """Fill a circle."""
        self.ellipse(centre, radius, radius, paint, soft)

    def box(
        self, left: float, top: float, width: float, height: float, paint: Paint, round_: float = 0
    ) -> None:
        """Fill a rectangle with corners of radius ``round_``."""
        edges = (left * OVER, top * OVER, (left + width) * OVER - 1, (top + height) * OVER - 1)
        if isinstance(paint, Image.Image):
            mask = Image.new("L", self._size)
            ImageDraw.Draw(mask).rounded_rectangle(edges, round_ * OVER, 255)
            self.through(mask, paint)
        else:
            self._draw.rounded_rectangle(edges, round_ * OVER, paint)

    def line(self, points: Points, paint: Colour, width: float = 1) -> None:
        """Draw straight lines with round ends and joints."""
        self.brush(points, [width] * len(points), paint)

    def curve(self, points: Points, paint: Colour, width: float = 1, taper: float = 0) -> None:
        """Draw a smooth line through the points; ``taper`` of its width is gone at its ends."""
        smooth = spline(points)
        middle = np.sin(np.linspace(0, pi, len(smooth)))
        self.brush(smooth, list(width * (1 - taper * (1 - middle))), paint)

    def brush(self, points: Points, widths: Sequence[float], paint: Colour) -> None:
        """Draw along the points with the width of each."""
        for (a, wide), (b, narrow) in pairwise(zip(points, widths, strict=True)):
            along = np.subtract(b, a)
            across = np.array((-along[1], along[0])) / max(float(np.hypot(*along)), 1e-6) / 2
            corners = (a + across * wide, b + across * narrow, b - across * narrow)
            self.polygon([tuple(c) for c in (*corners, a - across * wide)], paint)
            self._dot(a, wide, paint)
            self._dot(b, narrow, paint)

    def _dot(self, centre: Point, width: float, paint: Colour) -> None:
        x, y, r = centre[0] * OVER, centre[1] * OVER, width * OVER / 2
        self._draw.ellipse((x - r, y - r, x + r, y + r), paint)

    def text(
        self,
        place: Point,
        words: str,
        size: float,
        paint: Colour,
        anchor: str = "ls",
        bold: float = 0,
    ) -> float:
        """Write ``words`` in ASCII, and give their length; ``bold`` is added to the strokes."""
        font = ImageFont.load_default(size * OVER)
        at = (place[0] * OVER, place[1] * OVER)
        self._draw.text(at, words, paint, font, anchor, stroke_width=round(bold * OVER / 2))
        return self._draw.textlength(words, font) / OVER

    def through(self, mask: Image.Image, paint: Paint, soft: float = 0) -> None:
        """Paint through a mask of the drawn size."""
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft * OVER))
        self.image.paste(paint, (0, 0, *self._size), mask)

    def glow(self, centre: Point, radius: float, colour: Colour, power: float = 2) -> None:
        """Add light that falls from ``colour`` to nothing at ``radius``."""
        x, y = self.grid()
        far = np.hypot(x - centre[0], y - centre[1]) / radius
        self.add_light(np.clip(1 - far, 0, 1)[..., None] ** power * colour)

    def add_light(self, light: Plane) -> None:
        """Add H×W×3 light from 0 to 255 as a double exposure does, without clipping."""
        shown = Image.fromarray(np.clip(light + 0.5, 0, 255).astype(np.uint8))
        self.image.paste(ImageChops.screen(self.image, shown))

    def blur(self, radius: float) -> None:
        """Put all that is drawn so far out of focus."""
        self.image.paste(self.image.filter(ImageFilter.GaussianBlur(radius * OVER)))

    def grid(self) -> tuple[Plane, Plane]:
        """x as a row and y as a column of the drawn pixels, in pixels of the finished picture."""
        x, y = ((np.arange(n) + 0.5) / OVER for n in self._size)
        return x[None, :], y[:, None]

    def ramp(self, stops: Stops, angle: float = 90, extent: tuple[float, float] = (0, 1)) -> Paint:
        """Colours that change along a direction: 0° to the right, 90° down.

        Args:
            stops: What lies where.
            angle: In degrees.
            extent: Places of the first and the last stop, as shares of the picture.
        """
        x, y = self.grid()
        along = cos(radians(angle)) * x / self.width + sin(radians(angle)) * y / self.height
        return blend(stops, (along - extent[0]) / (extent[1] - extent[0]))

    def rings(self, centre: Point, radius: float, stops: Stops) -> Paint:
        """Colours that change from the centre outwards."""
        x, y = self.grid()
        return blend(stops, np.hypot(x - centre[0], y - centre[1]) / radius)


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """A share of another colour in a colour."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def blend(stops: Stops, places: Plane) -> Image.Image:
    """Colours at H×W places from 0 to 1."""
    at = [place for place, _ in stops]
    channels = [np.interp(places, at, [c[i] for _, c in stops]) for i in range(3)]
    return Image.fromarray((np.stack(channels, -1) + 0.5).astype(np.uint8))


def oval(centre: Point, rx: float, ry: float, turn: float = 0) -> list[Point]:
    """Points of an ellipse."""
    angles = np.linspace(0, 2 * pi, 72, endpoint=False)
    c, s = cos(radians(turn)), sin(radians(turn))
    x, y = rx * np.cos(angles), ry * np.sin(angles)
    return list(zip(centre[0] + x * c - y * s, centre[1] + x * s + y * c, strict=True))


def spline(points: Points, closed: bool = False) -> list[Point]:
    """A smooth line through points. Source: Catmull and Rom, 1974."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    t = np.linspace(0, 1, 10, endpoint=False)[:, None]
    pieces = [
        b
        + t * ((c - a) / 2 + t * (a - 2.5 * b + 2 * c - d / 2 + t * (1.5 * (b - c) + (d - a) / 2)))
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    ended = np.concatenate(pieces if closed else [*pieces, p[-1:]])
    return [(float(x), float(y)) for x, y in ended]


def ridge(seed: int, width: float, level: float, height: float) -> list[Point]:
    """The outline of hills from x = 0 to ``width``, by displacing midpoints."""
    rng = np.random.default_rng(seed)
    line = rng.uniform(-1, 1, 4)
    for octave in range(1, 6):
        finer = np.interp(np.arange(2 * len(line) - 1) / 2, np.arange(len(line)), line)
        line = finer + rng.normal(0, 0.5 * 0.5**octave, len(finer))
    x = np.linspace(0, width, len(line))
    return [(float(a), float(level - height * b)) for a, b in zip(x, line, strict=True)]


def clouds(seed: int, height: int, width: int, finest: int = 2, rough: float = 0.5) -> Plane:
    """Smooth noise, height×width from 0 to 1; its smallest spots are ``finest`` pixels."""
    rng = np.random.default_rng(seed)
    total, weight, cell = np.zeros((height, width)), 1.0, max(height, width) // 3
    while cell >= finest:
        shape = (height // cell + 2, width // cell + 2)
        coarse = Image.fromarray(rng.normal(size=shape).astype(np.float32))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        weight, cell = weight * rough, cell // 2
    low, high = np.percentile(total, (1, 99))
    scaled: Plane = np.clip((total - low) / (high - low), 0, 1)
    return scaled


def film_grain(pixels: NDArray[np.uint8], seed: int, strength: float) -> NDArray[np.uint8]:
    """Add grain as film has it to H×W×3 pixels.

    It is Gaussian, spreads over neighbours, is strongest in the middle tones, and mostly the
    same in the three channels. ``strength`` is its standard deviation there, in code values.
    """
    rng = np.random.default_rng(seed)
    grey, own = rng.normal(size=pixels.shape[:2]), rng.normal(size=pixels.shape)
    noise = _spread(0.85 * grey[..., None] + 0.5 * own)
    value = pixels / 255
    tone = 0.35 + 2.6 * value * (1 - value)
    return np.clip(pixels + strength * tone * noise + 0.5, 0, 255).astype(np.uint8)


def _spread(noise: Plane) -> Plane:
    """Mix each value with its eight neighbours, and keep the standard deviation."""
    for axis in (0, 1):
        noise = (0.35 * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) + noise) / np.hypot(
            1, 0.35 * 2**0.5
        )
    return noise
