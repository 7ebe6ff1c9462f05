"""A whole run over lanes of a simulated GPU: order, bounds, a lost device, an interrupt."""

from __future__ import annotations

import _thread
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from simulated_gpu import SimulatedExecution, SimulatedGpu
from srdeploy.errors import DeviceLost
from srdeploy.runtime.nvinfer.lanes import LaneSession
from srdeploy.runtime.video import VideoOptions, upscale_video

FAST = VideoOptions(preset="ultrafast")
LANES = 3


@pytest.fixture
def clip(tmp_path: Path, write_clip: Any) -> Path:
    made: Path = write_clip(tmp_path / "clip.mp4", count=60, audio="aac", size=(96, 64))
    return made


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def open_session(gpu: SimulatedGpu, **execution: Any) -> LaneSession:
    executions = [SimulatedExecution(gpu, **execution) for _ in range(LANES)]
    return LaneSession("simulated", 2, gpu, executions)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_all_frames_come_in_order_and_few_are_in_flight(
    tmp_path: Path, clip: Path, Repeat: Any, shown: Any
) -> None:
    gpu = SimulatedGpu()
    with open_session(gpu) as session:
        result = upscale_video(clip, tmp_path / "out.mp4", session, FAST)
    upscale_video(clip, tmp_path / "expected.mp4", Repeat(2), FAST)
    expected = pictures(tmp_path / "expected.mp4")
    assert result.frames == len(expected) == 60
    for came, wanted in zip(pictures(tmp_path / "out.mp4"), expected, strict=True):
        np.testing.assert_array_equal(came, wanted)
    assert shown(tmp_path / "out.mp4") == shown(clip)
    assert result.peak_in_flight <= 2 * LANES + 1
    assert gpu.counts["allocations"] <= 3 * LANES
    assert gpu.misuses == []
    assert not any(gpu.alive().values())


@pytest.mark.parametrize("at", [1, 30])
def test_a_device_that_is_lost_stops_the_run(tmp_path: Path, clip: Path, at: int) -> None:
    gpu, number = SimulatedGpu(), itertools.count(1)

    def lose(_: object) -> None:
        if next(number) == at:
            gpu.lose()

    output = tmp_path / "out.mp4"
    with (
        pytest.raises(DeviceLost, match="illegal memory access"),
        open_session(gpu, at_compute=lose) as session,
    ):
        upscale_video(clip, output, session, FAST)
    assert not output.exists()
    assert gpu.misuses == []
    assert gpu.closed


def test_an_interrupt_stops_the_run_and_the_session_is_closed(tmp_path: Path, clip: Path) -> None:
    gpu, number = SimulatedGpu(), itertools.count(1)

    def interrupt(_: object) -> None:
        call = next(number)
        if call == 20:
            _thread.interrupt_main()
        if call >= 20:
            threading.Event().wait(0.02)

    output = tmp_path / "out.mp4"
    output.write_bytes(b"before")
    with (
        pytest.raises(KeyboardInterrupt),
        open_session(gpu, at_compute=interrupt) as session,
    ):
        upscale_video(clip, output, session, FAST)
    assert output.read_bytes() == b"before"
    assert next(number) < 60
    assert gpu.misuses == []
    assert not any(gpu.alive().values())
