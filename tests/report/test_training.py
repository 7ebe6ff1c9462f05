"""The page that is drawn from the log of a training."""

from __future__ import annotations

import math

import pytest
from srdeploy.report.training import MOST_POINTS, Summary, summary_page
from srdeploy.train.log import Row
from srdeploy.train.recipe import Recipe


def rows(count: int, every: int = 5) -> list[Row]:
    return [
        Row(i, 1 / i, 1e-3, 20 + i / count if i % every == 0 else None, 12.5, i * 2.0)
        for i in range(1, count + 1)
    ]


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
