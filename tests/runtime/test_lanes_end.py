"""Lanes on a simulated GPU: a lost device, closing, interrupts."""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from simulated_gpu import PATIENCE, SimulatedExecution, SimulatedGpu
from simulated_session import MARK, close, frame, marked, nearest, open_session, start
from srdeploy.errors import DeviceLost, EngineError, OutOfDeviceMemory
from srdeploy.runtime.nvinfer import lanes as lanes_module
from srdeploy.runtime.nvinfer.lanes import LaneSession
from srdeploy.runtime.session import Frames


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [t for t in threading.enumerate() if t not in before] == []


@pytest.mark.parametrize("graphs", [True, False])
def test_after_a_lost_device_every_call_fails_at_once(graphs: bool) -> None:
    gpu = SimulatedGpu()
    closed: list[bool] = []

    def lose(frames: Frames) -> None:
        if frames[0, 0, 0, 0] == MARK:
            gpu.lose()

    executions = [SimulatedExecution(gpu, at_compute=lose) for _ in range(2)]
    session = LaneSession(
        "simulated", 2, gpu, executions, lambda: closed.append(True), graphs=graphs
    )
    session.upscale(frame(0))
    special = marked(1)
    results = [start(lambda: session.upscale(special)) for _ in range(6)]
    for result in results:
        with pytest.raises(DeviceLost, match="illegal memory access"):
            result()
    done = dict(gpu.counts)
    for _ in range(3):
        with pytest.raises(DeviceLost, match="illegal memory access") as caught:
            start(lambda: session.upscale(frame(2)))()
        assert "nvidia-smi" in caught.value.hint
    gpu.recover()
    with pytest.raises(DeviceLost):
        session.upscale(frame(2))
    gpu.lose()
    assert dict(gpu.counts) == done, "the device was used again"
    start(session.close)()
    start(session.close)()
    assert gpu.misuses == []
    assert (gpu.executions, gpu.streams, gpu.closed, closed) == (0, 0, True, [True])


def test_a_device_lost_between_frames_is_closed_in_peace() -> None:
    def fails() -> None:
        raise RuntimeError("the kernels cannot be read back")

    gpu = SimulatedGpu()
    session = LaneSession("simulated", 2, gpu, [SimulatedExecution(gpu)], fails)
    session.upscale(frame(0))
    gpu.lose()
    start(session.close)()
    assert (gpu.misuses, gpu.executions, gpu.streams, gpu.closed) == ([], 0, 0, True)


def test_an_engine_that_fails_to_close_is_an_error_and_the_device_is_given_back() -> None:
    def fails() -> None:
        raise RuntimeError("the cache cannot be written")

    gpu = SimulatedGpu()
    session = LaneSession("simulated", 2, gpu, [SimulatedExecution(gpu)], fails)
    session.upscale(frame(0))
    with pytest.raises(RuntimeError, match="cannot be written"):
        session.close()
    close(gpu, session)


def test_lanes_that_cannot_be_made_leave_nothing() -> None:
    gpu = SimulatedGpu()
    gpu.stream_limit = 2
    closed: list[bool] = []
    executions = [SimulatedExecution(gpu) for _ in range(4)]
    with pytest.raises(OutOfDeviceMemory):
        LaneSession("simulated", 2, gpu, executions, lambda: closed.append(True))
    assert closed == [True]
    assert not any(gpu.alive().values())
    assert gpu.closed
    assert gpu.misuses == []


class Gate:
    """Holds marked frames in the execution until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Semaphore(0), threading.Event()

    def __call__(self, frames: Frames) -> None:
        if frames[0, 0, 0, 0] == MARK:
            self.reached.release()
            assert self.opened.wait(PATIENCE)


def test_close_waits_for_the_frames_in_flight_and_refuses_those_that_wait() -> None:
    gate = Gate()
    gpu = SimulatedGpu()
    session = open_session(gpu, at_compute=gate)
    special = marked(1)
    in_flight = [start(lambda: session.upscale(special)) for _ in range(2)]
    for _ in in_flight:
        assert gate.reached.acquire(timeout=PATIENCE)
    waiting = [start(lambda: session.upscale(frame(2))) for _ in range(4)]
    closing = [start(session.close) for _ in range(2)]
    for result in waiting:
        with pytest.raises(EngineError, match="session is closed"):
            result()
    assert not gpu.closed
    gate.opened.set()
    for came in in_flight:
        np.testing.assert_array_equal(came(), nearest(special))
    for done in closing:
        done()
    close(gpu, session)


@pytest.mark.parametrize("seed", range(12))
def test_close_races_with_upscale(seed: int) -> None:
    gpu = SimulatedGpu(seed=seed)
    session = open_session(gpu)

    def run() -> int:
        for number in itertools.count():
            try:
                upscaled = session.upscale(frame(number, 6, 5 + number % 2))
            except EngineError as exc:
                if exc.message != "the session is closed":
                    raise
                return number
            np.testing.assert_array_equal(upscaled, nearest(frame(number, 6, 5 + number % 2)))
        raise AssertionError

    runs = [start(run) for _ in range(4)]
    while gpu.counts["launches"] < seed:
        pass
    close(gpu, session)
    assert sum(run() for run in runs) >= seed


def test_a_closed_session_refuses() -> None:
    gpu = SimulatedGpu()
    session = open_session(gpu)
    with session:
        session.upscale(frame(0))
    close(gpu, session)
    with pytest.raises(EngineError, match="the session is closed"):
        start(lambda: session.upscale(frame(0)))()


def test_a_hundred_sessions_leave_nothing() -> None:
    for number in range(100):
        gpu = SimulatedGpu(delay=0)
        session = open_session(gpu, 1 + number % 3)
        if number % 4:
            session.upscale(frame(number))
        close(gpu, session)


class InterruptAt:
    """Raises KeyboardInterrupt before the n-th line of lanes.py that this thread comes to."""

    def __init__(self, line: int) -> None:
        self.left = line
        self._source, _ = inspect.getsourcelines(lanes_module)
        self._seen: set[tuple[int, int]] = set()

    def __call__(self, at: FrameType, event: str, _: Any) -> Any:
        if at.f_code.co_filename != lanes_module.__file__:
            return None
        if event == "line":
            line = (id(at), at.f_lineno)
            leaves = self._source[at.f_lineno - 1].lstrip().startswith("with")
            # Python itself takes no signals between the end of a with block and its __exit__.
            if not (leaves and line in self._seen):
                self._seen.add(line)
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("warm", [False, True])
def test_an_interrupt_at_any_line_costs_nothing_but_the_frame(warm: bool) -> None:
    for line in itertools.count(1):
        gpu = SimulatedGpu(delay=0)
        session = open_session(gpu, 1)
        tracer = InterruptAt(line)

        def run(session: LaneSession = session, tracer: InterruptAt = tracer) -> bool:
            if warm:
                session.upscale(frame(1))
            sys.settrace(tracer)
            try:
                session.upscale(frame(2))
            except KeyboardInterrupt:
                return True
            finally:
                sys.settrace(None)
                np.testing.assert_array_equal(session.upscale(frame(3)), nearest(frame(3)))
                start(lambda: session.upscale(frame(4)))()
                start(session.close)()
            return False

        interrupted = start(run)()
        assert gpu.misuses == [], f"at line {line}"
        assert not any(gpu.alive().values()), f"at line {line}"
        if not interrupted:
            assert line > (25 if warm else 50)
            return
