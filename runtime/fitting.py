"""Frames of any size through an engine that takes some sizes only.

What does not fit is cut into exact tiles, split into smaller batches, or mirrored at its right
and bottom edge; what cannot be made to fit is an error before anything is launched. A GPU that
runs out of memory gets smaller pieces from then on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import EngineError, OutOfDeviceMemory
from ..spec import Manifest, ShapeRange
from .session import Frames, Session
from .tiling import upscale_tiled, windows

_NO_LIMIT = 1 << 30
ANY_SHAPE = ShapeRange((1, 1), (1, 1), (_NO_LIMIT, _NO_LIMIT), (1, 1, _NO_LIMIT))
# Least core of a tile that is made for want of memory: a few pixels between wide halos would
# be right too, and take hours.
LEAST_CORE = 16


@dataclass(frozen=True)
class Plan:
    """How frames of one size go through an engine.

    Attributes:
        padded: Height and width of a frame once it is mirrored.
        tile: Largest height and width of a window of it.
        halo: Input pixels around the core of a tile.
        batch: Most frames of a call.
        least_batch: Fewest frames of a call.
        work: Pixels of all calls.
        calls: How many there are.
    """

    padded: tuple[int, int]
    tile: tuple[int, int]
    halo: int
    batch: int
    least_batch: int
    work: int
    calls: int

    @property
    def pixels(self) -> int:
        """Of the largest call."""
        return self.batch * math.prod(self.tile)


class FittingSession(Session):
    """Wraps a session so that any frame goes through, or is refused before it starts.

    Args:
        session: The engine.
        manifest: Its manifest: the profiles, and what the network sees.
        bound: Whether the engine takes the sizes of its profiles only; one whose profiles are
            all static always does.
        exact: Whether frames are cut only where that changes no pixel. Without it two sessions
            can be compared on the same windows.

    Attributes:
        notes: What was done to frames that did not fit, one sentence each.
    """

    def __init__(
        self, session: Session, manifest: Manifest, bound: bool = False, exact: bool = True
    ) -> None:
        self.scale, self.target, self.parallel = session.scale, session.target, session.parallel
        self._session, self._network = session, manifest.model
        self._name, self._exact = manifest.engine_file, exact
        self._profiles: Sequence[ShapeRange] = manifest.build.profiles
        if not bound and not all(profile.is_static for profile in self._profiles):
            self._profiles = (ANY_SHAPE,)
        self._most_pixels = _NO_LIMIT**2
        self._notes: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to frames that did not fit, one sentence each."""
        with self._lock:
            return (*self._notes.values(), *self._session.notes)

    def close(self) -> None:
        """Close the engine."""
        self._session.close()

    def _upscale(self, frames: Frames) -> Frames:
        while True:
            plan = self._plan(frames)
            try:
                return self._run(plan, frames)
            except OutOfDeviceMemory as exc:
                self._take_less(plan, frames, exc)

    def _run(self, plan: Plan, frames: Frames) -> Frames:
        count, height, width, _ = frames.shape
        mirrored = self._mirrored(frames, plan)
        upscaled = [
            self._run_batch(plan, mirrored[first : first + plan.batch])
            for first in range(0, count, plan.batch)
        ]
        whole = upscaled[0] if len(upscaled) == 1 else np.concatenate(upscaled)
        return np.ascontiguousarray(whole[:, : height * self.scale, : width * self.scale])

    def _run_batch(self, plan: Plan, frames: Frames) -> Frames:
        count = len(frames)
        if count < plan.least_batch:
            frames = np.concatenate([frames, *[frames[-1:]] * (plan.least_batch - count)])
        return upscale_tiled(self._session, frames, plan.tile, plan.halo)[:count]

    def _mirrored(self, frames: Frames, plan: Plan) -> Frames:
        height, width = frames.shape[1:3]
        below, right = plan.padded[0] - height, plan.padded[1] - width
        if plan.tile != plan.padded:
            self._note(
                "tiles",
                f"frames of {width}×{height} were cut into tiles of {plan.tile[1]}×{plan.tile[0]}",
            )
        if not below and not right:
            return frames
        self._note(
            "padding",
            f"frames of {width}×{height} were mirrored at their edges to the"
            f" {plan.padded[1]}×{plan.padded[0]} that the engine takes: {self._changed()}",
        )
        return np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")

    def _changed(self) -> str:
        if self._network.global_operation:
            return "this changes the result a little, as the network sees the whole frame at once"
        reach = self._network.receptive_radius
        return f"up to {reach} pixels from the right and bottom edge the result differs a little"

    def _note(self, kind: str, sentence: str) -> None:
        """Keep the first sentence of a kind."""
        with self._lock:
            self._notes.setdefault(kind, sentence)

    def _plan(self, frames: Frames) -> Plan:
        """The plan that pads least and then works least.

        Raises:
            EngineError: No profile takes such frames.
        """
        plan = self._best(frames, self._most_pixels)
        if plan is None:
            raise self._outside(*frames.shape[1:3])
        return plan

    def _best(self, frames: Frames, most: int) -> Plan | None:
        count, height, width, _ = frames.shape
        plans = [self._fit(p, count, (height, width), most) for p in self._profiles]
        return min(
            (plan for plan in plans if plan is not None),
            key=lambda p: (p.pixels > most, p.padded != (height, width), p.work, p.calls),
            default=None,
        )

    def _fit(
        self, profile: ShapeRange, count: int, size: tuple[int, int], most: int
    ) -> Plan | None:
        """How frames fit into a profile with calls of at most ``most`` pixels if possible."""
        least = [max(edge, self._network.minimum_size) for edge in profile.minimum]
        padded = max(size[0], least[0]), max(size[1], least[1])
        tile = min(padded[0], profile.maximum[0]), min(padded[1], profile.maximum[1])
        least_batch, _, largest_batch = profile.batches
        batch = min(max(count, least_batch), largest_batch)
        while batch > least_batch and batch * math.prod(tile) > most:
            batch = max(least_batch, batch // 2)
        while batch * math.prod(tile) > most:
            smaller = self._smaller(tile, least)
            if smaller == tile:
                break
            tile = smaller
        halo = self._halo(tile)
        if any(edge < whole and edge <= 2 * halo for edge, whole in zip(tile, padded, strict=True)):
            return None
        if tile != padded and self._network.global_operation and self._exact:
            return None
        tiles = math.prod(
            len(windows(whole, edge, halo)) for edge, whole in zip(tile, padded, strict=True)
        )
        calls = tiles * -(-count // batch)
        return Plan(padded, tile, halo, batch, least_batch, calls * batch * math.prod(tile), calls)

    def _halo(self, tile: tuple[int, int]) -> int:
        reach = self._network.receptive_radius
        return reach if self._exact else min(reach, min(tile) // 4)

    def _smaller(self, tile: tuple[int, int], least: Sequence[int]) -> tuple[int, int]:
        """A tile of about half the area, or the same where there is none."""
        if self._network.global_operation and self._exact:
            return tile
        multiple, reach = self._network.size_multiple, self._halo(tile)
        floor = 2 * reach + max(LEAST_CORE, reach // 2)
        for axis in sorted((0, 1), key=lambda axis: -tile[axis]):
            half = tile[axis] // 2 // multiple * multiple
            edge = max(half, floor, least[axis])
            if edge < tile[axis]:
                return (edge, tile[1]) if axis == 0 else (tile[0], edge)
        return tile

    def _take_less(self, failed: Plan, frames: Frames, error: OutOfDeviceMemory) -> None:
        """Let calls be half as large from now on.

        Raises:
            OutOfDeviceMemory: There is nothing smaller.
        """
        most = failed.pixels // 2
        smaller = self._best(frames, most)
        if smaller is None or smaller.pixels >= failed.pixels:
            raise self._too_large(error) from error
        with self._lock:
            # two calls in flight that failed alike ask for the same
            self._most_pixels = min(self._most_pixels, max(most, smaller.pixels))
            height, width = smaller.tile
            frames_at_once = f"{smaller.batch} frames" if smaller.batch > 1 else "one frame"
            self._notes["memory"] = (
                f"the GPU's memory ran out: from then on {frames_at_once} at a time went through"
                f" in pieces of at most {width}×{height}"
            )

    def _too_large(self, error: OutOfDeviceMemory) -> OutOfDeviceMemory:
        if not self._network.global_operation:
            return error
        return OutOfDeviceMemory(
            f"{error.message}; {self._network.variant} sees the whole frame at once, so it is not"
            " cut into tiles unasked",
            "--tile 256 cuts it, which changes the result; or close what else uses the GPU",
        )

    def _outside(self, height: int, width: int) -> EngineError:
        """Why frames of a size fit into no profile, and what to build for them."""
        first = self._profiles[0]
        reason = f"has no core in tiles of that size (it sees {self._network.receptive_radius}"
        reason += " pixels around each)"
        if self._network.global_operation:
            reason = "sees the whole frame at once, so that tiles would change the result"
        listed = " and ".join(map(str, self._profiles))
        shapes = f"{height}x{width}"
        if not first.is_static:
            low = min(first.minimum[0], height), min(first.minimum[1], width)
            high = max(first.maximum[0], height), max(first.maximum[1], width)
            sizes = (low, first.optimum, high)
            shapes = ",".join(f"{edges[0]}x{edges[1]}" for edges in sizes)
        elif len(self._profiles) == 1:
            shapes += ", from an ONNX exported without --static"
        return EngineError(
            f"a frame of {width}×{height} is a shape outside the profile {listed} of {self._name},"
            f" and {self._network.variant} {reason}",
            f"srdeploy build-engine --shapes {shapes}",
        )
