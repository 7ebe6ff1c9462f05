"""Lanes on a simulated GPU: order, overlap, buffers, errors, and the end of a session."""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_gpu import PATIENCE, SimulatedExecution, SimulatedGpu
from srdeploy.errors import DeviceLost, EngineError, OutOfDeviceMemory
from srdeploy.runtime.nvinfer import lanes as lanes_module
from srdeploy.runtime.nvinfer.lanes import Lane, LaneSession
from srdeploy.runtime.session import Frames

T = TypeVar("T")
MARK = 200  # first value of frames that are to meet in the simulated execution


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [t for t in threading.enumerate() if t not in before] == []


def open_session(
    gpu: SimulatedGpu, lanes: int = 2, scale: int = 2, graphs: bool = True, **execution: Any
) -> LaneSession:
    executions = [SimulatedExecution(gpu, scale, **execution) for _ in range(lanes)]
    return LaneSession("simulated", scale, gpu, executions, graphs=graphs)


def frame(number: int, height: int = 6, width: int = 5, batch: int = 1) -> Frames:
    made = np.random.default_rng(number).integers(0, 256, (batch, height, width, 3), np.uint8)
    made[0, 0, 0, 0] = 0
    return made


def nearest(frames: Frames, scale: int = 2) -> Frames:
    return frames.repeat(scale, 1).repeat(scale, 2)


def start(work: Callable[[], T]) -> Callable[[], T]:
    """Begin in a thread; what is returned waits for the result, and fails where it hangs."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as exc:
            outcome.append((None, exc))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "hangs"
        value, error = outcome[0]
        if error is not None:
            raise error
        answer: T = value
        return answer

    return result


def close(gpu: SimulatedGpu, session: LaneSession) -> None:
    """Close, and see that everything was given back and nothing was done wrong."""
    start(session.close)()
    assert gpu.misuses == []
    assert not any(gpu.alive().values())
    assert gpu.closed


@pytest.mark.parametrize("graphs", [True, False])
def test_each_thread_gets_its_own_frames_back(graphs: bool) -> None:
    gpu = SimulatedGpu()
    session = open_session(gpu, 3, graphs=graphs)
    frames = [frame(i) for i in range(120)]
    with ThreadPoolExecutor(5) as pool:
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            np.testing.assert_array_equal(came, nearest(given_in))
    assert (gpu.counts["launches"] > 0) == graphs
    close(gpu, session)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


@given(
    order=st.lists(shapes, min_size=1, max_size=12),
    lanes=st.integers(1, 3),
    scale=st.integers(1, 4),
    graphs=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_order_of_shapes(
    order: list[tuple[int, int, int]], lanes: int, scale: int, graphs: bool, seed: int
) -> None:
    gpu = SimulatedGpu(seed=seed)
    session = open_session(gpu, lanes, scale, graphs, scratch=3)
    frames = [frame(i, h, w, n) for i, (n, h, w) in enumerate(order)]
    with ThreadPoolExecutor(3) as pool:
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            np.testing.assert_array_equal(came, nearest(given_in, scale))
    close(gpu, session)


@pytest.mark.parametrize("graphs", [True, False])
def test_two_lanes_compute_at_the_same_time(graphs: bool) -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE)  # broken where one comes after the other

    def meet(frames: Frames) -> None:
        if frames[0, 0, 0, 0] == MARK:
            meeting.wait()

    gpu = SimulatedGpu()
    session = open_session(gpu, at_compute=meet, graphs=graphs)
    marked = [frame(i) for i in range(2)]
    for each in marked:
        each[0, 0, 0, 0] = MARK
    for _ in range(3):
        results = [start(lambda f=f: session.upscale(f)) for f in marked]  # type: ignore[misc]
        for given_in, result in zip(marked, results, strict=True):
            np.testing.assert_array_equal(result(), nearest(given_in))
    close(gpu, session)


def test_no_more_frames_are_in_flight_than_there_are_lanes() -> None:
    computing, most, lock = 0, 0, threading.Lock()
    gpu = SimulatedGpu()

    def enter(stream: Any) -> None:
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)

    def leave(frames: Frames) -> None:
        nonlocal computing
        with lock:
            computing -= 1

    session = open_session(gpu, at_enqueue=enter, at_compute=leave, graphs=False)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(session.upscale, [frame(i) for i in range(80)]))
    assert 1 <= most <= 2
    close(gpu, session)


def test_buffers_are_made_once_for_ten_thousand_frames() -> None:
    gpu = SimulatedGpu(delay=0)
    session = open_session(gpu, 2)
    frames = [frame(i) for i in range(16)]
    expected = [nearest(each) for each in frames]

    def run(begin: int) -> None:
        for i in range(begin, 10_000, 4):
            assert (session.upscale(frames[i % 16]) == expected[i % 16]).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert gpu.counts["launches"] == 10_000
    assert gpu.counts["allocations"] <= 2 * 3
    assert gpu.counts["pinned"] <= 2 * 2
    assert gpu.counts["captures"] <= 2
    close(gpu, session)


def test_another_shape_is_captured_anew_and_frees_what_the_last_had() -> None:
    gpu = SimulatedGpu()
    session = open_session(gpu, 1)
    for number, size in enumerate([(6, 5), (6, 5), (4, 4), (6, 5)]):
        each = frame(number, *size)
        np.testing.assert_array_equal(session.upscale(each), nearest(each))
        assert gpu.alive() == {
            "memory": 3, "pinned": 2, "streams": 1, "graphs": 1, "executions": 1
        }  # fmt: skip
    assert gpu.counts["captures"] == 3
    close(gpu, session)


def test_work_that_cannot_be_captured_is_launched_piece_by_piece() -> None:
    def waits(stream: Any) -> None:
        if stream.recorded is not None:
            stream.wait()  # which no capture allows

    refused = SimulatedGpu(captures=False)
    waiting = SimulatedGpu()
    for gpu, session in (
        (refused, open_session(refused)),
        (waiting, open_session(waiting, at_enqueue=waits)),
    ):
        for number in range(3):
            np.testing.assert_array_equal(session.upscale(frame(number)), nearest(frame(number)))
        assert gpu.counts["captures"] == 1
        assert gpu.counts["launches"] == 0
        close(gpu, session)


def test_a_lane_says_whether_it_captured() -> None:
    for captures in (True, False):
        gpu = SimulatedGpu(captures=captures)
        with gpu.current():
            lane = Lane(gpu, SimulatedExecution(gpu), 2, graphs=True)
        lane.run(frame(1))
        assert lane.captured == captures
        assert lane.time(lambda stream: stream.handle) > 0
        with gpu.current():
            lane.close()
        gpu.close()
        assert gpu.misuses == []


def bytes_of(height: int, width: int, scale: int = 2) -> int:
    """Device memory of a lane for frames of a size, without scratch."""
    return height * width * 3 * (1 + scale**2) + 1


def test_a_lane_without_memory_retires_and_its_frame_goes_to_another() -> None:
    gpu = SimulatedGpu(memory=bytes_of(40, 40) * 3 // 2)
    session = open_session(gpu, 3)
    frames = [frame(i, 40, 40) for i in range(30)]
    with ThreadPoolExecutor(3) as pool:
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            np.testing.assert_array_equal(came, nearest(given_in))
    assert session.parallel == gpu.executions < 3
    close(gpu, session)


def test_the_last_lane_says_so_and_goes_on_with_smaller_frames() -> None:
    gpu = SimulatedGpu(memory=bytes_of(40, 40))
    session = open_session(gpu, 3)
    for _ in range(2):
        with pytest.raises(OutOfDeviceMemory, match="bytes needed"):
            session.upscale(frame(0, 80, 80))
        assert session.parallel == gpu.executions == 1
        assert not gpu.blocks
        assert not gpu.pins
    np.testing.assert_array_equal(session.upscale(frame(1, 40, 40)), nearest(frame(1, 40, 40)))
    close(gpu, session)


@pytest.mark.parametrize("seed", range(20))
def test_frames_that_fit_alone_never_fail_beside_others(seed: int) -> None:
    """Two lanes that take memory from each other both fail; one frame after the other fits."""
    gpu = SimulatedGpu(memory=bytes_of(40, 40), seed=seed)
    session = open_session(gpu, 4)
    frames = [frame(i, 40, 40) for i in range(4)]
    results = [start(lambda f=f: session.upscale(f)) for f in frames]  # type: ignore[misc]
    for given_in, result in zip(frames, results, strict=True):
        np.testing.assert_array_equal(result(), nearest(given_in))
    close(gpu, session)


@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.parametrize("error", [EngineError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("graphs", [True, False])
def test_an_error_of_the_library_costs_one_frame(
    call: int, error: type[BaseException], graphs: bool
) -> None:
    """At any call: the first run of a shape, its capture, and later ones."""
    calls = itertools.count(1)

    def fails(stream: Any) -> None:
        if next(calls) == call:
            raise error("no")

    gpu = SimulatedGpu()
    session = open_session(gpu, 1, at_enqueue=fails, graphs=graphs)
    failed = 0
    for number in range(10):
        each = frame(number, 6, 5 + number // 4)
        try:
            np.testing.assert_array_equal(session.upscale(each), nearest(each))
        except error as exc:
            assert str(exc) == "no"  # noqa: PT017
            failed += 1
    captures = graphs and call % 2 == 0  # where the library's refusal means plain launches
    assert failed == (0 if captures and error is EngineError else 1)
    assert next(calls) > call
    close(gpu, session)


def test_an_error_in_the_work_itself_is_the_frames_own() -> None:
    def fails(frames: Frames) -> None:
        if frames[0, 0, 0, 0] == MARK:
            raise ValueError("bad pixels")

    gpu = SimulatedGpu()
    session = open_session(gpu, at_compute=fails)
    marked = frame(0)
    marked[0, 0, 0, 0] = MARK
    with pytest.raises(EngineError, match="bad pixels"):
        session.upscale(marked)
    np.testing.assert_array_equal(session.upscale(frame(1)), nearest(frame(1)))
    close(gpu, session)


def test_frames_outside_the_profiles_leave_the_lane_usable() -> None:
    gpu = SimulatedGpu()
    session = open_session(gpu, 1)
    session.upscale(frame(0))
    with pytest.raises(EngineError, match="outside the engine's profiles"):
        session.upscale(frame(1, 2001, 1))
    np.testing.assert_array_equal(session.upscale(frame(2)), nearest(frame(2)))
    close(gpu, session)


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
    marked = frame(1)
    marked[0, 0, 0, 0] = MARK
    results = [start(lambda: session.upscale(marked)) for _ in range(6)]
    for result in results:
        with pytest.raises(DeviceLost, match="illegal memory access"):
            result()
    done = dict(gpu.counts)
    for _ in range(3):
        with pytest.raises(DeviceLost, match="illegal memory access") as caught:
            start(lambda: session.upscale(frame(2)))()
        assert "nvidia-smi" in caught.value.hint
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
    marked = frame(1)
    marked[0, 0, 0, 0] = MARK
    in_flight = [start(lambda: session.upscale(marked)) for _ in range(2)]
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
        np.testing.assert_array_equal(came(), nearest(marked))
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
        session = open_session(gpu)
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
