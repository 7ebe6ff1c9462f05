"""What was measured is recalled, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from srdeploy.calib import journal
from srdeploy.calib.journal import Journal


def never() -> float:
    raise AssertionError("measured again")


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "below" / "journal.jsonl"
    made = Journal(path)
    assert made.measured(lambda: 1.5, "graph", 3, 0.1) == 1.5
    assert made.measured(never, "graph", 3, 0.1) == 1.5
    assert made.measured(lambda: 2.5, "graph", 3, 0.2) == 2.5
    again = Journal(path)
    assert again.recalled == 0
    assert again.measured(never, "graph", 3, 0.2) == 2.5
    assert again.recalled == 1


def test_a_torn_or_foreign_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).measured(lambda: 4.0, "kept")
    torn = path.read_text()[:-20]
    path.write_text(path.read_text() + '[1]\n{"key": "x", "value": NaN}\nnot json\n' + torn)
    assert Journal(path).measured(never, "kept") == 4.0
    path.write_bytes(b"\xff\xfe\x00")
    assert Journal(path).measured(lambda: 5.0, "kept") == 5.0


def test_a_file_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert Journal(blocked / "journal.jsonl").measured(lambda: 1.0, "a") == 1.0


def test_what_was_measured_otherwise_is_not_recalled(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).measured(lambda: 1.0, "a")
    monkeypatch.setattr(journal, "METHOD", "another")
    assert Journal(path).measured(lambda: 2.0, "a") == 2.0
