"""The search: within the budget with the most int8, never below the share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.calib.search import MARGIN, search
from srdeploy.calib.sensitivity import NodeDrift

layers = st.lists(
    st.tuples(st.integers(1, 100), st.floats(-0.5, 0.01)), min_size=1, max_size=12
).map(lambda rows: {f"layer{i}": row for i, row in enumerate(rows)})


def additive(rows):
    """Ranked layers, their MACs, and a network whose losses add up."""
    ranked = sorted((NodeDrift(n, d) for n, (_, d) in rows.items()), key=lambda n: n.drift)
    macs = {name: count for name, (count, _) in rows.items()} | {"not quantisable": 50}

    def measure(in_float: Sequence[str]) -> float:
        return sum(d for n, (_, d) in rows.items() if n not in in_float)

    return ranked, macs, measure


@given(rows=layers, budget=st.floats(0, 1), min_int8=st.floats(0, 1))
def test_what_is_found_is_measured_and_within_the_share(rows, budget, min_int8) -> None:
    ranked, macs, measure = additive(rows)
    found = search(ranked, macs, measure, budget, min_int8)
    total = sum(macs.values())
    for trial in found.trials:
        assert trial.drift == measure(trial.float_nodes)
        left = sum(macs[name] for name in trial.float_nodes)
        assert trial.int8_share == pytest.approx((total - 50 - left) / total)
        assert trial.int8_share >= min_int8 - 1e-9 or not trial.float_nodes
    assert found.chosen in found.trials
    fitting = [t for t in found.trials if t.drift >= -budget * MARGIN]
    if fitting:  # no trial within the budget has more in int8
        assert found.chosen in fitting
        assert found.chosen.int8_share == max(t.int8_share for t in fitting)
    else:
        assert found.chosen.drift == max(t.drift for t in found.trials)


def test_the_cheapest_repair_comes_first() -> None:
    rows = {"large": (100, -0.10), "small": (1, -0.02), "fine": (100, 0.0)}
    ranked, macs, measure = additive(rows)
    steps: list[str] = []
    found = search(ranked, macs, measure, 0.2, 0, lambda step, done, total: steps.append(step))
    assert found.chosen.float_nodes == ("small",)
    assert set(steps) == {"searching"}
    assert search(ranked, macs, measure, 0.0, 0).chosen.float_nodes == ("small", "large")
    assert search(ranked, macs, measure, 10, 0).chosen.float_nodes == ()
    assert search(ranked, macs, measure, 0.0, 0.7).chosen.float_nodes == ("small",)
