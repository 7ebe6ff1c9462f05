"""Sessions against each other in one run: all in turn, round after round, and ratios by round."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime.session import Frames, Session

PERCENTILES = (50, 90, 99)


@dataclass
class Contestant:
    """A session with so many frames in flight, and what was measured of it.

    Attributes:
        session: What upscales.
        in_flight: Calls at a time.
        fps: Frames per second, one figure a round.
        milliseconds: Of every call.
    """

    session: Session
    in_flight: int = 1
    fps: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def warm_up(self, frames: Frames) -> Frames:
        """Let every lane see the shape; returns what came out."""
        with ThreadPoolExecutor(self.in_flight) as pool:
            upscaled = list(pool.map(self.session.upscale, [frames] * (2 * self.in_flight)))
        return upscaled[0]

    def run(self, frames: Frames, seconds: float) -> None:
        """One round: frames without a break for so long, one of each call in flight at least."""
        lock = threading.Lock()
        times: list[float] = []
        started = time.perf_counter()

        def work() -> None:
            while True:
                began = time.perf_counter()
                self.session.upscale(frames)
                now = time.perf_counter()
                with lock:
                    times.append((now - began) * 1e3)
                if now - started >= seconds:
                    return

        with ThreadPoolExecutor(self.in_flight) as pool:
            for done in [pool.submit(work) for _ in range(self.in_flight)]:
                done.result()
        self.fps.append(len(times) * len(frames) / (time.perf_counter() - started))
        self.milliseconds += times

    def figures(self) -> dict[str, Any]:
        """Frames per second and the time of a call, host to host."""
        found = np.percentile(self.milliseconds, PERCENTILES)
        times = {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}
        return {
            "in_flight": self.in_flight,
            "frames_per_second": statistics.median(self.fps),
            "rounds": list(self.fps),
            "milliseconds": times,
            "calls": len(self.milliseconds),
        }


def alternate(
    contestants: Mapping[str, Contestant], frames: Frames, seconds: float, rounds: int
) -> None:
    """Measure all of them in turn, ``seconds`` each over all rounds."""
    for _ in range(rounds):
        for contestant in contestants.values():
            contestant.run(frames, seconds / rounds)


def times_faster(ours: Contestant, other: Contestant) -> dict[str, Any]:
    """Frames per second over another's, round by round: above 1 is faster."""
    ratios = sorted(a / b for a, b in zip(ours.fps, other.fps, strict=True))
    return {"median": statistics.median(ratios), "range": [ratios[0], ratios[-1]]}
