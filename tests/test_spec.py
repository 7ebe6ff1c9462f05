"""Budgets: what can be one, and what a picture may lose of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.spec import TAIL, Budget, dump, load


@pytest.mark.parametrize(
    ("mean", "worst"),
    [
        (0.2, 0.1),
        (-0.1, 0.1),
        (-0.2, -0.1),
        (math.nan, 0.1),
        (0.1, math.nan),
        (math.nan, math.nan),
        (0.1, math.inf),
        (math.inf, math.inf),
    ],
)
def test_what_cannot_be_a_budget(mean: float, worst: float) -> None:
    with pytest.raises(ValueError, match="expected a loss from 0 dB on"):
        Budget(mean, worst)


@pytest.mark.parametrize("mean", [-0.1, math.nan, math.inf])
def test_a_mean_that_cannot_be_one(mean: float) -> None:
    with pytest.raises(ValueError, match="expected a loss from 0 dB on"):
        Budget.of_mean(mean)


def test_a_picture_may_lose_four_times_the_mean_by_default() -> None:
    assert TAIL == 4
    assert Budget.of_mean(0.05) == Budget(0.05, 0.2)
    assert Budget.of_mean(0.0) == Budget(0.0, 0.0)


def test_the_tail_is_what_a_picture_may_lose_of_the_mean() -> None:
    assert Budget.of_mean(0.03).tail == pytest.approx(TAIL)
    assert Budget(0.1, 0.25).tail == pytest.approx(2.5)
    assert Budget(0.1, 0.1).tail == 1
    assert Budget(0.0, 0.0).tail == Budget(0.0, 0.3).tail == TAIL


def test_a_budget_in_words() -> None:
    assert str(Budget(0.05, 0.2)) == "0.05 dB on average, 0.2 dB for a picture"


@given(st.floats(0, 100), st.floats(1, 10))
def test_a_budget_survives_its_file(mean: float, tail: float) -> None:
    made = Budget(mean, mean * tail)
    assert load(Budget, dump(made)) == made
