"""Pages: one HTML file each that needs nothing else, for screen, phone and paper.

The HTML is in ``templates/``; every value that is put into it is escaped.
"""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **shown: Any) -> str:
    """A whole page.

    Args:
        template: Name of a file in ``templates/``.
        shown: What it shows, by the names that it uses; drawings are :class:`.svg.Drawing`.

    Raises:
        jinja2.UndefinedError: The template uses a name that is not among them.
    """
    return _environment().get_template(template).render(shown)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"signed": signed, "percent": percent, "counted": counted, "pieces": pieces}
    return made


def signed(value: float, unknown: str = "–") -> str:
    """Three decimals, a true minus sign, no sign before zero; ``unknown`` for NaN and infinity."""
    if not math.isfinite(value):
        return unknown
    text = f"{value:+z.3f}".replace("-", "−")
    return text[1:] if text[1:] == "0.000" else text


def percent(share: float, decimals: int = 1) -> str:
    """``0.861`` as ``86.1%``."""
    return f"{share:.{decimals}%}"


def counted(count: int, thing: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{count} {thing}{'s' * (count != 1)}"


def pieces(name: str) -> list[str]:
    """A long dotted name, cut where a line may break."""
    return re.split(r"(?<=[./])", name)
