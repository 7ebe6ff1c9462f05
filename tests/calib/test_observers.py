"""Observers: batches and order do not matter, and the ranges are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from srdeploy.calib.observers import (
    EntropyObserver,
    MinMaxObserver,
    MseObserver,
    PercentileObserver,
)
from srdeploy.errors import DatasetError

OBSERVERS = {
    "minmax": MinMaxObserver,
    "99": lambda: PercentileObserver(99),
    "50": lambda: PercentileObserver(50),
    "mse": MseObserver,
    "entropy": EntropyObserver,
}
tensors = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


@pytest.mark.parametrize("make", OBSERVERS.values(), ids=OBSERVERS)
@given(tensors, st.lists(st.integers(0, 200), max_size=5), st.randoms())
def test_batches_and_order_do_not_matter(make, values, cuts, random) -> None:
    whole = make()
    whole.observe(values)
    shuffled = values.copy()
    random.shuffle(shuffled)
    parts = make()
    for batch in np.split(shuffled, sorted(cuts)):
        parts.observe(batch)
    assert parts.bounds() == whole.bounds()


@given(tensors)
def test_minmax_covers_every_value_and_no_more(values) -> None:
    observer = MinMaxObserver()
    observer.observe(values.reshape(1, -1, 1))
    low, high = observer.bounds()
    assert low == -high
    assert high == np.abs(values).max()


@given(tensors, st.sampled_from([0.5, 25, 50, 90, 99, 99.9, 100]))
def test_percentile_is_within_a_bin_of_the_exact_one(values, percentile) -> None:
    observer = PercentileObserver(percentile)
    observer.observe(values)
    low, high = observer.bounds()
    assert low == -high
    magnitudes = np.sort(np.abs(values).astype(np.float64))
    exact = magnitudes[int(np.ceil(percentile / 100 * values.size)) - 1]
    least_normal = 2.0**-126
    assert abs(high - exact) <= max(exact, least_normal) / 128
    assert high <= magnitudes[-1]
    if percentile == 100:
        assert high == magnitudes[-1]


def test_percentile_lets_a_rare_outlier_saturate() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    values[7] = -1000
    observer = PercentileObserver(99.99)
    observer.observe(values)
    assert observer.bounds()[1] == pytest.approx(1, rel=0.01)


def rounding_error(values: np.ndarray, reach: float) -> float:
    """Mean squared error of int8 with 127 codes on each side up to ``reach``."""
    step = reach / 127
    codes = np.clip(np.rint(values / step), -127, 127)
    return float(np.mean((codes * step - values) ** 2))


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_mse_rounds_best(spread: float) -> None:
    """Against every other range, by rounding the values themselves."""
    values = np.random.default_rng(1).lognormal(0, spread, 50_000).astype(np.float32)
    observer = MseObserver()
    observer.observe(values)
    reach = observer.bounds()[1]
    others = [rounding_error(values, float(values.max()) * 2.0**-k) for k in np.arange(0, 6, 0.1)]
    assert rounding_error(values, reach) <= 1.05 * min(others)


def test_entropy_leaves_outliers_and_keeps_the_body() -> None:
    values = np.random.default_rng(2).normal(0, 1, 100_000).astype(np.float32)
    values[:3] = 60
    observer = EntropyObserver()
    observer.observe(values)
    assert 2.5 < observer.bounds()[1] < 12


def test_views_and_float_layouts_are_read_right() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (values.T, values[:, ::2], values[::-1]):
        plain, strided = PercentileObserver(60), PercentileObserver(60)
        plain.observe(view.copy())
        strided.observe(view)
        assert strided.bounds() == plain.bounds()


@pytest.mark.parametrize("make", OBSERVERS.values(), ids=OBSERVERS)
def test_nothing_and_nonsense_are_refused(make) -> None:
    observer = make()
    observer.observe(np.empty((0, 3), np.float32))
    with pytest.raises(DatasetError, match="nothing was observed"):
        observer.bounds()
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(DatasetError, match="not finite"):
            make().observe(np.array([0, wrong, 1], np.float32))
    observer.observe(np.zeros(3, np.float32))
    assert observer.bounds() == (0, 0)


@pytest.mark.parametrize("percentile", [0, -1, 100.1, float("nan")])
def test_impossible_percentiles_are_refused(percentile) -> None:
    with pytest.raises(DatasetError, match="percentile"):
        PercentileObserver(percentile)
