"""The search: the cheapest choice within the budget, never below the share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.calib.cost import Costs
from srdeploy.calib.search import MARGIN, search
from srdeploy.calib.sensitivity import NodeDrift

layers = st.lists(
    st.tuples(st.integers(1, 100), st.floats(-0.5, 0.01), st.integers(-20, 100)),
    min_size=1,
    max_size=12,
).map(lambda rows: {f"layer{i}": row for i, row in enumerate(rows)})


def additive(rows):
    """Ranked layers, their MACs and costs, and a network whose losses add up."""
    drifts = {name: drift for name, (_, drift, _) in rows.items()}
    ranked = sorted((NodeDrift(n, d, d) for n, d in drifts.items()), key=lambda n: n.drift)
    macs = {name: count for name, (count, _, _) in rows.items()} | {"not quantisable": 50}
    costs = Costs(
        "ms", 1000.0, 2000.0, {name: float(saved) for name, (_, _, saved) in rows.items()}
    )

    def measure(in_float: Sequence[str]) -> float:
        return sum(drift for name, drift in drifts.items() if name not in in_float)

    return ranked, macs, costs, measure


@given(rows=layers, budget=st.floats(0, 1), min_int8=st.floats(0, 1))
def test_what_is_found_is_measured_and_within_the_share(rows, budget, min_int8) -> None:
    ranked, macs, costs, measure = additive(rows)
    trials, index = search(ranked, macs, costs, measure, budget, min_int8)
    total = sum(macs.values())
    for trial in trials:
        assert trial.drift == measure(trial.float_nodes)
        left = sum(macs[name] for name in trial.float_nodes)
        assert trial.int8_share == pytest.approx((total - 50 - left) / total)
        assert trial.int8_share >= min_int8 - 1e-9 or not trial.float_nodes
        assert trial.cost == pytest.approx(costs.of(trial.float_nodes))
    chosen = trials[index]
    fitting = [t for t in trials if t.drift >= -budget * MARGIN]
    if fitting:
        assert chosen in fitting
        assert chosen.cost == min(t.cost for t in fitting)
    else:
        assert chosen.drift == max(t.drift for t in trials)


@given(rows=layers, budget=st.floats(0, 1))
def test_what_int8_slows_down_is_in_float_where_any_share_will_do(rows, budget) -> None:
    """And nothing that costs more than that alone is chosen where that is enough."""
    ranked, macs, costs, measure = additive(rows)
    trials, index = search(ranked, macs, costs, measure, budget, 0.0)
    chosen = trials[index]
    slower = {name for name, saved in costs.saved.items() if saved < 0 and rows[name][1] <= 0}
    assert slower <= set(chosen.float_nodes)
    if measure(tuple(slower)) >= -budget * MARGIN:
        assert chosen.cost <= costs.of(tuple(slower)) + 1e-9


def test_the_cheapest_repair_comes_first() -> None:
    rows = {"large": (100, -0.10, 100), "small": (1, -0.02, 1), "fine": (100, 0.0, 100)}
    problem = additive(rows)
    steps: list[str] = []

    def chosen(budget: float, share: float) -> tuple[str, ...]:
        trials, index = search(
            *problem, budget, share, lambda step, done, total: steps.append(step)
        )
        return trials[index].float_nodes

    assert chosen(0.15, 0) == ("small",)
    assert set(steps) == {"searching"}
    assert set(chosen(0.0, 0)) == {"small", "large"}
    assert chosen(10, 0) == ()
    assert chosen(0.0, 0.7) == ("small",)


def test_a_layer_that_int8_does_not_speed_up_is_float_beyond_the_share() -> None:
    rows = {"slow": (10, -0.001, -5), "even": (10, -0.002, 0), "fast": (80, -0.001, 50)}
    problem = additive(rows)
    trials, index = search(*problem, 10, 0.5)
    assert set(trials[index].float_nodes) == {"slow", "even"}
    assert trials[0].float_nodes == ()  # all in int8 is measured for comparison
    trials, index = search(*problem, 10, 0.58)
    assert trials[index].float_nodes == ("slow",)  # room for one: the one that gains time
    trials, index = search(*problem, 0.004, 0.58)
    assert trials[index].float_nodes == ("slow",), "the budget is met as well"
    trials, index = search(*problem, 0.0027, 0.58)
    assert trials[index].float_nodes == ("even",), "the one that loses more"
    trials, index = search(*problem, 10, 0.66)
    assert trials[index].float_nodes == ()


def test_where_the_share_is_short_it_goes_to_the_layers_that_lose_most() -> None:
    """Not to those that int8 does not speed up, which would use it up."""
    rows = {
        "slow": (10, -0.001, -5),
        "wide": (10, -0.30, 40),
        "deep": (9, -0.25, 40),
        "fine": (80, -0.001, 50),
    }
    problem = additive(rows)
    trials, index = search(*problem, 0.1, 0.55)
    assert set(trials[index].float_nodes) == {"wide", "deep"}
    assert any("slow" in t.float_nodes for t in trials), "what costs least was tried first"
