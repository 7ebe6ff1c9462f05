"""The log, and the page that is drawn from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import OutputError, TrainingError
from srdeploy.train.log import Log, Row
from srdeploy.train.recipe import Recipe
from srdeploy.train.summary import MOST_POINTS, Summary, summary_page


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


@pytest.mark.parametrize("count", [0, 1, 2, 40, 5_000])
def test_the_page_draws_loss_and_psnr(count: int) -> None:
    psnr, bicubic = {"a&b": 27.0, "mean": 27.0}, {"a&b": 26.5, "mean": 26.5}
    summary = Summary("vapsr-<tiny>", Recipe(), rows(count), psnr, bicubic)
    page = summary_page(summary)
    assert page.count("<svg") == (0 if count < 2 else 1 if count < 10 else 2)
    assert page.count("<circle") <= 60
    for line in page.split("<polyline")[1:]:
        assert line.split('"')[3].count(",") <= max(MOST_POINTS, count // 5)
    assert "a&amp;b" in page
    assert "vapsr-&lt;tiny&gt;" in page
    assert "nan" not in page.lower()


def test_the_page_of_a_run_without_validation_or_time() -> None:
    psnr = {"mean": math.nan}
    at_once = [Row(1, 0.5, 1e-3, None, 9e9, 0.0)]
    assert "patches a second" not in summary_page(Summary("v", Recipe(), at_once, psnr, psnr))
    page = summary_page(Summary("vapsr", Recipe(), rows(3, every=99), psnr, psnr))
    assert "not validated" in page
    assert page.count("<svg") == 1
