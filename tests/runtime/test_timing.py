"""Sessions that are compared take turns, and one slow frame does not count."""

from __future__ import annotations

import time

import numpy as np
import pytest
from srdeploy.runtime import timing
from srdeploy.runtime.session import Session
from srdeploy.runtime.timing import median_times, timed_rounds


class Clocked(Session):
    """Moves a clock by the next of some milliseconds for each call, and notes that it was called.

    The clock is the time of the whole machine: nothing is waited for.
    """

    target, scale = "clocked", 1

    def __init__(self, name: str, clock: list[float], called: list[str], *takes: float) -> None:
        self.name, self.takes = name, list(takes)
        self.clock, self.called = clock, called
        self.seen: list[np.ndarray] = []

    def _upscale(self, frames: np.ndarray) -> np.ndarray:
        self.called.append(self.name)
        self.seen.append(frames)
        self.clock[0] += self.takes.pop(0) / 1e3
        return frames


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_sessions_take_turns_and_the_median_counts(clock: list[float]) -> None:
    called: list[str] = []
    sessions = [
        Clocked("a", clock, called, 500, 10, 90, 11),  # its first frame is not timed
        Clocked("b", clock, called, 1, 20, 21, 4000),
    ]
    assert median_times(sessions, (1, 6, 8), 3) == pytest.approx([11, 21])
    assert called == ["a", "b"] * 4
    first, *others = [frames for session in sessions for frames in session.seen]
    assert (first.shape, first.dtype) == ((1, 6, 8, 3), np.uint8)
    assert len(np.unique(first)) > 50, "no flat frame, which some kernels take less time for"
    assert all(np.array_equal(first, frames) for frames in others)


def test_rounds_tell_what_slowed_all_of_them(clock: list[float]) -> None:
    called: list[str] = []
    sessions = [Clocked("a", clock, called, 9, 10, 30), Clocked("b", clock, called, 9, 20, 60)]
    warm: list[int] = []
    rounds = timed_rounds(sessions, (1, 6, 8), 2, warm.append)
    assert [second / first for first, second in rounds] == pytest.approx([2, 2])
    assert warm == [1, 2]


def test_the_time_is_that_of_a_frame(clock: list[float]) -> None:
    called: list[str] = []
    sessions = [Clocked("a", clock, called, *[40] * (timing.ROUNDS + 1))]
    assert median_times(sessions, (4, 6, 8)) == pytest.approx([10])
    assert len(called) == timing.ROUNDS + 1
    assert median_times([], (1, 6, 8)) == []
