"""Sessions on a simulated GPU, their frames, and how to see that nothing hangs or is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from simulated_gpu import PATIENCE, SimulatedExecution, SimulatedGpu
from srdeploy.runtime.nvinfer.lanes import LaneSession
from srdeploy.runtime.session import Frames

T = TypeVar("T")
MARK = 200  # first value of frames that something special happens to


def open_session(
    gpu: SimulatedGpu, lanes: int = 2, scale: int = 2, graphs: bool = True, **execution: Any
) -> LaneSession:
    executions = [SimulatedExecution(gpu, scale, **execution) for _ in range(lanes)]
    return LaneSession("simulated", scale, gpu, executions, graphs=graphs)


def frame(number: int, height: int = 6, width: int = 5, batch: int = 1) -> Frames:
    made = np.random.default_rng(number).integers(0, 256, (batch, height, width, 3), np.uint8)
    made[0, 0, 0, 0] = 0
    return made


def marked(number: int) -> Frames:
    made = frame(number)
    made[0, 0, 0, 0] = MARK
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
