"""Pieces of the bundled photographs at another exposure, for classes that a split lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import SPLITS, pictures

Picture = NDArray[np.uint8]
WIDTH, HEIGHT = 252, 192


def bright_astronaut() -> Picture:
    """Face and background of ``astronaut``, two thirds of a stop over, 252×192."""
    return _piece("astronaut", 120, 4, 0.67)


def bright_coffee() -> Picture:
    """The cup of ``coffee``, one and a half stops over, 252×192."""
    return _piece("coffee", 150, 8, 1.5)


def smooth_flower() -> Picture:
    """The leaves behind ``flower`` and its edge, one and a third stops over, 252×192."""
    return _piece("flower", 0, 120, 1.33)


def bright_chelsea() -> Picture:
    """Eyes and nose of ``chelsea``, one and a third stops over, 252×192."""
    return _piece("chelsea", 130, 70, 1.33)


def smooth_rocket() -> Picture:
    """The sky beside the tip of ``rocket``, two stops over, 252×192."""
    return _piece("rocket", 190, 60, 2)


def _piece(name: str, left: int, top: int, stops: float) -> Picture:
    """A piece of a photograph, its light multiplied by 2 to the power of ``stops``."""
    found = {p.name: p for split in SPLITS for p in pictures(split)}
    cut = found[name].read()[top : top + HEIGHT, left : left + WIDTH]
    light = _to_light(cut / 255) * 2.0**stops
    return (_to_code(_shoulder(light)) * 255 + 0.5).astype(np.uint8)


def _shoulder(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bend light beyond 0.7 towards 1, so that little of it clips."""
    beyond = np.maximum(light - 0.7, 0)
    return np.where(light < 0.7, light, np.minimum(0.7 + 0.3 * np.tanh(beyond / 0.5), 1))


def _to_light(code: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decode sRGB, 0 to 1. Source: IEC 61966-2-1."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def _to_code(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Encode sRGB, 0 to 1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
