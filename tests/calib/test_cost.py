"""Costs: modelled by the roofline, and measured on sessions of known speed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from srdeploy.calib import cost
from srdeploy.calib.cost import (
    COUNTED_AT,
    MEASURED_UNIT,
    kinds,
    measured_costs,
    modelled_costs,
    timed,
)
from srdeploy.export.macs import macs
from srdeploy.export.quantise import quantisable_nodes
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
    """int8 saves 30 ms in one kind, nothing in another, and makes a third slower."""
    monkeypatch.setattr(cost, "_time", lambda session, frame: session.milliseconds)
    groups = kinds(exported)
    helped, idle, hurt = (
        next(g for g in groups if name in g)
        for name in ("body.0.proj_1", "conv_body", "upsampler.0")
    )
    opened: list[Slow] = []

    def open_engine(choice: Sequence[str]) -> Session:
        takes = 60.0 + 30 * (set(helped) <= set(choice)) - 30 * (set(hurt) <= set(choice))
        opened.append(Slow(takes))
        return opened[-1]

    costs = measured_costs(exported, open_engine)
    assert costs.unit == MEASURED_UNIT
    assert costs.all_int8 == 60
    assert sum(costs.saved[name] for name in helped) == pytest.approx(30)
    assert sum(costs.saved[name] for name in hurt) == pytest.approx(-30)
    assert set(costs.saved) == set(quantisable_nodes(exported))
    assert sum(costs.saved[name] for name in idle) == 0
    assert all(session.closed for session in opened)
    assert len(opened) == len(groups) + 1


def test_engines_are_closed_when_one_fails() -> None:
    opened: list[Slow] = []

    def open_engine(choice: Sequence[str]) -> Session:
        if choice:
            raise ValueError("cannot be built")
        opened.append(Slow(0))
        return opened[-1]

    with pytest.raises(ValueError, match="cannot be built"):
        timed([(), ("a",)], open_engine)
    assert opened[0].closed
