"""One engine in several processes, here on the CPU: the same frames, and nothing left behind."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from srdeploy.errors import DeviceLost, EngineError, StaleEngine
from srdeploy.export.pixels import with_pixels
from srdeploy.export.sizes import fix_size
from srdeploy.runtime.engine import open_engine, write_engine
from srdeploy.runtime.processes import ProcessSession
from srdeploy.runtime.session import Frames
from srdeploy.runtime.shared_frames import SharedFrames
from srdeploy.runtime.targets import open_target
from srdeploy.runtime.video import upscale_video
from srdeploy.spec import BuildConfig, Manifest, Precision, ShapeRange


@pytest.fixture(scope="module")
def make_engine(exported, tmp_path_factory) -> Callable[..., Path]:
    """Writes an engine; with ``size`` its graph takes that alone, which its manifest hides."""
    model, spec = exported
    folder = tmp_path_factory.mktemp("engines")

    def make(
        name: str, size: tuple[int, int] | None = None, version: str = "", **config: Any
    ) -> Path:
        target = open_target("onnxruntime")
        graph = fix_size(model, (1, *size), spec.scale) if size else model
        version = version or target.version()
        build = BuildConfig("", target.name, version, Precision.FP32, **config)
        content = target.build(with_pixels(graph).SerializeToString(), build).content
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / name
        write_engine(path, content, Manifest(build, spec, sha256, name, "CPU"))
        return path

    return make


@pytest.fixture(scope="module")
def engine(make_engine) -> Path:
    return make_engine("net.engine")


@pytest.fixture
def session(engine: Path) -> Iterator[ProcessSession]:
    with ProcessSession(engine, (0, 1)) as opened:
        yield opened
    assert not any(alive(pid) for pid in opened.pids)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for counts."""
    return Path(f"/proc/{pid}").exists()


def blocks(session: ProcessSession) -> list[str]:
    """Names of the shared memory that a session holds."""
    held = [lane.memory._memory for lane in session._lanes]
    return [memory.name for memory in held if memory is not None]


def noise(*shape: int) -> Frames:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_the_same_pixels_for_any_shape_from_several_threads(engine: Path, session) -> None:
    shapes = [(1, 20, 30), (2, 8, 9), (1, 48, 40), (1, 20, 30), (3, 5, 64), (1, 90, 70)] * 2
    frames = [noise(*shape) for shape in shapes]
    single, _ = open_engine(engine)
    assert (session.scale, session.target, session.parallel) == (2, "onnxruntime", 2)
    with ThreadPoolExecutor(5) as pool:  # more than there are lanes
        upscaled = list(pool.map(session.upscale, frames))
    for given, made in zip(frames, upscaled, strict=True):
        np.testing.assert_array_equal(made, single.upscale(given))
    assert len(blocks(session)) == 2, "both took part, each holds one block"
    held = blocks(session)
    session.close()
    session.close()
    for name in held:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
    with pytest.raises(EngineError, match="closed"):
        session.upscale(frames[0])


def test_notes_of_the_processes_arrive(make_engine) -> None:
    """Those that both devices have to say come once."""
    engine = make_engine("static", (32, 40), profiles=(ShapeRange.static(32, 40),))
    with ProcessSession(engine, (0, 1)) as session:
        assert session.notes == ()
        for _ in range(2):
            session.upscale(noise(1, 20, 30))
        (note,) = session.notes
    assert "mirrored" in note


def test_a_video_in_order(engine: Path, session, tmp_path: Path) -> None:
    """A stream of y4m is exact: each frame is where it was, and equal to the single process's."""
    single, _ = open_engine(engine)
    clip, made = y4m(25, 32, 24), []
    for opened in (session, single):
        sink = io.BytesIO()
        result = upscale_video(io.BytesIO(clip), sink, opened)
        assert result.frames == 25
        assert result.peak_in_flight <= 2 * opened.parallel + 1
        made.append(sink.getvalue())
    assert made[0] == made[1]


def y4m(count: int, width: int, height: int) -> bytes:
    """Frames that all differ."""
    luma = [noise(height, width)[..., 0] // 4 + 5 * i for i in range(count)]
    chroma = np.full(width * height // 2, 128, np.uint8).tobytes()
    head = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode()
    return head + b"".join(b"FRAME\n" + y.tobytes() + chroma for y in luma)


def test_a_process_that_is_killed(session) -> None:
    """Its call, those that wait and those to come end; the name of the device is told."""
    large = noise(1, 400, 500)  # long enough to be killed in
    session.upscale(noise(1, 8, 8))
    stopped, other = session.pids
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(session.upscale, large) for _ in range(3)]
        until(lambda: any(call.done() for call in calls))
        os.kill(stopped, signal.SIGKILL)
        found = [call.exception() for call in calls]
    lost = [exc for exc in found if exc is not None]
    assert lost
    assert all(isinstance(exc, DeviceLost) for exc in lost)
    assert "device 0 is gone (SIGKILL)" in str(lost[0])
    with pytest.raises(DeviceLost, match="device 0"):
        session.upscale(large)
    assert not alive(stopped), "waited for"
    assert alive(other)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_of_the_engine_arrives_with_its_device(make_engine) -> None:
    """The next frame goes through: an engine's error is not the end of its process."""
    with ProcessSession(make_engine("secretly-static", (16, 16)), (5,)) as session:
        with pytest.raises(EngineError, match=r"device 5: ONNX Runtime failed on") as caught:
            session.upscale(noise(1, 20, 30))
        assert caught.value.hint
        assert session.upscale(noise(1, 16, 16)).shape == (1, 32, 32, 3)


def test_an_engine_that_cannot_be_opened(make_engine) -> None:
    with pytest.raises(StaleEngine, match=r"device 0: .*built for onnxruntime 0\.1"):
        ProcessSession(make_engine("old", version="0.1"), (0, 1))


@pytest.mark.parametrize("devices", [(), (0, 0)])
def test_devices_that_are_none_or_twice(engine: Path, devices) -> None:
    with pytest.raises(EngineError, match="expected different devices"):
        ProcessSession(engine, devices)


def test_an_interrupted_run_closes_at_once(engine: Path, tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        """The clip over and over."""

        def __init__(self) -> None:
            self.clip, self.place = y4m(5, 64, 48), 0
            self.head = self.clip.index(b"FRAME")

        def read(self, size: int = -1) -> bytes:
            part = self.clip[self.place : self.place + size]
            self.place += len(part)
            if self.place >= len(self.clip):
                self.place = self.head
            return part

    def interrupt(progress) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    session = ProcessSession(engine, (0, 1))
    with pytest.raises(KeyboardInterrupt), session:
        upscale_video(Endless(), io.BytesIO(), session, progress=interrupt)
    assert not any(alive(pid) for pid in session.pids)
    assert not blocks(session)
    assert threading.active_count() < 20


def test_closing_under_a_call_that_hangs(engine: Path, monkeypatch) -> None:
    monkeypatch.setattr("srdeploy.runtime.processes.STOP_SECONDS", 0.2)
    session = ProcessSession(engine, (0,))
    (pid,) = session.pids
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(session.upscale, noise(1, 8, 8))
        until(lambda: not session._idle)
        session.close()
        assert isinstance(call.exception(), DeviceLost)
    assert not alive(pid)
    assert not blocks(session)


def test_too_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked before writing: a write that the system cannot back would end the process."""
    memory = SharedFrames()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10 << 20})())
    with pytest.raises(EngineError, match=r"38 MiB .* has 10 left") as caught:
        memory.put(noise(1, 1000, 800), 4)
    assert "--shm-size" in caught.value.hint


SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from srdeploy.errors import DeviceLost
from srdeploy.runtime.processes import ProcessSession

if __name__ == "__main__":
    how, engine = sys.argv[1], Path(sys.argv[2])
    session = ProcessSession(engine, (0, 1))
    for edge in (8, 40, 16, 60):
        session.upscale(np.zeros((1, edge, edge, 3), np.uint8))
    names = [lane.memory._memory.name for lane in session._lanes]
    print(*session.pids, *names, flush=True)
    if how == "killed":
        os.kill(session.pids[1], signal.SIGKILL)
        try:
            while True:
                session.upscale(np.zeros((1, 90, 90, 3), np.uint8))
        except DeviceLost:
            pass
    if how == "murdered":
        os.kill(os.getpid(), signal.SIGKILL)
    session.close()
"""


@pytest.mark.parametrize("how", ["closed", "killed", "murdered"])
def test_nothing_is_left_behind(engine: Path, tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), how, str(engine)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, second, *names = done.stdout.split()
    if how == "murdered":
        assert done.returncode == -signal.SIGKILL
    else:
        assert (done.returncode, done.stderr) == (0, ""), "the tracker of resources is silent too"
    until(lambda: not alive(int(first)) and not alive(int(second)))
    assert len(names) == 2
    until(lambda: not any(Path("/dev/shm", name).exists() for name in names))
