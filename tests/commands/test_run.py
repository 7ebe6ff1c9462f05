"""``run``: which engine it takes, and starting on a quick one while a better one is built."""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from srdeploy.commands.build_engine import BuildOptions, build_engine
from srdeploy.commands.choose_engine import EngineChoice
from srdeploy.commands.run import run, speed
from srdeploy.commands.while_building import BESIDE_A_RUN, quick_engine
from srdeploy.errors import EngineError, MediaError
from srdeploy.runtime.engine import manifest_path, open_engine, read_manifest
from srdeploy.runtime.pictures import default_output
from srdeploy.runtime.session import Session
from srdeploy.runtime.video import VideoOptions, upscale_video
from srdeploy.spec import Precision, dump

WIDTH, HEIGHT, CYCLE = 48, 32, 7
LONGEST = 120  # seconds that a stream waits for something to happen
HEAD = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420jpeg\n".encode()
FRAME_BYTES = len(b"FRAME\n") + 2 * WIDTH * 2 * HEIGHT * 3 // 2
# fp16 weights: other pixels than the quick engine's
BUILD = BuildOptions("onnxruntime", Precision.FP16)


def frame(index: int) -> bytes:
    pixels = np.random.default_rng(index % CYCLE).integers(16, 235, WIDTH * HEIGHT * 3 // 2)
    return b"FRAME\n" + pixels.astype(np.uint8).tobytes()


class Stream(io.RawIOBase):
    """A y4m video that goes on until something has happened, and some frames beyond."""

    def __init__(self, happened: Callable[[], bool], beyond: int = 12) -> None:
        self.frames, self._happened, self._left = 0, happened, beyond
        self._until = time.monotonic() + LONGEST
        self._rest = HEAD

    def read(self, size: int = -1) -> bytes:
        if not self._rest and self._left:
            assert time.monotonic() < self._until, "it never happened"
            if self._happened():
                self._left -= 1
            else:
                time.sleep(0.03)  # leave the cores to the build
            self._rest = frame(self.frames)
            self.frames += 1
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def upscaled(session: Session, count: int) -> list[bytes]:
    """The frames that one engine makes of the stream."""
    sink = io.BytesIO()
    upscale_video(io.BytesIO(HEAD + b"".join(map(frame, range(count)))), sink, session)
    return cut(sink.getvalue())


def cut(video: bytes) -> list[bytes]:
    body = video.split(b"\n", 1)[1]
    return [body[i : i + FRAME_BYTES] for i in range(0, len(body), FRAME_BYTES)]


def start(source: object, build: BuildOptions, said: list[str], **more):
    sink = io.BytesIO()
    choice = EngineChoice(while_building=True, build=build)
    progress = more.pop("progress", lambda *_: None)
    result = run(source, sink, choice, VideoOptions(**more), said.append, progress)
    return result, sink.getvalue()


def test_the_engine_is_changed_between_frames(folder: Path) -> None:
    """Every frame is there, in order, and all its tiles of one engine."""
    said: list[str] = []
    stream = Stream(lambda: any("takes over" in line for line in said))
    result, video = start(stream, BUILD, said, tile=40)
    frames = cut(video)
    assert len(frames) == result.frames == stream.frames
    (engine,) = (Path(line.removeprefix("wrote ")) for line in said if line.startswith("wrote "))
    assert BESIDE_A_RUN in read_manifest(engine).notes
    quick, _ = quick_engine(folder / "net.onnx")
    better, _ = open_engine(engine)
    first, second = upscaled(quick, CYCLE), upscaled(better, CYCLE)
    assert not set(first) & set(second), "each frame tells its engine"
    makers = []
    for index, made in enumerate(frames):
        assert made in (first[index % CYCLE], second[index % CYCLE])
        makers.append(made == second[index % CYCLE])
    (line,) = (line for line in said if "takes over" in line)
    told = int(line.split("from frame ")[1].split()[0]) - 1
    # two frames are in flight: neighbours may begin in another order
    assert not any(makers[: told - 1])
    assert all(makers[told + 1 :])
    assert makers[0] is False
    assert makers[-1] is True


def test_a_build_that_fails_does_not_end_the_run(folder: Path) -> None:
    said: list[str] = []
    stream = Stream(lambda: any("could not be built" in line for line in said))
    result, video = start(stream, BuildOptions("nonsense"), said)
    quick, _ = quick_engine(folder / "net.onnx")
    expected = upscaled(quick, CYCLE)
    assert cut(video) == [expected[i % CYCLE] for i in range(stream.frames)]
    assert any("no target is called 'nonsense'" in note for note in result.notes)
    assert [p.name for p in folder.iterdir()] == ["net.onnx"]


def test_a_run_that_is_done_first_stops_the_build(folder: Path) -> None:
    said: list[str] = []
    result, _ = start(Stream(lambda: True, beyond=2), BUILD, said)
    assert result.frames == 2
    assert "its build was stopped; srdeploy build-engine net.onnx makes it" in said[-1]
    assert nothing_left(folder)


def test_an_interruption_stops_the_build(folder: Path) -> None:
    said: list[str] = []

    def interrupt(*_: object) -> None:
        if any("engine built" in line for line in said):  # it is being measured
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(Stream(lambda: False), BUILD, said, progress=interrupt)
    assert nothing_left(folder)


def nothing_left(folder: Path) -> bool:
    assert not multiprocessing.active_children()
    assert not [t.name for t in threading.enumerate() if t.name == "build"]
    return [p.name for p in folder.iterdir()] == ["net.onnx"]


def test_an_engine_that_is_here_is_used(folder: Path) -> None:
    """Nothing is built beside it, unless it is of another version."""
    made = build_engine(folder / "net.onnx", BUILD, None, lambda _: None).path
    said: list[str] = []
    start(Stream(lambda: True, beyond=2), BUILD, said)
    assert said == [f"using {made}, the newest engine in this directory"]
    passport = read_manifest(made)
    text = dump(passport).replace(passport.build.target_version, "0.1")
    manifest_path(made).write_text(text)
    said.clear()
    start(Stream(lambda: True, beyond=2), BUILD, said)
    assert "built for onnxruntime 0.1" in said[0]
    assert "starting on a quick engine of net.onnx" in said[1]


def test_devices_are_for_gpus(folder: Path) -> None:
    made = build_engine(folder / "net.onnx", BUILD, None, lambda _: None).path
    choice = EngineChoice(made, devices=(0, 1))
    with pytest.raises(EngineError, match="runs on the CPU") as caught:
        run(Stream(lambda: True), io.BytesIO(), choice, VideoOptions(), print, print)
    assert "leave --devices out" in caught.value.hint
    both = EngineChoice(devices=(0,), while_building=True)
    with pytest.raises(EngineError, match="does not go with --devices"):
        run(Stream(lambda: True), io.BytesIO(), both, VideoOptions(), print, print)


def test_an_interrupted_video_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srdeploy.runtime.video.parts.PART_FRAMES", 4)
    source, output = folder / "in.y4m", folder / "out.mkv"
    source.write_bytes(HEAD + b"".join(map(frame, range(30))))
    build_engine(folder / "net.onnx", BUILD, None, lambda _: None)
    before = {p.name for p in folder.iterdir()}
    choice = EngineChoice(resume=True)

    def interrupt(done: int, *_: object) -> None:
        if done > 8:
            raise KeyboardInterrupt

    slow = Path.write_bytes
    monkeypatch.setattr(  # long enough for the interruption to come in between
        Path, "write_bytes", lambda path, content: time.sleep(0.2) or slow(path, content)
    )
    with pytest.raises(KeyboardInterrupt):
        run(source, output, choice, VideoOptions(), print, interrupt)
    assert {p.name for p in folder.iterdir()} - before == {".out.mkv.parts"}
    result = run(source, output, choice, VideoOptions(), print, lambda *_: None)
    assert result.frames == 30
    assert any("frames are from an earlier run" in note for note in result.notes)
    assert {p.name for p in folder.iterdir()} - before == {"out.mkv"}


def test_what_cannot_be_resumed() -> None:
    both = EngineChoice(resume=True, while_building=True)
    with pytest.raises(EngineError, match="does not go with --resume"):
        run(Stream(lambda: True), io.BytesIO(), both, VideoOptions(), print, print)


@pytest.mark.parametrize(
    ("source", "output", "match"),
    [
        ("photos", "out.mp4", "the name of a file"),
        ("photos", "net.onnx", "is a file"),
        ("photos", "photos", "is the source itself"),
        ("photos/a.png", "out.mp4", "a picture cannot be written as '.mp4'"),
        ("photos/a.png", "photos", "is a folder"),
        ("clip.y4m", "out.png", "a video cannot be written as '.png'"),
        ("clip.y4m", "photos", "is a folder"),
        ("clip.y4m", "none/out.mp4", "there is no folder|No such file"),
    ],
)
def test_an_output_that_does_not_fit_is_refused_before_an_engine_is_built(
    folder: Path, source: str, output: str, match: str
) -> None:
    (folder / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(folder / "photos" / "a.png")
    (folder / "clip.y4m").write_bytes(HEAD + frame(0))
    before = sorted(folder.rglob("*"))
    said: list[str] = []
    with pytest.raises(MediaError, match=match):
        run(Path(source), Path(output), EngineChoice(), VideoOptions(), said.append, print)
    assert (said, sorted(folder.rglob("*"))) == ([], before)


def test_pictures_are_counted_and_timed(folder: Path) -> None:
    made = build_engine(folder / "net.onnx", BUILD, None, lambda _: None).path
    (folder / "photos").mkdir()
    for name in "abc":
        Image.new("RGB", (16, 16)).save(folder / "photos" / f"{name}.png")
    for source, count in ((Path("photos"), 3), (Path("photos/a.png"), 1)):
        began = time.perf_counter()
        result = run(source, None, EngineChoice(made), VideoOptions(), print, lambda *_: None)
        assert result.frames == count
        assert 0 < result.seconds <= time.perf_counter() - began
    result, _ = start(Stream(lambda: True, beyond=2), BUILD, [])
    assert result.video is not None
    assert result.seconds == result.video.seconds


@pytest.mark.parametrize(
    ("frames_per_second", "said"),
    [(0, ""), (0.02, "50.0 s a frame"), (0.5, "2.0 s a frame"), (1, "1.0 frames/s"),
     (23.976, "24.0 frames/s")],
)  # fmt: skip
def test_speed(frames_per_second: float, said: str) -> None:
    assert speed(frames_per_second) == said


def test_folders_beside_the_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "photos").mkdir()
    assert default_output(Path("photos"), 2) == Path("photos_x2")
    assert default_output(Path("photos/../photos"), 2) == Path("photos/../photos_x2")
    monkeypatch.chdir("photos")
    for here in (".", "../photos/."):
        assert default_output(Path(here), 2).resolve() == folder / "photos_x2"
    assert default_output(Path(".."), 2) == folder.with_name(f"{folder.name}_x2")
