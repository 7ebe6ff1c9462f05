"""Engines on a GPU at work: shapes, memory, lanes, graphs, stale files, whole videos."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from gpu_cases import (
    BACKENDS,
    CPU,
    SHAPES,
    SMALLEST,
    device_filled,
    engine_of,
    memory_in_use,
    noise,
    open_backend,
)
from srdeploy.bench.built import Backend
from srdeploy.bench.gpu_speed import graphs
from srdeploy.bench.recording import NotRun
from srdeploy.data.demo_clip import make_demo_clip
from srdeploy.errors import EngineError, OutOfDeviceMemory, StaleEngine
from srdeploy.runtime.engine import open_engine, write_engine
from srdeploy.runtime.session import Frames, Session
from srdeploy.runtime.store import EngineStore
from srdeploy.runtime.video import VideoOptions, upscale_video
from srdeploy.spec import Compatibility, Gpu, Precision, ShapeRange, TensorRtOptions
from srdeploy.validate.metrics import luma, psnr

MEBI = 1 << 20
each_backend = pytest.mark.parametrize("backend", BACKENDS, indirect=True)


def same(backend: Backend, got: Frames, expected: Frames) -> bool:
    """Bit for bit; to one code value where the library chooses kernels while it runs.

    TensorRT-RTX replaces kernels by better ones that it compiles in the background, ONNX Runtime
    lets cuDNN search whenever the shape changes.
    """
    chooses = backend.target.name == "tensorrt-rtx" or backend.provider == "cuda"
    return np.abs(got.astype(int) - expected).max() <= int(chooses)


@each_backend
def test_shapes_outside_the_profiles(backend: Backend) -> None:
    """An error that names them, after which the session goes on; other targets take any."""
    fitting, (wide,) = noise(2, 24, 32), noise(1, 24, SHAPES.maximum[1] + 8)
    with engine_of(backend, SMALLEST, Precision.FP32).open() as session:
        before = session.upscale(fitting[0])
        if backend.target.uses_profiles:
            with pytest.raises(EngineError, match="outside the engine's profiles"):
                session.upscale(wide)
        else:
            assert session.upscale(wide).shape == (1, 96, 4 * wide.shape[2], 3)
        assert same(backend, session.upscale(fitting[0]), before)
        assert session.upscale(fitting[1]).shape == before.shape


@each_backend
def test_profiles_and_batches(backend: Backend) -> None:
    """Shapes of two profiles in turn, batches and single frames: each frame as it is alone."""
    small = ShapeRange((16, 16), (24, 32), (40, 40), (1, 2, 4))
    frames, large = noise(4, 24, 32), noise(2, 96, 112)
    with engine_of(backend, SMALLEST, Precision.FP32).open() as session:
        alone = [session.upscale(frame) for frame in frames]
        whole = [session.upscale(frame) for frame in large]
    with engine_of(backend, SMALLEST, Precision.FP32, SHAPES, small).open(2) as session:
        for index in (0, 1):
            for count in (4, 1, 3):
                upscaled = session.upscale(np.concatenate(frames[:count]))
                off = np.abs(upscaled.astype(int) - np.concatenate(alone[:count]))
                assert off.max() <= 1  # other kernels for other shapes
            again = session.upscale(large[index])
            assert np.abs(again.astype(int) - whole[index]).max() <= 1


@each_backend
def test_a_static_engine(backend: Backend) -> None:
    only = ShapeRange.static(24, 32)
    frames = noise(3, 24, 32)
    with engine_of(backend, SMALLEST, Precision.FP32).open() as session:
        expected = [session.upscale(frame) for frame in frames]
    with engine_of(backend, SMALLEST, Precision.FP32, only).open(2) as session:
        for frame, wanted in zip(frames, expected, strict=True):
            assert np.abs(session.upscale(frame).astype(int) - wanted).max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        TensorRtOptions(stripped=True),
        TensorRtOptions(version_compatible=True),
        TensorRtOptions(compatibility=Compatibility.SAME_CC),
        TensorRtOptions(compatibility=Compatibility.AMPERE_PLUS),
        TensorRtOptions(workspace_mib=64, optimization_level=0, tf32=True),
    ],
)
@pytest.mark.parametrize("name", [SMALLEST, "hat-tiny-x4"])
def test_options_of_tensorrt(
    backend: Backend,
    store: EngineStore,
    name: str,
    options: TensorRtOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same pixels, to rounding; a stripped engine takes its weights from the store's graph."""
    monkeypatch.setenv("SRDEPLOY_CACHE", str(store.folder.parent))
    frames = noise(2, 40, 56)
    with engine_of(backend, name, Precision.FP32).open() as session:
        expected = [session.upscale(frame) for frame in frames]
    with engine_of(backend, name, Precision.FP32, options=options).open() as session:
        for frame, wanted in zip(frames, expected, strict=True):
            assert np.abs(session.upscale(frame).astype(int) - wanted).max() <= 1


@each_backend
def test_lanes_give_what_one_gives(backend: Backend) -> None:
    """Whichever frames are in flight beside each other."""
    engine = engine_of(backend, SMALLEST, Precision.FP16)
    frames = [*noise(5, 24, 32), *noise(4, 33, 41)] * 2
    with engine.open() as alone:
        expected = list(map(alone.upscale, frames))
    with engine.open(2) as together, ThreadPoolExecutor(2) as pool:
        got = list(pool.map(together.upscale, frames))
    assert all(same(backend, a, b) for a, b in zip(got, expected, strict=True))


@each_backend
def test_graphs_give_what_plain_launches_give(backend: Backend) -> None:
    engine = engine_of(backend, SMALLEST, Precision.FP16)
    if backend.target.name == "onnxruntime":
        with pytest.raises(NotRun, match="no CUDA graphs"):
            graphs(engine, (56, 40), 0.1, 1)
        return
    found = graphs(engine, (56, 40), 0.5, 2)
    assert found["graph"]["calls"] > 0
    assert found["plain"]["calls"] > 0
    if backend.target.name == "tensorrt":  # the other one may change kernels while it runs
        assert found["captured"]
        assert found["bit_identical"]


@each_backend
def test_nothing_leaks(backend: Backend) -> None:
    """100 loads, and 10,000 frames of two sizes; on the CPU a few of each."""
    on_gpu = backend.device == "cuda"
    loads, frames, slack = (100, 10_000, 16 * MEBI) if on_gpu else (5, 200, 256 * MEBI)
    engine = engine_of(backend, SMALLEST, Precision.FP16)
    small = noise(1, 24, 32)[0]
    _load(engine.open(), small)  # what the libraries keep for good is there after the first
    before = memory_in_use(backend)
    for _ in range(loads):
        _load(engine.open(), small)
    assert memory_in_use(backend) - before < slack
    both = [small, noise(1, 17, 29)[0]]
    with engine.open() as session:
        for frame in both * 2:
            session.upscale(frame)
        held = memory_in_use(backend)
        for count in range(frames):
            session.upscale(both[count // 50 % 2])
        assert memory_in_use(backend) - held < slack


def _load(session: Session, frame: Frames) -> None:
    with session:
        session.upscale(frame)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
def test_a_frame_that_does_not_fit(backend: Backend) -> None:
    """An error of its own, after which a smaller frame is right, and the large one when it fits."""
    shapes = ShapeRange((16, 16), (40, 56), (1080, 1920))
    engine = engine_of(backend, SMALLEST, Precision.FP32, shapes)
    small, large = noise(1, 24, 32)[0], noise(1, 1080, 1920)[0]
    with engine.open() as session:
        before = session.upscale(small)
        with device_filled(leaving=96 * MEBI):
            with pytest.raises(OutOfDeviceMemory) as caught:
                session.upscale(large)
            assert caught.value.hint
            assert same(backend, session.upscale(small), before)
        assert session.upscale(large).shape == (1, 4320, 7680, 3)


@each_backend
def test_stale_engines_are_not_run(backend: Backend, tmp_path: Path) -> None:
    engine = engine_of(backend, SMALLEST, Precision.FP32)
    build = engine.manifest.build
    changes: list[dict[str, object]] = [{}, {"target_version": "0.1"}, {"plugins": ("gone 1",)}]
    if backend.target.name == "tensorrt":
        assert build.gpu is not None
        changes.append({"gpu": Gpu("another", build.gpu.capability, build.gpu.driver)})
        changes.append({"gpu": Gpu(build.gpu.name, "1.0", build.gpu.driver)})
    for number, change in enumerate(changes):
        changed = dataclasses.replace(build, **change)  # type: ignore[arg-type]
        path = tmp_path / f"{number}.engine"
        manifest = dataclasses.replace(engine.manifest, build=changed, engine_file=path.name)
        write_engine(path, engine.built.content, manifest)
        if change:
            with pytest.raises(StaleEngine) as caught:
                open_engine(path)
            assert caught.value.hint
        else:
            session, _ = open_engine(path)
            _load(session, noise(1, 24, 32)[0])


@each_backend
def test_a_whole_video(backend: Backend, store: EngineStore, tmp_path: Path) -> None:
    """As many frames as came, each as the CPU upscales it."""
    clip = tmp_path / "clip.mp4"
    make_demo_clip(clip, width=80, height=64, frames=6)
    other = open_backend(CPU, store)
    made = {}
    for name, using in (("ours", backend), ("theirs", other)):
        path = tmp_path / f"{name}.mkv"
        with engine_of(using, SMALLEST, Precision.FP32).open(2) as session:
            result = upscale_video(clip, path, session, VideoOptions(codec="ffv1"))
        assert (result.frames, result.width, result.height) == (6, 320, 256)
        made[name] = _frames(path)
    for ours, theirs in zip(made["ours"], made["theirs"], strict=True):
        assert psnr(luma(ours), luma(theirs)) > 50


def _frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
