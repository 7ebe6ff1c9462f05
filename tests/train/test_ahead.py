"""Batches that are made ahead are those that were asked for, and no more."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import DatasetError
from srdeploy.train.ahead import Ahead
from torch import Tensor


class Numbered:
    """Batches that hold their step; notes which were made, and by which thread."""

    scale = 2

    def __init__(self, seconds: float = 0.0, fails_at: int = -1) -> None:
        self.made: list[int] = []
        self.threads: set[int] = set()
        self._seconds, self._fails_at = seconds, fails_at

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        if step == self._fails_at:
            raise DatasetError("a picture was removed")
        time.sleep(self._seconds)
        self.made.append(step)
        self.threads.add(threading.get_ident())
        return torch.full((size,), step), torch.full((size,), -step)

    def names_of(self, step: int, size: int) -> list[str]:
        return [f"{step}"] * size


@given(
    steps=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    workers=st.integers(1, 4),
    size=st.integers(1, 3),
)
def test_any_order_of_steps_gets_its_batches(steps: list[int], workers: int, size: int) -> None:
    with Ahead(Numbered(), workers, 10) as ahead:
        for step in steps:
            low, high = ahead.batch(step, size)
            assert low.tolist() == [step] * size
            assert high.tolist() == [-step] * size


def test_each_batch_of_a_run_is_made_once_and_none_beyond_its_end() -> None:
    source = Numbered()
    with Ahead(source, 3, 20) as ahead:
        for step in range(20):
            ahead.batch(step, 1)
    assert sorted(source.made) == list(range(20))
    assert threading.get_ident() not in source.threads


def test_batches_are_made_while_the_network_computes() -> None:
    source = Numbered(seconds=0.02)
    with Ahead(source, 2, 40) as ahead:
        ahead.batch(0, 1)
        deadline = time.monotonic() + 10
        while len(source.made) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(source.made) == [0, 1, 2, 3, 4]


def test_a_failure_is_raised_where_the_batch_is_asked_for() -> None:
    with Ahead(Numbered(fails_at=2), 1, 10) as ahead:
        assert ahead.batch(1, 1)[0].item() == 1
        with pytest.raises(DatasetError, match="removed"):
            ahead.batch(2, 1)
