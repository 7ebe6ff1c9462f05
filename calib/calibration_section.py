"""The calibration set on a page, read as the plain JSON that it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..validate.page import aside, figure, listed, row, table, terms, words
from .charts import histogram
from .listing import shortened

LONGEST_CELL = 32
MOST_ROWS = 300
MOST_COLUMNS = 8
MOST_BARS = 256
HIDDEN = frozenset({"fingerprint"})  # tells people nothing


def calibration_section(calibration: Mapping[str, Any]) -> str:
    """Show whatever the JSON holds.

    Args:
        calibration: Single values are listed, lists counted and tabled, ``coverage`` shown as
            figures and histograms, ``warnings`` (here or in ``coverage``) as sentences.
    """
    flat = {key: v for key, v in calibration.items() if key not in ("coverage", "warnings")}
    covered = calibration.get("coverage")
    coverage = covered if isinstance(covered, Mapping) else {}
    warnings = [*_sentences(calibration), *_sentences(coverage)]
    return (
        f"<h2>Calibration set</h2>{listed('Warnings', warnings)}"
        f"{terms((_words(key), _short(v)) for key, v in flat.items() if not _is_list(v))}"
        f"{''.join(_members(key, value) for key, value in flat.items())}{_coverage(coverage)}"
    )


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


def _members(key: str, value: Any) -> str:
    """A folded table of a list; nothing for anything else, or for an empty one."""
    if not _is_list(value) or not value:
        return ""
    mappings = [item for item in value[:MOST_ROWS] if isinstance(item, Mapping)]
    if len(mappings) == min(len(value), MOST_ROWS):
        keys = dict.fromkeys(k for item in mappings for k in item if k not in HIDDEN)
        heads = list(keys)[:MOST_COLUMNS]
        rows = [[item.get(head, "") for head in heads] for item in mappings]
    else:
        heads, rows = [key], [[item] for item in value[:MOST_ROWS]]
    worded = frozenset(
        _words(head)
        for i, head in enumerate(heads)
        if not any(isinstance(r[i], int | float) for r in rows)
    )
    body = table([_words(head) for head in heads], map(_row, rows), worded)
    rest = len(value) - len(rows)
    more = f"<p class='soft'>and {rest:,} more</p>" if rest else ""
    return aside(f"{_words(key)}: {len(value):,}", body + more)


def _row(values: Sequence[Any]) -> str:
    return row(_cell(value) for value in values)


def _cell(value: Any) -> str:
    shown = shortened(_short(value), LONGEST_CELL)
    return figure(shown) if isinstance(value, int | float) else words(shown)


def _coverage(coverage: Mapping[str, Any]) -> str:
    flat = {key: v for key, v in coverage.items() if key != "warnings"}
    if not flat:
        return ""
    charts = {k: v for k, v in flat.items() if _is_histogram(v)}
    figures = terms((_words(k), _short(v)) for k, v in flat.items() if k not in charts)
    drawn = "".join(
        f"<figure>{histogram(shares, _words(key))}<figcaption>{escape(_words(key))}</figcaption>"
        "</figure>"
        for key, shares in charts.items()
    )
    return f"<h3>Coverage</h3>{figures}{drawn}"


def _is_histogram(value: Any) -> bool:
    return (
        _is_list(value)
        and 1 < len(value) <= MOST_BARS
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    )
