"""The calibration set on a page, read as the plain JSON that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..calib.listing import shortened
from .svg import histogram

LONGEST_CELL = 32
MOST_ROWS = 300
MOST_COLUMNS = 8
MOST_BARS = 256
HIDDEN = frozenset({"fingerprint"})  # tells people nothing


def calibration_section(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What ``calibration.html`` shows, whatever the JSON holds.

    Args:
        calibration: Single values are listed, lists counted and tabled, ``coverage`` shown as
            figures and histograms, ``warnings`` (here or in ``coverage``) as sentences.
    """
    flat = {key: v for key, v in calibration.items() if key not in ("coverage", "warnings")}
    covered = calibration.get("coverage")
    coverage = dict(covered) if isinstance(covered, Mapping) else {}
    warnings = [*_sentences(calibration), *_sentences(coverage)]
    coverage.pop("warnings", None)
    charts = {key: value for key, value in coverage.items() if _is_histogram(value)}
    return {
        "warnings": warnings,
        "entries": [(_words(key), _short(v)) for key, v in flat.items() if not _is_list(v)],
        "tables": [_table(key, value) for key, value in flat.items() if _is_list(value) and value],
        "covered": bool(coverage),
        "coverage": [(_words(k), _short(v)) for k, v in coverage.items() if k not in charts],
        "charts": [(_words(key), histogram(v, _words(key))) for key, v in charts.items()],
    }


def _sentences(holder: Mapping[str, Any]) -> list[str]:
    found = holder.get("warnings", ())
    return [str(sentence) for sentence in found] if _is_list(found) else [str(found)]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _words(key: str) -> str:
    """``luma_range`` becomes ``Luma range``."""
    if key == "sha256":
        return "SHA-256"
    text = str(key).replace("_", " ")
    return text[:1].upper() + text[1:]


def _short(value: Any) -> str:
    """One value for people; of a long list, how many it holds."""
    if _is_list(value):
        return ", ".join(map(_short, value)) if len(value) <= 4 else f"{len(value):,} values"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k).lower()} {_short(item)}" for k, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    return "–" if value is None else str(value)


def _table(key: str, value: Sequence[Any]) -> dict[str, Any]:
    """A list as a table: title, heads, those of words, rows of texts, number of rows left out."""
    shown = value[:MOST_ROWS]
    mappings = [item for item in shown if isinstance(item, Mapping)]
    if len(mappings) == len(shown):
        keys = dict.fromkeys(k for item in mappings for k in item if k not in HIDDEN)
        heads = list(keys)[:MOST_COLUMNS]
        rows = [[item.get(head, "") for head in heads] for item in mappings]
    else:
        heads, rows = [key], [[item] for item in shown]
    return {
        "title": f"{_words(key)}: {len(value):,}",
        "heads": [_words(head) for head in heads],
        "words": [
            _words(head)
            for i, head in enumerate(heads)
            if not any(isinstance(row[i], int | float) for row in rows)
        ],
        "rows": [[shortened(_short(cell), LONGEST_CELL) for cell in row] for row in rows],
        "rest": len(value) - len(rows),
    }


def _is_histogram(value: Any) -> bool:
    return (
        _is_list(value)
        and 1 < len(value) <= MOST_BARS
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    )
