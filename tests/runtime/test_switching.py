"""Changing the engine in the middle of a run: no frame lost, none of two engines."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from srdeploy.errors import EngineError
from srdeploy.runtime.session import Frames, Session
from srdeploy.runtime.switching import SwitchingSession


class Constant(Session):
    """Gives one value; may wait inside a call, and may fail."""

    def __init__(self, value: int, scale: int = 2, wait: threading.Event | None = None) -> None:
        self.scale, self.target, self.value = scale, f"constant {value}", value
        self.inside = threading.Semaphore(0)
        self.closed = 0
        self._wait = wait

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"by {self.value}",)

    def _upscale(self, frames: Frames) -> Frames:
        assert not self.closed
        self.inside.release()
        if self._wait is not None:
            assert self._wait.wait(20)
        assert not self.closed, "closed under a call in flight"
        n, h, w, _ = frames.shape
        if frames.max() == 99:
            raise EngineError("failed")
        return np.full((n, h * self.scale, w * self.scale, 3), self.value, np.uint8)

    def close(self) -> None:
        self.closed += 1


FRAME = np.zeros((1, 4, 4, 3), np.uint8)


def test_calls_in_flight_end_on_the_old_engine() -> None:
    go = threading.Event()
    old, new = Constant(1, wait=go), Constant(2)
    session = SwitchingSession(old, parallel=3)
    with ThreadPoolExecutor(3) as pool:
        flying = [pool.submit(session.upscale, FRAME) for _ in range(2)]
        for _ in flying:
            assert old.inside.acquire(timeout=20)
        assert session.replace(new) == 2
        assert session.upscale(FRAME).max() == 2, "while the old one is still busy"
        assert not old.closed
        go.set()
        assert [f.result().max() for f in flying] == [1, 1]
    assert old.closed == 1
    assert (session.target, session.parallel) == ("constant 2", 3)
    assert session.notes == ("by 1", "by 2")
    session.close()
    session.close()
    assert (old.closed, new.closed) == (1, 1)
    with pytest.raises(EngineError, match="closed"):
        session.upscale(FRAME)


def test_an_idle_engine_is_closed_at_once() -> None:
    old, new = Constant(1), Constant(2)
    with SwitchingSession(old) as session:
        session.upscale(FRAME)
        with pytest.raises(EngineError, match="failed"):
            session.upscale(FRAME + np.uint8(99))
        assert session.replace(new) == 2
        assert old.closed == 1
    assert new.closed == 1


def test_another_scale_is_refused_and_the_run_goes_on() -> None:
    old, other = Constant(1), Constant(2, scale=3)
    session = SwitchingSession(old)
    with pytest.raises(EngineError, match="by 3, the run began with one that upscales by 2"):
        session.replace(other)
    session.note("the builder failed")
    assert other.closed == 1
    assert session.upscale(FRAME).max() == 1
    assert session.notes == ("the builder failed", "by 1")


def test_an_engine_that_comes_too_late_is_closed() -> None:
    session, late = SwitchingSession(Constant(1)), Constant(2)
    session.close()
    with pytest.raises(EngineError, match="has ended"):
        session.replace(late)
    assert late.closed == 1


def test_changes_under_load() -> None:
    """Each call is answered by one engine, no engine is closed under it, all are in the end."""
    engines = [Constant(value) for value in range(1, 30)]
    session = SwitchingSession(engines[0], parallel=4)
    stop = threading.Event()
    seen: set[int] = set()

    def work() -> None:
        while not stop.is_set():
            upscaled = session.upscale(FRAME)
            assert upscaled.min() == upscaled.max()
            seen.add(int(upscaled.max()))

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        try:
            for engine in engines[1:]:
                session.replace(engine)
                assert engine.inside.acquire(timeout=20)
        finally:
            stop.set()  # whatever failed, the threads end
        for future in working:
            future.result()
    session.close()
    assert [e.closed for e in engines] == [1] * len(engines)
    assert seen >= set(range(2, 30))
