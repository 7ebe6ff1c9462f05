"""Upscaling in tiles, exactly: for frames larger than an engine or its memory takes.

Every tile is a window of the input that the engine sees with its halo; only the core of what
comes back is kept. With a halo of at least the network's receptive radius no pixel differs
from the run on the whole frame. At the frame's border a tile ends where the frame ends, so
that the zero padding of convolutions falls on the same pixels as in the whole run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np

from ..errors import EngineError
from .session import Frames, Session


class TiledSession(Session):
    """A session that always cuts: one call is a whole frame, whatever its tiles.

    Args:
        session: The engine; it is closed by this session.
        tile: Largest height and width that it sees, halo included.
        halo: Input pixels around each core.
    """

    def __init__(self, session: Session, tile: int, halo: int) -> None:
        self.scale, self.target, self.parallel = session.scale, session.target, session.parallel
        self.minimum_size = session.minimum_size
        self._session, self._tile, self._halo = session, tile, halo

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the engine."""
        return self._session.notes

    def _upscale(self, frames: Frames) -> Frames:
        return upscale_tiled(self._session, frames, self._tile, self._halo)

    def close(self) -> None:
        """Close the engine."""
        self._session.close()


@dataclass(frozen=True)
class Window:
    """One tile along one axis, in input pixels, ends excluded.

    Attributes:
        start: First pixel that the engine sees.
        stop: One past the last pixel that it sees.
        core_start: First pixel whose output is kept.
        core_stop: One past the last pixel whose output is kept.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int


def windows(length: int, tile: int, halo: int) -> tuple[Window, ...]:
    """Cut ``length`` pixels into windows of one size, ``min(tile, length)``.

    The cores cover every pixel once, and lie ``halo`` pixels or more inside their window
    except where the window ends with the frame. The last window is shifted inwards, so that
    the engine sees one shape.

    Raises:
        EngineError: A tile of this size has no core between its halos.
    """
    if halo < 0 or tile < 1:
        raise EngineError(f"a tile needs a size above 0 and a halo from 0, got {tile} and {halo}")
    if length <= tile:
        return (Window(0, length, 0, length),)
    step = tile - 2 * halo
    if step < 1:
        raise EngineError(
            f"a tile of {tile} pixels has no core between halos of {halo}",
            f"use tiles of {2 * halo + 1} pixels or more; {8 * halo} waste little",
        )
    count = -(-(length - tile) // step) + 1
    starts = [min(i * step, length - tile) for i in range(count)]
    edges = [0, *(start + tile - halo for start in starts[:-1]), length]
    return tuple(
        Window(start, start + tile, edges[i], edges[i + 1]) for i, start in enumerate(starts)
    )


def upscale_tiled(
    session: Session, frames: Frames, tile: int | tuple[int, int], halo: int, parallel: int = 1
) -> Frames:
    """Upscale frames in tiles of at most ``tile`` input pixels.

    Args:
        session: The engine.
        frames: N×H×W×3 uint8 RGB.
        tile: Largest height and width that the engine sees, halo included; one number for
            both.
        halo: Input pixels around each core that the engine sees too; exact from the
            network's receptive radius on.
        parallel: Tiles in flight at once.

    Returns:
        N×(sH)×(sW)×3 uint8 RGB.

    Raises:
        EngineError: The tile has no core between its halos, or the engine failed.
    """
    _, height, width, _ = frames.shape
    rows_of, columns_of = (tile, tile) if isinstance(tile, int) else tile
    grid = list(product(windows(height, rows_of, halo), windows(width, columns_of, halo)))
    if len(grid) == 1:
        return session.upscale(frames)
    scale = session.scale
    upscaled = np.empty((frames.shape[0], height * scale, width * scale, 3), np.uint8)

    def run(rows: Window, columns: Window) -> None:
        seen = frames[:, rows.start : rows.stop, columns.start : columns.stop]
        core = session.upscale(seen)[:, _core(rows, scale), _core(columns, scale)]
        upscaled[:, _kept(rows, scale), _kept(columns, scale)] = core

    if parallel <= 1:
        for rows, columns in grid:
            run(rows, columns)
        return upscaled
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="tile")
    try:
        for future in [pool.submit(run, rows, columns) for rows, columns in grid]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return upscaled


def _core(window: Window, scale: int) -> slice:
    """Where the core lies in the window's output."""
    return slice(
        (window.core_start - window.start) * scale, (window.core_stop - window.start) * scale
    )


def _kept(window: Window, scale: int) -> slice:
    """Where the core lies in the frame's output."""
    return slice(window.core_start * scale, window.core_stop * scale)
