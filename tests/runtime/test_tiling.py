from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from srdeploy.errors import EngineError
from srdeploy.runtime.session import Frames, Session
from srdeploy.runtime.tiling import upscale_tiled, windows


class BoxFilter(Session):
    """Zero-padded box filter of a radius, then nearest neighbour: exact in integers."""

    target = "test"

    def __init__(self, radius: int, scale: int) -> None:
        self.radius, self.scale = radius, scale
        self.shapes: set[tuple[int, ...]] = set()
        self.threads: set[str] = set()

    def _upscale(self, frames: Frames) -> Frames:
        self.shapes.add(frames.shape)
        self.threads.add(threading.current_thread().name)
        r = self.radius
        padded = np.pad(frames.astype(np.uint32), ((0, 0), (r, r), (r, r), (0, 0)))
        total: NDArray[np.uint32] = np.zeros(frames.shape, np.uint32)
        for y in range(2 * r + 1):
            for x in range(2 * r + 1):
                total += padded[:, y : y + frames.shape[1], x : x + frames.shape[2]]
        filtered = (total // (2 * r + 1) ** 2).astype(np.uint8)
        return filtered.repeat(self.scale, 1).repeat(self.scale, 2)


def noise(*shape: int) -> Frames:
    return np.random.default_rng(7).integers(0, 256, (*shape, 3)).astype(np.uint8)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    core=st.integers(1, 17),
    radius=st.integers(0, 4),
    spare=st.integers(0, 3),
    scale=st.sampled_from([1, 2, 3, 4]),
    count=st.integers(1, 2),
)
def test_tiles_with_a_wide_enough_halo_change_no_pixel(
    height: int, width: int, core: int, radius: int, spare: int, scale: int, count: int
) -> None:
    session = BoxFilter(radius, scale)
    frames = noise(count, height, width)
    halo = radius + spare
    whole = session.upscale(frames)
    session.shapes.clear()
    tiled = upscale_tiled(session, frames, core + 2 * halo, halo)
    np.testing.assert_array_equal(tiled, whole)
    # one shape only, and none above the tile
    tile = core + 2 * halo
    assert session.shapes == {(count, min(height, tile), min(width, tile), 3)}


def test_a_halo_that_is_too_small_is_seen() -> None:
    """The property above can fail: it is the halo that makes it true."""
    session, frames = BoxFilter(3, 2), noise(1, 40, 40)
    whole = session.upscale(frames)
    assert (upscale_tiled(session, frames, 16, 2) != whole).any()
    assert (upscale_tiled(session, frames, 16, 3) == whole).all()


@given(
    length=st.integers(1, 300),
    core=st.integers(1, 60),
    halo=st.integers(0, 30),
)
def test_cores_cover_every_pixel_once_inside_their_halos(length: int, core: int, halo: int) -> None:
    tile = core + 2 * halo
    cut = windows(length, tile, halo)
    covered = [i for w in cut for i in range(w.core_start, w.core_stop)]
    assert covered == list(range(length))
    for window in cut:
        assert 0 <= window.start <= window.core_start < window.core_stop <= window.stop <= length
        assert window.stop - window.start == min(tile, length)
        assert window.start == 0 or window.core_start - window.start >= halo
        assert window.stop == length or window.stop - window.core_stop >= halo
    # no more tiles than needed
    assert len(cut) == max(1, -(-(length - 2 * halo) // core))


def test_tiles_run_side_by_side_where_the_engine_gains_from_it() -> None:
    session, frames = BoxFilter(1, 2), noise(1, 64, 64)
    whole = session.upscale(frames)
    session.threads.clear()
    np.testing.assert_array_equal(upscale_tiled(session, frames, 12, 1, parallel=3), whole)
    assert threading.current_thread().name not in session.threads


def test_an_error_of_the_engine_comes_out_of_parallel_tiles() -> None:
    class Broken(BoxFilter):
        def _upscale(self, frames: Frames) -> Frames:
            raise EngineError("out of memory")

    with pytest.raises(EngineError, match="out of memory"):
        upscale_tiled(Broken(1, 2), noise(1, 64, 64), 12, 1, parallel=2)


def test_a_tile_without_a_core_is_refused_with_the_size_that_works() -> None:
    with pytest.raises(EngineError, match="no core") as caught:
        upscale_tiled(BoxFilter(8, 2), noise(1, 64, 64), 16, 8)
    assert "17 pixels" in caught.value.hint
    with pytest.raises(EngineError, match="halo from 0"):
        windows(10, 5, -1)
