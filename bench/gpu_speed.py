"""Speed of an engine with one, two and three lanes against its rivals, alternating, at one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from .. import data
from ..runtime import gpu_facts
from ..runtime.nvinfer.lanes import LaneSession
from ..runtime.session import Frames, Session
from ..validate.drift import PSNR_CAP
from ..validate.metrics import luma, psnr
from .alternating import Contestant, alternate, times_faster
from .built import Engine
from .recording import FAILED, NOT_RUN, NotRun, attempt
from .roofline import floor

LANES = (1, 2, 3)
MEBI = 1 << 20

Opener = Callable[[], Session]


def frame_of(width: int, height: int) -> Frames:
    """A bundled photograph, repeated to fill a frame: 1×H×W×3."""
    pixels = data.pictures("proof")[0].read()
    down, across = -(-height // pixels.shape[0]), -(-width // pixels.shape[1])
    return np.ascontiguousarray(np.tile(pixels, (down, across, 1))[None, :height, :width])


def speed(
    engine: Engine,
    rivals: Mapping[str, Opener],
    size: tuple[int, int],
    seconds: float,
    rounds: int,
    on_gpu: bool,
    limits: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure an engine and its rivals in one run.

    Args:
        engine: Ours.
        rivals: What opens each of the others.
        size: Width and height of the frames.
        seconds: Of each contestant over all rounds.
        rounds: Of all of them in turn.
        on_gpu: Whether they run on a GPU, whose memory then counts.
        limits: Of :func:`~.roofline.ceilings`, or why there are none.
    """
    frames = frame_of(*size)
    ours = [f"{engine.target.name}, {lanes} in flight" for lanes in LANES]
    found: dict[str, Any] = {"contestants": {}, "times_faster": {}}
    with ExitStack() as stack:
        running: dict[str, Contestant] = {}
        outputs: dict[str, Frames] = {}

        def enter(name: str, opener: Opener, in_flight: int) -> dict[str, Any]:
            before = gpu_facts.free_memory() if on_gpu else 0
            contestant = Contestant(stack.enter_context(opener()), in_flight)
            outputs[name] = contestant.warm_up(frames)
            running[name] = contestant
            after = gpu_facts.free_memory() if on_gpu else 0
            return {"gpu_memory_mib": (before - after) / MEBI if on_gpu else None}

        openers: list[tuple[str, Opener, int]] = [
            (name, lambda n=lanes: engine.open(n), lanes)  # type: ignore[misc]
            for name, lanes in zip(ours, LANES, strict=True)
        ]
        openers += [(name, opener, 1) for name, opener in rivals.items()]
        for opening in openers:
            found["contestants"][opening[0]] = attempt(lambda o=opening: enter(*o))  # type: ignore[misc]
        alternate(running, frames, seconds, rounds)
        for name, contestant in running.items():
            found["contestants"][name] |= contestant.figures()
        found["times_faster"] = _ratios(ours, running)
        found["agreement_db"] = _agreement(ours, outputs)
    found["roofline"] = attempt(lambda: _roofline(engine, size, limits, ours, running))
    return found


def _ratios(ours: Sequence[str], running: Mapping[str, Contestant]) -> dict[str, Any]:
    """Each of ours over each rival."""
    return {
        name: {
            other: times_faster(running[name], rival)
            for other, rival in running.items()
            if other not in ours
        }
        for name in ours
        if name in running
    }


def _agreement(ours: Sequence[str], outputs: Mapping[str, Frames]) -> dict[str, float]:
    """PSNR on Y of each rival's frame against ours: whether it computes the same picture."""
    first = next((outputs[name] for name in ours if name in outputs), None)
    if first is None:
        return {}
    return {
        name: min(psnr(luma(frames[0]), luma(first[0])), PSNR_CAP)
        for name, frames in outputs.items()
        if frames is not first
    }


def _roofline(
    engine: Engine,
    size: tuple[int, int],
    limits: Mapping[str, Any],
    ours: Sequence[str],
    running: Mapping[str, Contestant],
) -> dict[str, Any]:
    """The least time of a frame, and what share of our time a frame it is."""
    if reason := limits.get(NOT_RUN) or limits.get(FAILED):
        raise NotRun(f"no ceilings were measured: {reason}")
    width, height = size
    least: dict[str, Any] = floor(engine.graph, height, width, limits)
    shares = {}
    for name in ours:
        if name in running:
            fps = running[name].figures()["frames_per_second"]
            shares[name] = least["floor_ms"] * fps / 1e3
    return least | {"share": shares}


def graphs(engine: Engine, size: tuple[int, int], seconds: float, rounds: int) -> dict[str, Any]:
    """Frames launched as a CUDA graph against frames launched one by one, with one lane.

    Raises:
        NotRun: The target has no lanes.
        SrDeployError: The engine cannot be run.
    """
    frames = frame_of(*size)
    with engine.open_lane(graphs=True) as launched, engine.open_lane(graphs=False) as plain:
        contestants = {"graph": Contestant(launched), "plain": Contestant(plain)}
        by_graph, by_plain = (c.warm_up(frames) for c in contestants.values())
        assert isinstance(launched, LaneSession)
        captured = launched.captured
        alternate(contestants, frames, seconds, rounds)
        return {
            "captured": captured,
            "bit_identical": bool(np.array_equal(by_graph, by_plain)),
            **{name: contestant.figures() for name, contestant in contestants.items()},
            "graph_times_faster": times_faster(contestants["graph"], contestants["plain"]),
        }
