"""Lanes on a simulated GPU: order, overlap, buffers, memory, errors of the library."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_gpu import PATIENCE, SimulatedExecution, SimulatedGpu
from simulated_session import MARK, close, frame, marked, nearest, open_session, start
from srdeploy.errors import EngineError, OutOfDeviceMemory
from srdeploy.runtime.nvinfer.lanes import Lane
from srdeploy.runtime.session import Frames


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [t for t in threading.enumerate() if t not in before] == []


@pytest.mark.parametrize("graphs", [True, False])
def test_each_thread_gets_its_own_frames_back(graphs: bool) -> None:
    gpu = SimulatedGpu()
    session = open_session(gpu, 3, graphs=graphs)
    frames = [frame(i) for i in range(120)]
    with ThreadPoolExecutor(5) as pool:
        for given_in, came in zip(frames, pool.map(session.upscale, frames), strict=True):
            np.testing.assert_array_equal(came, nearest(given_in))
    assert (gpu.counts["launches"] > 0) == session.captured == graphs
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
    pair = [marked(i) for i in range(2)]
    for _ in range(3):
        results = [start(lambda f=f: session.upscale(f)) for f in pair]  # type: ignore[misc]
        for given_in, result in zip(pair, results, strict=True):
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


def test_frames_that_fit_alone_never_fail_beside_others() -> None:
    """Two lanes take memory from each other and both fail: the one that stays tries again."""
    gpu = SimulatedGpu(memory=bytes_of(40, 40))
    session = open_session(gpu)
    both, granted, refused = threading.Barrier(2, timeout=PATIENCE), itertools.count(), []

    def at_allocate(is_granted: bool) -> None:
        if is_granted and next(granted) < 2:
            both.wait()  # each lane has its first block, so that neither gets its second
        if not is_granted:
            refused.append(True)
            until = time.monotonic() + PATIENCE
            while len(refused) == 2 and gpu.executions == 2 and time.monotonic() < until:
                time.sleep(0.001)  # the second hears of it when the first has retired

    gpu.at_allocate = at_allocate
    frames = [frame(i, 40, 40) for i in range(2)]
    results = [start(lambda f=f: session.upscale(f)) for f in frames]  # type: ignore[misc]
    for given_in, result in zip(frames, results, strict=True):
        np.testing.assert_array_equal(result(), nearest(given_in))
    assert len(refused) == 2
    assert session.parallel == gpu.executions == 1
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
    special = marked(0)
    with pytest.raises(EngineError, match="bad pixels"):
        session.upscale(special)
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
