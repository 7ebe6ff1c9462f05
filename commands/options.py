"""Option values that click does not parse by itself."""

from __future__ import annotations

import math

import click

from ..spec import ShapeRange


def numbers(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float]:
    """Read ``NAME=VALUE`` pairs."""
    found: dict[str, float] = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not name or not math.isfinite(found[name]):
            raise click.BadParameter(f"expected NAME=NUMBER, got '{value}'", context, parameter)
    return found


def size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse HxW."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise click.BadParameter(f"expected HEIGHTxWIDTH such as 180x320, got '{value}'")
    return int(parts[0]), int(parts[1])


def shapes(ctx: click.Context, param: click.Parameter, value: str | None) -> ShapeRange:
    """Parse MIN,OPT,MAX, each HxW."""
    if value is None:
        return ShapeRange()
    sizes = [size(ctx, param, part) for part in value.split(",")]
    if len(sizes) != 3:
        raise click.BadParameter("expected three sizes, such as 16x16,180x320,1080x1920")
    try:
        return ShapeRange(*(edges for edges in sizes if edges))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def comma_list(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Parse words between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()
