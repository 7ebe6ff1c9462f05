"""Pictures of repetitive structures: drawn by formulas, or found among photographs.

The drawn ones are the same on every machine up to rounding. Each is a formula of the position, in
pixels, taken at 4×4 points of every pixel and averaged. Periods lie between 5 and 60 HR pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..validate.datasets import Picture
from ..validate.metrics import luma

Field = NDArray[np.float64]
Formula = Callable[[Field, Field], Field]
"""Takes x and y, H×W each; gives H×W×3 in [0, 1]."""

SAMPLES = 4
"""Points of a pixel in each direction."""

NEAREST, FARTHEST = 8, 0.25
"""Shifts at which repetition is looked for: pixels, and the share of the shorter edge."""


def draw(name: str, height: int = 400, width: int = 400) -> Picture:
    """One of :data:`FORMULAS` as H×W×3 uint8."""
    axes = [(np.arange(n * SAMPLES) + 0.5) / SAMPLES for n in (width, height)]
    x, y = np.meshgrid(*axes)
    light = 0.9 + 0.1 * np.cos(x / 310 + y / 170)  # no wall is lit evenly
    fine = FORMULAS[name](x, y) * light[..., None]
    pixels = fine.reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
    picture: Picture = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return picture


def repetition(picture: Picture) -> float:
    """The largest correlation of a picture's detail with itself shifted; 1 for a perfect period.

    The detail is luma less its mean over 9×9 pixels; shifts are those of :data:`NEAREST` and
    :data:`FARTHEST`.
    """
    plane = np.asarray(luma(picture), np.float64)
    sums = np.pad(plane, ((5, 4), (5, 4)), mode="reflect").cumsum(0).cumsum(1)
    means = (sums[9:, 9:] - sums[:-9, 9:] - sums[9:, :-9] + sums[:-9, :-9]) / 81
    detail = plane - means
    height, width = detail.shape
    size = (2 * height, 2 * width)
    shifted = np.fft.irfft2(np.abs(np.fft.rfft2(detail, size)) ** 2, size)
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(np.ones_like(detail), size)) ** 2, size)
    far = int(FARTHEST * min(height, width))
    rows, columns = np.arange(-far, far + 1)[:, None], np.arange(-far, far + 1)
    similar = shifted[rows, columns] / overlap[rows, columns]
    away = (np.abs(rows) >= NEAREST) | (np.abs(columns) >= NEAREST)
    return float(similar[away].max() / max(float(similar[far, far]), 1e-9))


def _mix(share: Field, over: Field | tuple[float, ...], under: Field | tuple[float, ...]) -> Field:
    """``over`` where the share is 1, ``under`` where it is 0; colours, or pictures."""
    mixed: Field = share[..., None] * np.array(over) + (1 - share[..., None]) * np.array(under)
    return mixed


def _chance(i: Field, j: Field) -> Field:
    """A number in [0, 1) for each cell that looks like chance."""
    mixed: Field = np.mod(np.sin(i * 12.9898 + j * 78.233) * 43758.5453, 1.0)
    return mixed


def _inside(position: Field, low: float, high: float) -> Field:
    """1 where the part of the position after the comma is between two bounds."""
    part = np.mod(position, 1.0)
    return ((part >= low) & (part < high)).astype(float)


def _turned(x: Field, y: Field, degrees: float) -> tuple[Field, Field]:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return c * x + s * y, c * y - s * x


def _receding(x: Field, y: Field) -> tuple[Field, Field]:
    """A wall that goes away to the right, where it is 2.5 times as small as at the left."""
    depth = 0.7 / (1 - 0.0015 * x)
    return x * depth, (y - 190) * depth


def _floor(x: Field, y: Field) -> tuple[Field, Field]:
    """A floor that goes away to the top."""
    depth = 400 / (y + 160)
    return (x - 180) * depth, 340 * depth


def _bricks(x: Field, y: Field) -> Field:
    row = np.floor(y / 17)
    column = x / 42 + 0.5 * np.mod(row, 2)
    brick = _inside(y / 17, 0.1, 1) * _inside(column, 0.05, 1)
    tone = 0.75 + 0.35 * _chance(np.floor(column), row)
    return (
        _mix(brick, (0.62, 0.30, 0.22), (0.72, 0.70, 0.66)) * (brick * tone + 1 - brick)[..., None]
    )


def _windows(x: Field, y: Field) -> Field:
    u, v = x / 36, y / 48
    frame = _inside(u, 0.2, 0.8) * _inside(v, 0.15, 0.85)
    pane = _inside(u, 0.25, 0.75) * _inside(v, 0.2, 0.8)
    bars = np.maximum(_inside(u, 0.48, 0.52), _inside(v, 0.40, 0.44))
    lit = _chance(np.floor(u), np.floor(v))[..., None] > 0.8
    glass = np.where(lit, [0.85, 0.8, 0.55], [0.16, 0.22, 0.30])
    wall = _mix(frame, (0.92, 0.92, 0.9), (0.66, 0.60, 0.50))
    return _mix(pane * (1 - bars), glass, wall)


def _grid(x: Field, y: Field) -> Field:
    u, v = _turned(x, y, 12)
    lines = np.maximum(_inside(u / 14, 0, 0.16), _inside(v / 14, 0, 0.16))
    return _mix(lines, (0.12, 0.12, 0.16), (0.82, 0.86, 0.88))


def _stripes(x: Field, y: Field) -> Field:
    phase = 400 / 18 * ((1 + x / 160) ** 1.2 + 0.02 * np.sin(y / 37))
    return _mix(_inside(phase / 3, 0, 0.5), (0.15, 0.2, 0.45), (0.93, 0.9, 0.82))


def _tiles(x: Field, y: Field) -> Field:
    u, v = x / 40, y / 40
    checker = np.mod(np.floor(u) + np.floor(v), 2)
    joints = np.maximum(_inside(u, 0, 0.05), _inside(v, 0, 0.05))
    return _mix(joints, (0.5, 0.5, 0.5), _mix(checker, (0.85, 0.83, 0.8), (0.28, 0.24, 0.22)))


def _glyphs(x: Field, y: Field) -> Field:
    """Rows of twelve signs of 5×7 squares, as text is made of."""
    column, row = np.floor(x / 15), np.floor(y / 22)
    i, j = np.floor(np.mod(x, 15) / 2.2), np.floor(np.mod(y, 22) / 2.2)
    sign = np.floor(12 * _chance(column, row))
    ink = (_chance(sign * 7 + i, j * 3 + 11) > 0.5) & (i < 5) & (j < 7)
    return _mix(ink.astype(float), (0.08, 0.08, 0.1), (0.95, 0.94, 0.9))


def _weave(x: Field, y: Field) -> Field:
    u, v = x / 12, y / 12
    over = np.mod(np.floor(u) + np.floor(v), 2)
    across = np.abs(np.sin(np.pi * np.where(over > 0, v, u)))
    thread = _mix(over, (0.75, 0.62, 0.42), (0.55, 0.42, 0.28))
    return thread * (0.35 + 0.65 * across)[..., None]


def _twill(x: Field, y: Field) -> Field:
    u, v = np.floor(x / 5), np.floor(y / 5)
    over = (np.mod(u + v, 4) < 2).astype(float)
    return _mix(over, (0.30, 0.36, 0.55), (0.70, 0.74, 0.82))


def _scales(x: Field, y: Field) -> Field:
    """Roof tiles: arcs, every other row half a tile aside."""
    row = np.floor(y / 16)
    u = np.mod(x / 24 + 0.5 * np.mod(row, 2), 1.0) - 0.5
    edge = np.mod(y / 16, 1.0) - (0.25 + 0.7 * np.sqrt(np.clip(1 - 4 * u**2, 0, 1)))
    shade = 0.55 + 0.45 * np.clip(-edge, 0, 1)
    return (
        _mix((np.abs(edge) < 0.1).astype(float), (0.2, 0.1, 0.08), (0.66, 0.34, 0.24))
        * shade[..., None]
    )


def _dots(x: Field, y: Field) -> Field:
    u, v = (np.mod(t / 11, 1.0) - 0.5 for t in _turned(x, y, 30))
    return _mix((u**2 + v**2 < 0.09).astype(float), (0.75, 0.15, 0.2), (0.96, 0.95, 0.92))


def _fence(x: Field, y: Field) -> Field:
    u, v = _turned(x, y, 45)
    wires = np.maximum(_inside(u / 20, 0, 0.12), _inside(v / 20, 0, 0.12))
    field = _mix(np.clip(y / 400, 0, 1), (0.35, 0.5, 0.25), (0.6, 0.75, 0.85))
    return _mix(wires, (0.75, 0.77, 0.78), field)


def _blinds(x: Field, y: Field) -> Field:
    _, v = _turned(x, y, 4)
    slat = np.mod(v / 9, 1.0)
    colour = _mix(np.zeros_like(v), (0.0, 0.0, 0.0), (0.88, 0.85, 0.78))
    return colour * np.where(slat < 0.15, 0.25, 0.6 + 0.4 * slat)[..., None]


def _hexagons(x: Field, y: Field) -> Field:
    """Cells of the nearest of two shifted lattices, dark where both are as near."""
    width, height = 26.0, 26.0 * np.sqrt(3)
    near = []
    for shift in (0.0, 0.5):
        u = (np.mod(x / width + shift, 1.0) - 0.5) * width
        v = (np.mod(y / height + shift, 1.0) - 0.5) * height
        near.append(np.maximum(np.abs(u), np.abs(u) / 2 + np.abs(v) * np.sqrt(3) / 2))
    joint = (np.minimum(*near) > 0.45 * width).astype(float)
    return _mix(joint, (0.3, 0.3, 0.32), (0.86, 0.8, 0.68))


FORMULAS: dict[str, Formula] = {
    "bricks": _bricks,
    "bricks receding": lambda x, y: _bricks(*_receding(x, y)),
    "windows": _windows,
    "windows receding": lambda x, y: _windows(*_receding(x, y)),
    "windows small": lambda x, y: _windows(x * 2.2, y * 2.2),
    "grid": _grid,
    "stripes": _stripes,
    "tiles turned": lambda x, y: _tiles(*_turned(x, y, 20)),
    "tiles receding": lambda x, y: _tiles(*_floor(x, y)),
    "glyphs": _glyphs,
    "weave": _weave,
    "twill": _twill,
    "scales": _scales,
    "dots": _dots,
    "fence": _fence,
    "hexagons": _hexagons,
    "blinds": _blinds,
}
"""The drawn structures by name."""
