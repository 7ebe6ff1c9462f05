"""What a benchmark writes down: parts that ran, parts that could not, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import SrDeployError, TargetUnavailable
from ..files import write_bytes

NOT_RUN, FAILED = "not_run", "failed"
_LONGEST = 500


class NotRun(Exception):
    """Something that a part needs is not on this machine."""


def attempt(part: Callable[[], Any]) -> Any:
    """What a part finds, or why it found nothing.

    Returns:
        The part's own figures; ``{"not_run": reason}`` where something is missing on this
        machine; ``{"failed": error}`` for any other error: time on a GPU is too dear to lose
        the other parts.
    """
    try:
        return part()
    except NotRun as exc:
        return {NOT_RUN: str(exc)}
    except TargetUnavailable as exc:
        return {NOT_RUN: exc.message}
    except SrDeployError as exc:
        return {FAILED: f"{type(exc).__name__}: {exc.message}"[:_LONGEST], "hint": exc.hint}
    except Exception as exc:
        return {FAILED: f"{type(exc).__name__}: {exc}"[:_LONGEST]}


def marked(found: Any, mark: str, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and reason of every part that failed, or was not run."""
    if isinstance(found, dict):
        if isinstance(found.get(mark), str):
            yield place, found[mark]
        for key, value in found.items():
            yield from marked(value, mark, f"{place}/{key}" if place else str(key))
    if isinstance(found, list):
        for index, value in enumerate(found):
            yield from marked(value, mark, f"{place}[{index}]")


def finite(found: Any) -> Any:
    """The same with null for what JSON has no number for: an error that is infinite."""
    if isinstance(found, dict):
        return {key: finite(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def write(path: Path, found: Any) -> None:
    """Write figures as JSON, whole or not at all.

    Raises:
        OutputError: The file could not be written.
    """
    write_bytes(path, json.dumps(finite(found), indent=1, allow_nan=False).encode())
