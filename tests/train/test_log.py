"""The log of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import OutputError, TrainingError
from srdeploy.train.log import Log, Row


def rows(count: int, every: int = 5) -> list[Row]:
    return [
        Row(i, 1 / i, 1e-3, 20 + i / count if i % every == 0 else None, 12.5, i * 2.0)
        for i in range(1, count + 1)
    ]


def test_rows_come_back(tmp_path: Path) -> None:
    log = Log(tmp_path / "deeper" / "log.csv")
    assert log.rows() == []
    for row in rows(10):
        log.add(row)
    assert [r.step for r in log.rows()] == list(range(1, 11))
    assert log.rows()[4] == rows(10)[4]
    assert log.path.read_text().splitlines()[0] == "step,loss,rate,psnr,speed,seconds"
    log.go_on_from(7)
    assert [r.step for r in log.rows()] == list(range(1, 8))
    log.add(rows(10)[7])
    assert [r.step for r in log.rows()] == list(range(1, 9))


@given(st.integers(1, 200))
def test_a_row_that_was_cut_off_is_left_out(tmp_path_factory, cut: int) -> None:
    log = Log(tmp_path_factory.mktemp("log") / "log.csv")
    for row in rows(5):
        log.add(row)
    whole = log.path.read_bytes()
    head = whole.index(b"\n") + 1
    log.path.write_bytes(whole[: max(head, len(whole) - cut)])
    kept = log.rows()
    assert [r.step for r in kept] == list(range(1, len(kept) + 1))
    log.go_on_from(len(kept))
    log.add(rows(5)[-1])
    assert len(log.rows()) == len(kept) + 1


def test_other_files_are_not_taken_for_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for content in (b"", b"a,b\n1,2\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="not the log of a training"):
            Log(path).go_on_from(3)
        assert path.read_bytes() == content
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        Log(blocked / "log.csv").add(rows(1)[0])
