"""Costs: modelled by the roofline, and measured on sessions of known speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from srdeploy.calib.cost import (
    COUNTED_AT,
    MEASURED_UNIT,
    REPEATED,
    kinds,
    measured_costs,
    modelled_costs,
)
from srdeploy.export.macs import macs
from srdeploy.export.quantise import quantisable_nodes
from srdeploy.runtime import timing
from srdeploy.runtime.session import Session


class Slow(Session):
    """A session that takes a number of milliseconds for a frame."""

    target = "slow"
    scale = 1

    def __init__(self, milliseconds: float) -> None:
        self.milliseconds = milliseconds
        self.closed = False

    def _upscale(self, frames: np.ndarray) -> np.ndarray:
        return frames

    def close(self) -> None:
        self.closed = True


def test_modelled_costs(exported) -> None:
    costs = modelled_costs(exported)
    nodes = quantisable_nodes(exported)
    assert set(costs.saved) == set(nodes)
    assert all(saved > 0 for saved in costs.saved.values())
    assert costs.of(nodes) == pytest.approx(100)
    assert costs.in_float == 100
    assert costs.of(()) == costs.all_int8
    assert 50 <= costs.all_int8 < 100  # neither bytes nor MACs become less than half
    first, *rest = nodes
    assert costs.of([first]) == pytest.approx(costs.all_int8 + costs.saved[first])
    # the bytes of a layer count, not its MACs alone: the picture's three channels are few
    counts = macs(exported, *COUNTED_AT)
    dearest = max(rest, key=lambda node: costs.saved[node])
    assert costs.saved[first] < costs.saved[dearest]
    assert counts[first] > 0


def test_kinds_are_layers_that_are_alike(exported) -> None:
    groups = kinds(exported)
    assert sorted(name for group in groups for name in group) == sorted(quantisable_nodes(exported))
    together = next(group for group in groups if "body.0.proj_1" in group)
    assert "body.1.proj_1" in together
    assert "body.0.proj_2" not in together
    depthwise = next(group for group in groups if "body.0.atten_branch.depthwise" in group)
    assert "body.0.atten_branch.depthwise_dilated" not in depthwise


def test_measured_costs_are_of_whole_engines(exported, monkeypatch) -> None:
    """In percent of the time in float; what is saved, in powers of 4: int8 saves 20 % in one
    kind, costs 12 % in another, and what it does to two more is not to be told from nothing."""
    monkeypatch.setattr(timing, "_time", lambda session, frames: session.milliseconds)
    groups, every = kinds(exported), quantisable_nodes(exported)
    helped, hurt, idle, still = (
        next(g for g in groups if name in g)
        for name in ("body.0.proj_1", "upsampler.0", "conv_body", "conv_first")
    )
    gains = {helped: 40.0, hurt: -24.0, idle: 9.0, still: -9.0}
    opened: list[Slow] = []

    def open_engine(choice: Sequence[str]) -> Session:
        gained = sum(gain for group, gain in gains.items() if set(group) <= set(choice))
        opened.append(Slow(200.0 if set(choice) == set(every) else 120.0 + gained))
        return opened[-1]

    told: list[tuple[str, int, int]] = []
    costs = measured_costs(exported, open_engine, lambda *step: told.append(step))
    assert costs.unit == MEASURED_UNIT
    assert costs.all_int8 == pytest.approx(60, rel=0.08)
    assert costs.in_float == 100
    assert sum(costs.saved[name] for name in helped) == pytest.approx(16)
    assert sum(costs.saved[name] for name in hurt) == pytest.approx(-16)
    assert list(costs.saved) == list(every)
    assert not any(costs.saved[name] for name in (*idle, *still))
    assert all(session.closed for session in opened)
    count = REPEATED * (len(groups) + 2)
    assert len(opened) == count
    assert told == [("timing layers", done, count) for done in range(1, count + 1)]
    # shared within a kind by the multiply-accumulates
    counts = macs(exported, *COUNTED_AT)
    shares = {costs.saved[name] / counts[name] for name in helped}
    assert max(shares) == pytest.approx(min(shares))


def test_what_is_saved_hangs_on_no_small_change_of_the_clock(exported, monkeypatch) -> None:
    monkeypatch.setattr(timing, "_time", lambda session, frames: session.milliseconds)

    def saved(wobble: float) -> Mapping[str, float]:
        def open_engine(choice: Sequence[str]) -> Session:
            return Slow(100 + 5 * len(choice) * wobble)

        return measured_costs(exported, open_engine).saved

    assert saved(1.0) == saved(1.05)


def test_what_small_kinds_seem_to_save_is_the_error_of_the_others(exported, monkeypatch) -> None:
    """The engine that all are compared with was unlucky with its memory: 7 % slower than it is."""
    monkeypatch.setattr(timing, "_time", lambda session, frames: session.milliseconds)
    counts = macs(exported, *COUNTED_AT)
    large = max(kinds(exported), key=lambda group: sum(counts[name] for name in group))

    def saved(unlucky: float) -> Mapping[str, float]:
        def open_engine(choice: Sequence[str]) -> Session:
            return Slow(100 + (14 if set(choice) >= set(large) else 0) + (0 if choice else unlucky))

        return measured_costs(exported, open_engine).saved

    assert saved(0) == saved(7)
    assert sum(saved(7).values()) == pytest.approx(16)


def test_a_machine_that_slows_down_changes_no_cost(exported, monkeypatch) -> None:
    """Rounds are compared within themselves."""
    calls = 0

    def slower(session: Slow, _: object) -> float:
        nonlocal calls
        calls += 1
        return session.milliseconds * (1 + (calls - 1) // count)

    count = len(kinds(exported)) + 2

    def open_engine(choice: Sequence[str]) -> Session:
        return Slow(100 + 3 * len(choice))

    monkeypatch.setattr(timing, "_time", lambda session, _: session.milliseconds)
    still = measured_costs(exported, open_engine)
    monkeypatch.setattr(timing, "_time", slower)
    moving = measured_costs(exported, open_engine)
    assert moving.all_int8 == pytest.approx(still.all_int8)
    assert moving.saved == still.saved


def test_engines_are_closed_when_one_fails(exported) -> None:
    opened: list[Slow] = []

    def open_engine(choice: Sequence[str]) -> Session:
        if choice:
            raise ValueError("cannot be built")
        opened.append(Slow(0))
        return opened[-1]

    with pytest.raises(ValueError, match="cannot be built"):
        measured_costs(exported, open_engine)
    assert opened[0].closed
