"""What was measured is recalled, and nothing else is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from srdeploy.calib import journal
from srdeploy.calib.journal import Journal
from srdeploy.errors import OutputError

ARRAYS = {"codes/a.weight": np.arange(-6, 6, dtype=np.int8).reshape(3, 4), "means": np.ones(2)}


def never() -> float:
    raise AssertionError("measured again")


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "below" / "journal.jsonl"
    made = Journal(path)
    assert made.kept(lambda: 1.5, "graph", 3, 0.1) == 1.5
    assert made.kept(never, "graph", 3, 0.1) == 1.5
    assert made.kept(lambda: 2.5, "graph", 3, 0.2) == 2.5
    again = Journal(path)
    assert again.recalled == 0
    assert again.kept(never, "graph", 3, 0.2) == 2.5
    assert again.recalled == 1


def test_a_torn_or_foreign_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).kept(lambda: 4.0, "kept")
    torn = path.read_text()[:-20]
    path.write_text(path.read_text() + '[1]\n{"key": "x", "value": NaN}\nnot json\n' + torn)
    assert Journal(path).kept(never, "kept") == 4.0
    path.write_bytes(b"\xff\xfe\x00")
    assert Journal(path).kept(lambda: 5.0, "kept") == 5.0


def test_a_file_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert Journal(blocked / "journal.jsonl").kept(lambda: 1.0, "a") == 1.0


def test_what_was_measured_otherwise_is_not_recalled(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).kept(lambda: 1.0, "a")
    monkeypatch.setattr(journal, "METHOD", "another")
    assert Journal(path).kept(lambda: 2.0, "a") == 2.0


def equal(found: dict[str, np.ndarray]) -> bool:
    return list(found) == list(ARRAYS) and all(
        np.array_equal(found[name], made) and found[name].dtype == made.dtype
        for name, made in ARRAYS.items()
    )


def never_arrays() -> dict[str, np.ndarray]:
    raise AssertionError("computed again")


def test_arrays_are_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "below" / "net.jsonl"
    made = Journal(path)
    assert equal(made.arrays(lambda: ARRAYS, "graph", "codes"))
    assert made.recalled == 0
    again = Journal(path)
    assert equal(again.arrays(never_arrays, "graph", "codes"))
    assert again.recalled == 1
    other = {"codes/a.weight": np.zeros(1)}
    assert list(again.arrays(lambda: other, "graph", "channels")) == list(other)
    files = list(tmp_path.rglob("*.*"))
    assert {file.suffix for file in files} == {".npz"}
    assert {file.parent for file in files} == {path.with_suffix("")}


def test_arrays_computed_otherwise_are_not_recalled(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "net.jsonl"
    Journal(path).arrays(lambda: {"a": np.zeros(1)}, "a")
    monkeypatch.setattr(journal, "METHOD", "another")
    assert equal(Journal(path).arrays(lambda: ARRAYS, "a"))


def cut(content: bytes) -> bytes:
    return content[:-40]


def flipped(content: bytes) -> bytes:
    """A bit of an array's values: the archive's own checksum tells."""
    at = content.index(bytes(range(250, 256)))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def pickled(_: bytes) -> bytes:
    """Objects, which could run anything."""
    packed = io.BytesIO()
    np.savez(packed, means=np.array([{"an": "object"}], object))
    return packed.getvalue()


@pytest.mark.parametrize("damage", [cut, flipped, pickled, lambda _: b"", lambda _: b"no archive"])
def test_damaged_arrays_are_computed_again(damage, tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    Journal(path).arrays(lambda: ARRAYS, "a")
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(damage(file.read_bytes()))
    journal = Journal(path)
    assert equal(journal.arrays(lambda: ARRAYS, "a"))
    assert journal.recalled == 0
    assert equal(Journal(path).arrays(never_arrays, "a")), "it was mended"


def test_arrays_that_cannot_be_written_cost_nothing_else(tmp_path: Path, monkeypatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert equal(Journal(blocked / "net.jsonl").arrays(lambda: ARRAYS, "a"))
    assert equal(Journal().arrays(lambda: ARRAYS, "a"))

    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(journal, "write_bytes", full)
    assert equal(Journal(tmp_path / "net.jsonl").arrays(lambda: ARRAYS, "a"))


def test_a_failure_to_compute_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="computed again"):
        Journal(tmp_path / "net.jsonl").arrays(never_arrays, "a")
