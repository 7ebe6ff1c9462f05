"""Option values that are more than a word: read from what the user typed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..spec import ShapeRange


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


def shapes(text: str) -> ShapeRange:
    """``MIN,OPT,MAX``, each HxW.

    Raises:
        ValueError: It is none, or the sizes do not grow.
    """
    sizes = [size(part) for part in text.split(",")]
    if len(sizes) != 3:
        raise ValueError("expected three sizes, such as 16x16,180x320,1080x1920")
    return ShapeRange(*sizes)


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
