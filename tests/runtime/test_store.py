"""The engine store: built once, never half there, never believed unread."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import BuildError, EngineError, SrDeployError
from srdeploy.export.pixels import with_pixels
from srdeploy.runtime.engine import parse_manifest
from srdeploy.runtime.store import GIB, EngineStore, store_limit
from srdeploy.runtime.store_entry import SUMS, StoredEngine, _sums, read_entry
from srdeploy.runtime.store_lock import NAME_LENGTH
from srdeploy.runtime.targets import BuiltEngine
from srdeploy.runtime.targets.onnxruntime import OnnxRuntimeTarget
from srdeploy.spec import BuildConfig, DriftRecord, Manifest, ModelSpec, Precision, ShapeRange, dump

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("engine", "engine.json", "graph.onnx", "build.log", "SHA256SUMS")


class Counted(OnnxRuntimeTarget):
    """The real target, which counts its builds and logs them."""

    def __init__(self) -> None:
        self.builds = 0

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        self.builds += 1
        built = super().build(graph, config)
        return dataclasses.replace(built, notes=("a note",), log="all is well\n")


@dataclass
class Job:
    """Engines to build of one graph, told apart by their input sizes."""

    graph: bytes
    spec: ModelSpec
    target: Counted
    said: list[str]

    def config(self, number: int = 0) -> BuildConfig:
        sha256 = hashlib.sha256(self.graph).hexdigest()
        size = ShapeRange.static(32, 32 + number)
        return BuildConfig(
            "1" * 64, "onnxruntime", self.target.version(), Precision.FP32, Precision.FP32, (size,),
            graph_sha256=sha256,
        )  # fmt: skip

    def obtain(self, store: EngineStore, number: int = 0) -> BuiltEngine:
        self.said.clear()
        config = self.config(number)
        return store.obtain(self.target, self.graph, config, self.spec, self.said.append)

    def digest(self, number: int = 0) -> str:
        return self.config(number).digest()


@pytest.fixture
def job(exported) -> Job:
    model, spec = exported
    return Job(with_pixels(model).SerializeToString(), spec, Counted(), [])


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines", GIB)


def names(store: EngineStore) -> set[str]:
    """All in the store's folder but its locks."""
    return {p.name for p in store.folder.iterdir()} - {"locks", "timing"}


def test_the_second_time_it_is_taken(job: Job, store: EngineStore) -> None:
    first = job.obtain(store)
    assert "built in" in job.said[-1]
    again = job.obtain(EngineStore(store.folder, GIB))
    assert again == first
    assert "taken from the store" in job.said[-1]
    assert job.target.builds == 1
    assert {p.name for p in (store.folder / job.digest()).iterdir()} == set(FILES)
    (entry,) = store.entries()
    assert entry.manifest is not None
    assert entry.manifest.build == job.config()
    assert entry.size == sum(p.stat().st_size for p in entry.folder.iterdir())
    assert job.obtain(store, 1).content == first.content
    assert job.target.builds == 2, "another input is another build"
    assert store.graph_of(job.config().graph_sha256) == job.graph
    assert store.graph_of("0" * 64) is None


def test_checksums_are_those_of_sha256sum(job: Job, store: EngineStore) -> None:
    job.obtain(store)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=store.folder / job.digest(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"OK") == 4


def test_another_graph_than_the_input_says(job: Job, store: EngineStore) -> None:
    with pytest.raises(BuildError, match="another one"):
        store.obtain(job.target, job.graph + b"\0", job.config(), job.spec, job.said.append)


def test_a_refused_build_leaves_nothing(job: Job, store: EngineStore) -> None:
    config = dataclasses.replace(job.config(), graph_sha256=hashlib.sha256(b"no graph").hexdigest())
    with pytest.raises(BuildError, match="refuses"):
        store.obtain(job.target, b"no graph", config, job.spec, job.said.append)
    assert names(store) == set()
    job.obtain(store)  # the lock is free again


@pytest.fixture(scope="module")
def whole(exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, EngineStore]:
    """A store with an engine, to be damaged and repaired again and again."""
    model, spec = exported
    job = Job(with_pixels(model).SerializeToString(), spec, Counted(), [])
    store = EngineStore(tmp_path_factory.mktemp("whole") / "engines", GIB)
    job.obtain(store)
    return job, store


def check_repaired(job: Job, store: EngineStore, expected: bytes) -> None:
    """The damage is seen by who checks; who asks for the engine gets it built again."""
    with pytest.raises(EngineError):
        read_entry(store.folder / job.digest())
    assert list(store.verify(lambda _: None)) == [job.digest()]
    before = job.target.builds
    assert job.obtain(store).content == expected
    assert job.target.builds == before + 1
    assert "is damaged and not used" in job.said[0]
    assert store.verify(lambda _: None) == {}
    assert names(store) == {job.digest()}


@given(name=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(whole, name: str, at: float, bit: int) -> None:
    job, store = whole
    path = store.folder / job.digest() / name
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)
    check_repaired(job, store, job.graph)


@given(name=st.sampled_from(FILES), at=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_short_or_gone_is_noticed(whole, name: str, at: float) -> None:
    job, store = whole
    path = store.folder / job.digest() / name
    content = path.read_bytes()
    path.unlink()
    if at > 0:
        path.write_bytes(content[: int(at * len(content))])
    check_repaired(job, store, job.graph)


@pytest.mark.parametrize("swapped", [("engine.json",), ("SHA256SUMS",), FILES])
def test_files_of_two_entries_changed_places(
    job: Job, store: EngineStore, swapped: tuple[str, ...]
) -> None:
    """Both engines are the same bytes, as both graphs are; what they were built for is not."""
    for number in (0, 1):
        job.obtain(store, number)
    folders = [store.folder / job.digest(number) for number in (0, 1)]
    for name in swapped:
        one, other = ((folder / name).read_bytes() for folder in folders)
        (folders[0] / name).write_bytes(other)
        (folders[1] / name).write_bytes(one)
    damaged = store.verify(lambda _: None)
    assert set(damaged) == {job.digest(0), job.digest(1)}
    if swapped == FILES:
        assert "manifest of another one" in damaged[job.digest()]
    job.obtain(store)
    assert job.target.builds == 3
    assert set(store.verify(lambda _: None, repair=True)) == {job.digest(1)}
    assert names(store) == {job.digest(0)}


def nested(depth: int) -> object:
    inner: object = 1
    for _ in range(depth):
        inner = {"a": inner}
    return inner


HOSTILE = [
    ("engine_file", "../../../etc/passwd"),
    ("engine_file", "/etc/passwd"),
    ("engine_file", "a\\b"),
    ("engine_file", ".."),
    ("engine_file", ""),
    ("engine_file", "a\nb"),
    ("engine_file", "\x1b[2J"),
    ("engine_file", 3),
    ("milliseconds", 10**400),
    ("milliseconds", float("inf")),
    ("milliseconds", float("nan")),
    ("model", nested(600)),
    ("model.config", nested(600)),
    ("model.config", nested(5000)),
    ("build.target_version", ["1"]),
    ("format", 10**400),
    ("notes", {"a": 1}),
    ("drift", [{"dataset": "x"}]),
    ("calibration_pictures", "x"),
]


@pytest.mark.parametrize(("field", "value"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_manifests(job: Job, store: EngineStore, field: str, value: object) -> None:
    """The checksums are right, the manifest is not."""
    job.obtain(store)
    folder = store.folder / job.digest()
    document = json.loads((folder / "engine.json").read_text())
    *parents, last = field.split(".")
    inner = document
    for name in parents:
        inner = inner[name]
    inner[last] = 0
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        hole = json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)
    mark = "PUT IT HERE"
    inner[last] = mark
    content = json.dumps(document).replace(f'"{mark}"', hole).encode()
    with pytest.raises(EngineError):
        parse_manifest(content, "it")
    parts = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != SUMS}
    parts["engine.json"] = content
    (folder / "engine.json").write_bytes(content)
    (folder / SUMS).write_bytes(_sums(parts))
    (entry,) = store.entries()
    assert entry.manifest is None
    check_repaired(job, store, job.graph)


def test_what_is_no_entry_is_left_alone(job: Job, store: EngineStore, tmp_path: Path) -> None:
    job.obtain(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("precious")
    (store.folder / ("a" * 64)).symlink_to(elsewhere)
    (store.folder / ("b" * 64)).write_text("a file")
    (store.folder / "notes.txt").write_text("a file")
    assert [entry.digest for entry in store.entries()] == [job.digest()]
    store.prune(0, 0)
    assert store.entries() == ()
    assert (elsewhere / "mine").read_text() == "precious"
    assert names(store) == {"a" * 64, "b" * 64, "notes.txt"}


def test_least_recently_used_go_first(job: Job, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", GIB)
    for number in (0, 1):
        job.obtain(store, number)
        os.utime(store.folder / job.digest(number), (1000 + number, 1000 + number))
    job.obtain(store, 0)  # now 1 is the one that was not used for longest
    size = store.entries()[0].size
    small = EngineStore(store.folder, int(2.5 * size))
    job.obtain(small, 2)
    assert {e.digest for e in small.entries()} == {job.digest(0), job.digest(2)}
    assert [e.digest for e in small.entries()] == [job.digest(2), job.digest(0)]
    tiny = EngineStore(store.folder, int(1.5 * size))
    job.obtain(tiny, 3)
    assert [e.digest for e in tiny.entries()] == [job.digest(3)]
    nothing = EngineStore(store.folder, size // 2)
    assert job.obtain(nothing, 4).content == job.graph
    assert "more than SRDEPLOY_STORE_LIMIT allows" in job.said[-1]
    assert [e.digest for e in nothing.entries()] == [job.digest(3)], "what fits nowhere evicts none"


def test_switched_off(job: Job, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "engines", 0)
    job.obtain(store)
    job.obtain(store)
    assert job.target.builds == 2
    assert not store.folder.exists()


def test_pruned_by_age_and_size(job: Job, store: EngineStore) -> None:
    for number in range(4):
        job.obtain(store, number)
        days = 10 * number
        used = time.time() - days * 86_400
        os.utime(store.folder / job.digest(number), (used, used))
    removed = store.prune(older_seconds=15 * 86_400)
    assert {e.digest for e in removed} == {job.digest(2), job.digest(3)}
    removed = store.prune(limit_bytes=store.entries()[0].size)
    assert [e.digest for e in removed] == [job.digest(1)]
    assert [e.digest for e in store.prune(0)] == [job.digest(0)]
    assert names(store) == set()


@pytest.mark.parametrize("text", ["", "0", "0.5", "16"])
def test_the_limit_is_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRDEPLOY_STORE_LIMIT", text)
    assert store_limit() == float(text or 8) * GIB


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "1e999"])
def test_a_limit_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRDEPLOY_STORE_LIMIT", text)
    with pytest.raises(SrDeployError, match="expected a number of GiB"):
        EngineStore()


def test_measurements_are_recorded(job: Job, store: EngineStore) -> None:
    job.obtain(store)
    (entry,) = store.entries()
    record = DriftRecord("proof", 30.0, 29.99, -0.01, 50.0, "torch", "onnxruntime")
    assert entry.manifest is not None
    measured = dataclasses.replace(
        entry.manifest, milliseconds=7.5, drift=(record,), notes=("was not executed",)
    )
    store.record(entry.digest, measured)
    (after,) = store.entries()
    assert after.manifest == dataclasses.replace(
        entry.manifest, milliseconds=7.5, drift=(record,)
    ), "notes stay those of the build"
    assert store.verify(lambda _: None) == {}
    other = dataclasses.replace(measured, engine_sha256="0" * 64, milliseconds=1.0)
    store.record(entry.digest, other)
    store.record("0" * 64, measured)
    assert store.entries() == (after,)


def test_an_imported_engine_is_not_taken_for_a_build(job: Job, store: EngineStore) -> None:
    """Who sends a bundle must not decide what build-engine gives."""
    theirs = b"somebody's engine"
    sha256 = hashlib.sha256(theirs).hexdigest()
    manifest = Manifest(job.config(), job.spec, sha256, "their.engine", "CPU")
    assert store.add(StoredEngine(theirs, manifest, job.graph), job.said.append)
    kept = store.get(job.digest())
    assert kept is not None
    assert (kept.content, kept.imported) == (theirs, True)
    assert job.obtain(store).content == job.graph
    own = store.get(job.digest())
    assert own is not None
    assert (own.content, own.imported) == (job.graph, False)
    assert store.add(StoredEngine(theirs, manifest, job.graph), job.said.append)
    assert store.get(job.digest()) == own, "a build of one's own is not replaced"


def test_no_folder_can_be_made(job: Job, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = EngineStore(tmp_path / "file" / "engines", GIB)
    assert job.obtain(store).content == job.graph
    assert "is not kept in the store" in job.said[-1]
    store.record(job.digest(), Manifest(job.config(), job.spec, "", "e", ""))
    store.write_timing_cache("key", b"times")
    assert store.read_timing_cache("key") is None
    assert (store.entries(), store.prune(0), store.verify(job.said.append)) == ((), (), {})
    assert store.graph_of(job.config().graph_sha256) is None
    assert store.get(job.digest()) is None


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_a_folder_that_can_only_be_read(job: Job, readable_folder: Path) -> None:
    store = EngineStore(readable_folder / "engines", GIB)
    job.obtain(store)
    for path in readable_folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # permissions do not bind root
    try:
        assert job.obtain(store).content == job.graph
        assert job.said == [s for s in job.said if "taken from the store" in s]
        assert job.obtain(store, 1).content == job.graph
        assert "is not kept in the store" in job.said[-1]
        assert store.verify(job.said.append) == {}
        assert store.prune(0) == ()
    finally:
        os.seteuid(user)
    assert [e.digest for e in store.entries()] == [job.digest()]
    assert job.target.builds == 2


def test_timing_caches(store: EngineStore) -> None:
    keys = ("L4, TensorRT 10.16, CUDA 13.0", "L4, TensorRT 11.4, CUDA 13.0")
    assert store.read_timing_cache(keys[0]) is None
    for round_ in range(2):
        for key in keys:
            store.write_timing_cache(key, f"{key} {round_}".encode())
    assert [store.read_timing_cache(key) for key in keys] == [f"{key} 1".encode() for key in keys]
    kept = [path for path in (store.folder / "timing").iterdir() if path.is_file()]
    (path,) = [path for path in kept if keys[0].encode() in path.read_bytes()]
    content = bytearray(path.read_bytes())
    for position in (0, -1):
        damaged = content.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert store.read_timing_cache(keys[0]) is None
    os.utime(path, (0, 0))
    store.prune(older_seconds=86_400)
    assert not path.exists()
    assert store.read_timing_cache(keys[1]) is not None
    assert store.entries() == ()


def test_a_builder_keeps_its_timing_cache(job: Job, store: EngineStore) -> None:
    """A builder writes it while it holds the lock of its build, be it of the same name."""
    keys = (f"key {number}" for number in itertools.count())
    start = job.digest()[:NAME_LENGTH]
    key = next(k for k in keys if hashlib.sha256(k.encode()).hexdigest().startswith(start))

    class Timed(Counted):
        def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
            store.write_timing_cache(key, b"times")
            return super().build(graph, config)

    job.target = Timed()
    job.obtain(store)
    assert store.read_timing_cache(key) == b"times"


def test_threads_that_take_and_prune(job: Job, store: EngineStore) -> None:
    wrong: list[object] = []

    def take() -> None:
        for number in (0, 1) * 8:
            built = store.obtain(job.target, job.graph, job.config(number), job.spec, str)
            if built.content != job.graph:
                wrong.append(number)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        store.prune(0)
    for thread in threads:
        thread.join()
    assert wrong == []
    store.prune(0)
    assert names(store) == set()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(job: Job, store: EngineStore, tmp_path: Path) -> Iterator[Start]:
    """Start a process that takes engine ``number``; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def begin(mode: str, number: int = 0) -> subprocess.Popen[str]:
        folder = tmp_path / f"job {number}"
        folder.mkdir(exist_ok=True)
        (folder / "graph").write_bytes(job.graph)
        (folder / "config.json").write_text(dump(job.config(number)))
        (folder / "spec.json").write_text(dump(job.spec))
        driver = str(Path(__file__).with_name("store_driver.py"))
        process = subprocess.Popen(
            [sys.executable, driver, str(tmp_path), str(store.folder), str(folder), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / ".src")},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> list[str]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output.splitlines()


def until(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_build_once(job: Job, store: EngineStore, start: Start, tmp_path) -> None:
    first = start("wait")
    until(tmp_path / "builds", first)
    second = start("wait")
    assert second.stdout is not None
    assert "another srdeploy is building this engine" in second.stdout.readline()
    (tmp_path / "go").touch()
    sha256 = hashlib.sha256(job.graph).hexdigest()
    assert ended(first)[-1] == sha256
    said = ended(second)
    assert "taken from the store" in said[0]
    assert said[-1] == sha256
    assert (tmp_path / "builds").read_text().split() == [str(first.pid)]
    assert names(store) == {job.digest()}


def test_a_builder_is_killed(job: Job, store: EngineStore, start: Start, tmp_path: Path) -> None:
    """Who waits for it builds in its place."""
    first = start("wait")
    until(tmp_path / "builds", first)
    second = start("plain")
    assert second.stdout is not None
    assert "another srdeploy" in second.stdout.readline()
    first.kill()
    assert "built in" in ended(second)[0]
    assert (tmp_path / "builds").read_text().split() == [str(first.pid), str(second.pid)]
    assert store.verify(lambda _: None) == {}
    assert names(store) == {job.digest()}


@pytest.mark.parametrize("number", [0, 1], ids=["the same engine", "another engine"])
def test_a_writer_is_killed(
    number: int, job: Job, store: EngineStore, start: Start, tmp_path: Path
) -> None:
    writer = start("halt")
    until(tmp_path / "writing", writer)
    partial = f".{job.digest()}.partial"
    assert names(store) == {partial}
    assert store.entries() == ()
    if number:  # the writer lives: what it writes is not touched
        job.obtain(store, 2)
        store.prune()
        assert partial in names(store)
        store.prune(0)
    writer.kill()
    writer.wait()
    before = job.target.builds
    assert job.obtain(store, number).content == job.graph
    assert job.target.builds == before + 1
    assert names(store) == {job.digest(number)}
    assert store.verify(lambda _: None) == {}


def test_no_space(job: Job, store: EngineStore, start: Start) -> None:
    """No file may grow beyond 4 KiB: the engine is delivered, the store is as it was."""
    job.obtain(store, 1)
    said = ended(start("full"))
    assert said[-1] == hashlib.sha256(job.graph).hexdigest()
    assert "note: the engine is not kept in the store" in said[-2]
    assert names(store) == {job.digest(1)}
    assert store.verify(lambda _: None) == {}


def test_an_entry_at_work_is_not_pruned(
    job: Job, store: EngineStore, start: Start, tmp_path: Path
) -> None:
    manifest = Manifest(job.config(), job.spec, hashlib.sha256(b"e").hexdigest(), "e", "CPU")
    store.add(StoredEngine(b"e", manifest, job.graph), job.said.append)
    job.obtain(store, 1)
    builder = start("wait")  # an imported engine is built anew
    until(tmp_path / "builds", builder)
    assert [e.digest for e in store.prune(0)] == [job.digest(1)]
    assert [e.digest for e in store.entries()] == [job.digest(0)]
    (tmp_path / "go").touch()
    ended(builder)
    assert [e.digest for e in store.prune(0)] == [job.digest(0)]
