"""Option values that are more than a word: read from what the user typed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..spec import Budget, ShapeRange


def numbers(pairs: Iterable[str]) -> dict[str, float]:
    """``NAME=VALUE`` pairs.

    Raises:
        ValueError: One is none.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not name or not math.isfinite(found[name]):
            raise ValueError(f"expected NAME=NUMBER, got '{pair}'")
    return found


def size(text: str) -> tuple[int, int]:
    """``HxW``.

    Raises:
        ValueError: It is none.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise ValueError(f"expected HEIGHTxWIDTH such as 180x320, got '{text}'")
    return int(parts[0]), int(parts[1])


def profiles(texts: Iterable[str]) -> tuple[ShapeRange, ...]:
    """``MIN,OPT,MAX`` or one size, each HxW or NxHxW, once for every profile.

    Raises:
        ValueError: One is none, or the sizes do not grow.
    """
    return tuple(_profile(text) for text in texts)


def _profile(text: str) -> ShapeRange:
    shapes = [_shape(part) for part in text.split(",")]
    if len(shapes) == 1:
        shapes *= 3
    if len(shapes) != 3:
        raise ValueError("expected one size or three, such as 16x16,180x320,1080x1920")
    low, mid, high = shapes
    return ShapeRange(low[1:], mid[1:], high[1:], (low[0], mid[0], high[0]))


def _shape(text: str) -> tuple[int, int, int]:
    """``HxW`` or ``NxHxW``."""
    batch, _, rest = text.lower().partition("x")
    if "x" not in rest:
        return 1, *size(text)
    if not batch.isdigit() or int(batch) < 1:
        raise ValueError(f"expected NxHEIGHTxWIDTH such as 4x180x320, got '{text}'")
    return int(batch), *size(rest)


def budget(text: str) -> Budget:
    """``MEAN`` or ``MEAN,PICTURE`` in dB.

    Raises:
        ValueError: It is neither, or a picture may lose less than all do on average.
    """
    parts = words(text)
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"expected one number or two such as 0.05,0.2, got '{text}'")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as exc:
        raise ValueError(f"expected a number of dB, got '{text}'") from exc
    return Budget(*numbers) if len(numbers) == 2 else Budget.of_mean(numbers[0])


# Compute capabilities of the consumer GPUs of each generation.
GENERATIONS = {"rtx20": "7.5", "rtx30": "8.6", "rtx40": "8.9", "rtx50": "12.0"}


def generations(text: str) -> tuple[str, ...]:
    """Compute capabilities of generations of GPUs, ``rtx30,rtx40``.

    Raises:
        ValueError: One is not known.
    """
    names = words(text.lower())
    if unknown := [name for name in names if name not in GENERATIONS]:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(GENERATIONS)}")
    return tuple(GENERATIONS[name] for name in names)


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def indices(text: str) -> tuple[int, ...]:
    """Different whole numbers from 0 on, between commas.

    Raises:
        ValueError: One is none, or comes twice.
    """
    parts = words(text)
    if not all(part.isdigit() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise ValueError(f"expected different indices such as 0,1, got '{text}'")
    return tuple(map(int, parts))
