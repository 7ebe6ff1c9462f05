"""What the search for an int8 graph found, as JSON and as lines for a terminal."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .outcome import Int8Report, Layer

LONGEST_NAME = 30
"""Of a layer, in letters: with what follows it, its line fits a terminal of 80 columns."""
HEADS = ("layer", "before", "after", "in", "repairs")


def to_json(int8: Int8Report) -> dict[str, Any]:
    """Plain JSON; the keys are the names of the fields, null stands for NaN and infinity."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(int8))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        # Adding 0.0 turns -0.0 into 0.0.
        return round(value, 6) + 0.0 if math.isfinite(value) else None
    return str(value) if isinstance(value, str) else value


def layer_table(int8: Int8Report, most: int = 12) -> list[str]:
    """What each layer alone loses in int8, dB, before and after its repairs; worst first.

    Args:
        int8: The search.
        most: How many layers; a last line tells of the others.

    Returns:
        Aligned lines, the heads first; none where there is no layer.
    """
    if not int8.layers:
        return []
    shown, rest = int8.layers[:most], int8.layers[most:]
    rows = [HEADS, *(_cells(layer) for layer in shown)]
    name, before, after, kind, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        f"{r[0]:<{name}}  {r[1]:>{before}}  {r[2]:>{after}}  {r[3]:<{kind}}  {r[4]}" for r in rows
    ]
    return [*lines, *([f"and {len(rest)} more{_bound(rest)}"] if rest else [])]


def _cells(layer: Layer) -> tuple[str, str, str, str, str]:
    return (
        shortened(layer.node, LONGEST_NAME),
        _signed(layer.plain_drift),
        _signed(layer.drift),
        layer.precision.value,
        ", ".join(layer.repairs) or "–",
    )


def _bound(layers: tuple[Layer, ...]) -> str:
    """The next thousandth of a dB above what any of them loses."""
    losses = [-layer.drift for layer in layers if math.isfinite(layer.drift)]
    if len(losses) < len(layers):
        return ""
    return f" under {(math.floor(max(*losses, 0.0) * 1e3 + 1e-6) + 1) / 1e3:.3f} dB each"


def shortened(name: str, most: int) -> str:
    """A name of at most ``most`` letters; an ellipsis stands for its middle."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def _signed(value: float) -> str:
    """As other lines on a terminal show a drift."""
    return f"{value:+z.3f}" if math.isfinite(value) else "–"
