"""Shapes of a cartoon: an outline of varying width round an even area with a hard shadow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .canvas import OVER, Canvas, Colour, Point, Points

INK = (32, 26, 40)
SHARPNESS = 0.6  # blur of a frame of a film


def inked(
    c: Canvas, shape: Points, light: Colour, dark: Colour, shift: Point, width: float = 1.6
) -> None:
    """A filled shape, its part beyond a shifted copy of itself in the shadow's colour, and ink."""
    masks = []
    for dx, dy in ((0.0, 0.0), shift):
        mask = Image.new("L", c.image.size)
        drawn = [((x + dx) * OVER, (y + dy) * OVER) for x, y in shape]
        ImageDraw.Draw(mask).polygon(drawn, 255)
        masks.append(mask)
    c.through(masks[0], dark)
    c.through(ImageChops.multiply(*masks), light)
    outline(c, shape, width)


def outline(c: Canvas, shape: Points, width: float) -> None:
    """Ink that is heavier where the edge faces down."""
    closed = [*shape, shape[0]]
    before, after = np.roll(closed, 1, 0), np.roll(closed, -1, 0)
    slope = np.arctan2(after[:, 1] - before[:, 1], after[:, 0] - before[:, 0])
    c.brush(closed, list(width * (1 + 0.45 * np.sin(2 * slope + 0.6))), INK)
