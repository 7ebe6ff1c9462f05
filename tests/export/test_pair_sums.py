"""Weights whose products fit in pairs, against the sums that such a CPU makes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from srdeploy.export.pair_sums import LIMIT, fit_pairs, pair_reach, pairs_fit

SHAPES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 7)),
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3)),
)
CODES = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-127, 127)))


def pairs(codes: NDArray[np.int8]) -> list[list[tuple[int, int]]]:
    """Of each output, the neighbours of one tap and those of all taps in a row."""
    found = []
    for output in codes.astype(int):
        taps = output.reshape(len(output), -1).T.tolist()
        rows = [*taps, list(itertools.chain(*taps))]
        found.append([(row[i], row[i + 1]) for row in rows for i in range(0, len(row) - 1, 2)])
    return found


def saturated(pair: tuple[int, int], activations: tuple[int, int]) -> int:
    """``vpmaddubsw``."""
    exact = sum(a * w for a, w in zip(activations, pair, strict=True))
    return min(max(exact, -(2**15)), 2**15 - 1)


@given(CODES)
def test_fitted_codes_saturate_with_no_activation(codes: NDArray[np.int8]) -> None:
    fitted = fit_pairs(codes, 0)
    assert pairs_fit(fitted, 0)
    assert fitted.shape == codes.shape
    assert (np.abs(fitted) <= np.abs(codes)).all()
    for output in pairs(fitted):
        for pair in output:
            for activations in itertools.product((0, 255), repeat=2):
                exact = sum(a * w for a, w in zip(activations, pair, strict=True))
                assert saturated(pair, activations) == exact
    assert np.array_equal(fitted, codes) == pairs_fit(codes, 0)


def test_the_limit_is_the_last_that_fits() -> None:
    for sign in (1, -1):
        assert saturated((sign * 64, sign * 64), (255, 255)) == sign * 255 * LIMIT
        assert saturated((sign * 65, sign * 64), (255, 255)) != sign * 255 * (LIMIT + 1)


@given(CODES)
def test_reach(codes: NDArray[np.int8]) -> None:
    reach = pair_reach(codes.astype(np.int16), 0)
    for output, found, row in zip(pairs(codes), reach, codes.astype(int), strict=True):
        sums = [abs(a + b) for a, b in output if (a < 0) == (b < 0)]
        assert found == max([*sums, np.abs(row).max()])


@given(CODES)
def test_a_grid_up_to_the_reach_fits(codes: NDArray[np.int8]) -> None:
    """Rounded to the nearest; the loss is at most half a step of it."""
    values = codes.astype(np.float64) + 0.3
    steps = pair_reach(values, 0) / 127
    steps = steps.reshape(-1, *[1] * (values.ndim - 1))
    assert pairs_fit(np.rint(values / steps).astype(np.int8), 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_of_a_matrix(axis: int) -> None:
    matrix = np.random.default_rng(0).integers(-127, 128, (8, 6)).astype(np.int8)
    fitted = fit_pairs(matrix, axis)
    assert pairs_fit(fitted, axis)
    if axis:
        assert np.array_equal(fitted, fit_pairs(matrix.T.copy(), 0).T)
