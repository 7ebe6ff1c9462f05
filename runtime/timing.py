"""Times of sessions that are compared: frames taken in turn, so that all see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from .session import Session

ROUNDS = 7


def median_times(
    sessions: Sequence[Session], shape: tuple[int, int, int], rounds: int = ROUNDS
) -> list[float]:
    """Median milliseconds a frame of each session; see :func:`timed_rounds`."""
    times = timed_rounds(sessions, shape, rounds)
    return [statistics.median(own) / shape[0] for own in zip(*times, strict=True)]


def timed_rounds(
    sessions: Sequence[Session],
    shape: tuple[int, int, int],
    rounds: int = ROUNDS,
    done: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Milliseconds of each session in rounds in which each takes its turn.

    Args:
        sessions: Open; each is warmed up first.
        shape: Frames at a time, their height and width in pixels.
        rounds: How often each is timed.
        done: Told how many are warm.
    """
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for warm, session in enumerate(sessions, start=1):
        session.upscale(frames)
        if done:
            done(warm)
    return [[_time(session, frames) for session in sessions] for _ in range(rounds)]


def _time(session: Session, frames: np.ndarray) -> float:
    started = time.perf_counter()
    session.upscale(frames)
    return (time.perf_counter() - started) * 1e3
