"""Where crops are cut."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.calib.crops import holds, plan_crops
from srdeploy.errors import DatasetError

edges = st.integers(1, 60)


@given(
    st.lists(st.tuples(edges, edges), min_size=1, max_size=6),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(1, 40),
    st.integers(0, 9),
)
def test_crops_lie_inside_and_favour_no_picture(shapes, size, count, seed) -> None:
    usable = [shape for shape in shapes if holds(shape, size)]
    if not usable:
        with pytest.raises(DatasetError, match="0 pictures are that large"):
            plan_crops(usable, size, count, seed)
        return
    planned = plan_crops(usable, size, count, seed)
    assert len(planned) == count
    for index, top, left in planned:
        height, width = usable[index]
        assert 0 <= top <= height - size[0]
        assert 0 <= left <= width - size[1]
    shares = [sum(index == i for index, _, _ in planned) for i in range(len(usable))]
    assert max(shares) - min(shares) <= 1
    assert planned == plan_crops(usable, size, count, seed)


def test_crops_spread_over_a_picture() -> None:
    planned = plan_crops([(240, 240)], (40, 40), 64, 0)
    quarters = Counter((top > 100, left > 100) for _, top, left in planned)
    assert len(quarters) == 4
    assert min(quarters.values()) >= 12
    small = plan_crops([(12, 11)], (10, 10), 60, 0)
    assert {(top, left) for _, top, left in small} == {(y, x) for y in range(3) for x in range(2)}


def test_crops_of_another_seed_differ() -> None:
    shapes = [(100, 100)]
    assert plan_crops(shapes, (10, 10), 5, 0) != plan_crops(shapes, (10, 10), 5, 1)


def test_no_crops_without_pictures_or_count() -> None:
    with pytest.raises(DatasetError, match="0 pictures are that large"):
        plan_crops([], (10, 10), 5, 0)
    with pytest.raises(DatasetError, match="0 of 10×10 pixels"):
        plan_crops([(20, 20)], (10, 10), 0, 0)
