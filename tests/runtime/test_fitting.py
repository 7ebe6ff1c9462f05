"""Frames of any size through an engine of some sizes: the same pixels, or an error before."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import EngineError, OutOfDeviceMemory
from srdeploy.export.pixels import with_pixels
from srdeploy.export.sizes import fix_size
from srdeploy.runtime.engine import open_engine, write_engine
from srdeploy.runtime.fitting import FittingSession
from srdeploy.runtime.session import Frames, Session
from srdeploy.runtime.targets import open_target
from srdeploy.spec import BuildConfig, Manifest, ModelSpec, Precision, ShapeRange

RADIUS = 2


class Device(Session):
    """A box filter on a GPU: takes what its profiles hold, and as many pixels as fit in memory."""

    target = "device"

    def __init__(self, *profiles: ShapeRange, memory: int = 1 << 60, scale: int = 2) -> None:
        self.scale, self.profiles, self.memory = scale, profiles, memory
        self.calls: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()

    def _upscale(self, frames: Frames) -> Frames:
        count, height, width, _ = frames.shape
        with self._lock:
            self.calls.append((count, height, width))
        held = [p.holds(count, height, width) for p in self.profiles]
        assert any(held or [True]), f"launched with {frames.shape}"
        if frames[..., 0].size > self.memory:
            raise OutOfDeviceMemory(f"{frames.shape} do not fit")
        r = RADIUS
        padded = np.pad(frames.astype(np.uint32), ((0, 0), (r, r), (r, r), (0, 0)))
        total = np.zeros(frames.shape, np.uint32)
        for y in range(2 * r + 1):
            for x in range(2 * r + 1):
                total += padded[:, y : y + height, x : x + width]
        filtered = (total // (2 * r + 1) ** 2).astype(np.uint8)
        return filtered.repeat(self.scale, 1).repeat(self.scale, 2)


def fitting(device: Device, bound: bool = True, exact: bool = True, **facts) -> FittingSession:
    spec = ModelSpec("net", "net-x2", 2, RADIUS, **facts)
    profiles = device.profiles or (ShapeRange(),)
    build = BuildConfig("", "device", "1", Precision.FP32, profiles=profiles)
    return FittingSession(device, Manifest(build, spec, "", "net.engine", ""), bound, exact)


def noise(*shape: int) -> Frames:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def profile(low, high, batches=(1, 1, 1)) -> ShapeRange:
    return ShapeRange(low, low, high, batches)


@given(
    low=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    extra=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    batches=st.tuples(st.integers(1, 3), st.integers(0, 3)),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 40), st.integers(1, 40)),
)
def test_every_frame_is_the_one_of_the_whole_run(low, extra, batches, shape) -> None:
    """Larger frames and other batches change no pixel; smaller ones only those near two edges."""
    high = low[0] + extra[0], low[1] + extra[1]
    held = profile(low, high, (batches[0], batches[0], sum(batches)))
    device = Device(held)
    session, frames = fitting(device), noise(*shape)
    height, width = shape[1:]
    has_core = all(
        edge <= most or most > 2 * RADIUS for edge, most in zip((height, width), high, strict=True)
    )
    if not has_core:
        with pytest.raises(EngineError, match="outside the profile"):
            session.upscale(frames)
        assert not device.calls, "refused before anything was launched"
        return
    upscaled = session.upscale(frames)
    expected = Device().upscale(frames)
    below = height if low[0] <= height else max(height - RADIUS, 0)
    right = width if low[1] <= width else max(width - RADIUS, 0)
    kept = np.s_[:, : below * 2, : right * 2]
    np.testing.assert_array_equal(upscaled[kept], expected[kept])
    padded = height < low[0] or width < low[1]
    assert any("mirrored" in note for note in session.notes) == padded
    assert any("tiles" in note for note in session.notes) == (height > high[0] or width > high[1])


def test_small_frames_are_mirrored_as_often_as_it_takes() -> None:
    device = Device(ShapeRange.static(9, 12))
    frame = noise(1, 2, 1)
    upscaled = fitting(device).upscale(frame)
    whole = np.pad(frame, ((0, 0), (0, 7), (0, 11), (0, 0)), mode="reflect")
    assert device.calls == [(1, 9, 12)]
    np.testing.assert_array_equal(upscaled, Device().upscale(whole)[:, :4, :2])


def test_the_profile_that_pads_least_and_works_least_is_taken() -> None:
    device = Device(ShapeRange.static(64, 64), profile((8, 8), (32, 32)), ShapeRange.static(8, 8))
    session = fitting(device)
    for size, calls in [
        ((8, 8), {(1, 8, 8)}),
        ((20, 30), {(1, 20, 30)}),
        ((64, 64), {(1, 64, 64)}),
        ((40, 40), {(1, 32, 32)}),
        ((4, 4), {(1, 8, 8)}),
    ]:
        device.calls.clear()
        session.upscale(noise(1, *size))
        assert set(device.calls) == calls


def test_batches_are_split_and_filled() -> None:
    device = Device(profile((8, 8), (16, 16), (2, 2, 4)))
    frames = noise(9, 8, 8)
    np.testing.assert_array_equal(fitting(device).upscale(frames), Device().upscale(frames))
    assert [call[0] for call in device.calls] == [4, 4, 2]


def test_a_network_that_sees_all_is_not_tiled_unasked() -> None:
    device = Device(profile((8, 8), (16, 16)))
    with pytest.raises(EngineError, match="sees the whole frame at once") as caught:
        fitting(device, global_operation=True).upscale(noise(1, 40, 30))
    assert "30×40" in caught.value.message
    assert "16×16" in caught.value.message
    assert "--shapes 8x8,8x8,40x30" in caught.value.hint
    assert not device.calls
    # but both sides of a comparison may see the same windows
    assert fitting(device, exact=False, global_operation=True).upscale(noise(1, 40, 30)).shape == (
        1,
        80,
        60,
        3,
    )


def test_an_engine_that_is_not_bound_takes_all_sizes_but_static_ones_never_do() -> None:
    device = Device()
    assert fitting(device, bound=False).upscale(noise(1, 3, 2000)).shape == (1, 6, 4000, 3)
    assert device.calls == [(1, 3, 2000)]
    static = Device(ShapeRange.static(16, 24))
    fitting(static, bound=False).upscale(noise(1, 30, 30))
    assert set(static.calls) == {(1, 16, 24)}
    network = fitting(device, bound=False, minimum_size=9)
    device.calls.clear()
    network.upscale(noise(1, 3, 20))
    assert device.calls == [(1, 9, 20)], "the network's own least size"


@given(
    memory=st.integers(400, 20_000),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 60), st.integers(1, 60)),
)
def test_out_of_memory_takes_smaller_pieces_from_then_on(memory, shape) -> None:
    least = (2 * RADIUS + 16) ** 2
    device = Device(memory=max(memory, least))
    session, frames = fitting(device, bound=False), noise(*shape)
    expected = Device().upscale(frames)
    np.testing.assert_array_equal(session.upscale(frames), expected)
    ran_out = shape[0] * shape[1] * shape[2] > device.memory
    assert len(session.notes) - any("tiles" in n for n in session.notes) == ran_out
    device.calls.clear()
    np.testing.assert_array_equal(session.upscale(frames), expected)
    assert all(n * h * w <= device.memory for n, h, w in device.calls), "remembered"


def test_what_does_not_fit_at_its_smallest_is_an_error() -> None:
    with pytest.raises(OutOfDeviceMemory, match="do not fit") as caught:
        fitting(Device(memory=300), bound=False).upscale(noise(4, 64, 64))
    assert "--tile" in caught.value.hint
    static = Device(ShapeRange.static(32, 32), memory=1000)
    with pytest.raises(OutOfDeviceMemory):
        fitting(static).upscale(noise(1, 32, 32))
    assert len(static.calls) == 1
    network = fitting(Device(memory=1000), bound=False, global_operation=True)
    assert network.upscale(noise(3, 30, 30)).shape == (3, 60, 60, 3), "frame by frame is exact"
    with pytest.raises(OutOfDeviceMemory, match="not cut into tiles unasked") as caught:
        network.upscale(noise(1, 64, 64))
    assert "changes the result" in caught.value.hint


def test_tiles_for_want_of_memory_keep_to_the_multiple_and_the_profile() -> None:
    device = Device(profile((24, 8), (100, 100)), memory=1000)
    session = fitting(device, size_multiple=8)
    frames = noise(1, 100, 100)
    np.testing.assert_array_equal(session.upscale(frames), Device().upscale(frames))
    _, height, width = device.calls[-1]
    assert height * width <= 1000
    assert height >= 24


def test_several_threads_share_what_was_learned() -> None:
    device = Device(memory=2000)
    session, frames = fitting(device, bound=False), noise(1, 64, 64)
    expected = Device().upscale(frames)
    with ThreadPoolExecutor(4) as pool:
        for upscaled in pool.map(lambda _: session.upscale(frames), range(8)):
            np.testing.assert_array_equal(upscaled, expected)
    assert sum("memory" in note for note in session.notes) == 1
    # four that failed at once halve it once
    assert min(h * w for _, h, w in device.calls) > 500


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_are_opened_so(exported, tmp_path: Path, name: str) -> None:
    """A real engine of one size gives what the one of all sizes gives."""
    model, spec = exported
    target = open_target(name)
    halo = 2 * spec.receptive_radius
    size = (halo + 16, halo + 24)
    opened = []
    for shapes in (ShapeRange(), ShapeRange.static(*size)):
        graph = fix_size(model, (1, *size), spec.scale) if shapes.is_static else model
        config = BuildConfig("", target.name, target.version(), Precision.FP32, profiles=(shapes,))
        content = target.build(with_pixels(graph).SerializeToString(), config).content
        path = tmp_path / f"{shapes.is_static}.engine"
        sha256 = hashlib.sha256(content).hexdigest()
        write_engine(path, content, Manifest(config, spec, sha256, path.name, "CPU"))
        opened.append(open_engine(path)[0])
    free, static = opened
    frames = noise(2, size[0] + 30, size[1] + 5)
    apart = np.abs(static.upscale(frames).astype(int) - free.upscale(frames))
    assert apart.max() <= 1, "float32 rounds otherwise at another size"
    small = noise(1, 40, 30)
    assert static.upscale(small).shape == free.upscale(small).shape
    assert len(static.notes) == 2
    assert free.notes == ()
    for session in opened:
        session.close()
