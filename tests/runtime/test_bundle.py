"""Bundles: one file, the same bytes every time, and nothing in it believed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import EngineError, SrDeployError
from srdeploy.export.pixels import with_pixels
from srdeploy.runtime.bundle import bundle_bytes, read_bundle
from srdeploy.runtime.store_entry import StoredEngine
from srdeploy.runtime.targets import open_target
from srdeploy.spec import BuildConfig, Manifest, Precision, dump


@pytest.fixture(scope="session")
def stored(exported) -> StoredEngine:
    model, spec = exported
    target = open_target("onnxruntime")
    graph = with_pixels(model).SerializeToString()
    sha256 = hashlib.sha256(graph).hexdigest()
    config = BuildConfig(
        "1" * 64, target.name, target.version(), Precision.FP32, graph_sha256=sha256
    )
    content = target.build(graph, config).content
    manifest = Manifest(config, spec, sha256, "net.engine", "CPU", notes=("ünï",))
    return StoredEngine(content, manifest, graph, "all is well\n")


@pytest.fixture
def bundle(stored: StoredEngine, tmp_path: Path) -> Path:
    path = tmp_path / "net.srbundle"
    path.write_bytes(bundle_bytes(stored))
    return path


def test_round_trip(bundle: Path, stored: StoredEngine) -> None:
    assert read_bundle(bundle) == stored
    imported = dataclasses.replace(stored, imported=True)
    assert bundle_bytes(imported) == bundle.read_bytes(), "the same engine gives the same bytes"
    with zipfile.ZipFile(bundle) as file:
        assert file.namelist() == ["engine", "engine.json", "graph.onnx", "build.log"]
        assert file.testzip() is None
    bundle.write_bytes(bundle_bytes(dataclasses.replace(stored, log="")))
    assert read_bundle(bundle).log == ""


Member = tuple[zipfile.ZipInfo, bytes]


def zipped(members: list[Member]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for info, content in members:
            file.writestr(info, content)
    return written.getvalue()


def members_of(stored: StoredEngine) -> list[Member]:
    return [(zipfile.ZipInfo(name), content) for name, content in stored.files().items()]


def info(name: str, mode: int = 0, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = mode << 16
    made.compress_type = method
    return made


def replaced(members: list[Member], name: str, by: Member) -> list[Member]:
    return [by if member.filename == name else (member, content) for member, content in members]


def changed_manifest(members: list[Member], stored: StoredEngine, **changes) -> list[Member]:
    manifest = dataclasses.replace(stored.manifest, **changes)
    return replaced(members, "engine.json", (info("engine.json"), dump(manifest).encode()))


Change = Callable[[list[Member], StoredEngine], list[Member]]
HOSTILE: dict[str, tuple[Change, str]] = {
    "a path upwards": (lambda m, s: [*m[:3], (info("../engine"), b"x")], "no place"),
    "an absolute path": (lambda m, s: [*m[:3], (info("/etc/passwd"), b"x")], "no place"),
    "a folder": (lambda m, s: [*m[:3], (info("engine/"), b"")], "no place"),
    "a stranger": (lambda m, s: [*m[:3], (info("evil.py"), b"x")], "no place"),
    "the mark of the store": (lambda m, s: [*m[:3], (info("imported"), b"")], "no place"),
    "too many": (lambda m, s: [*m, (info("x"), b"x")], "not one that srdeploy wrote"),
    "a link": (
        lambda m, s: replaced(m, "engine", (info("engine", stat.S_IFLNK | 0o777), b"/etc/passwd")),
        "no plain file",
    ),
    "a pipe": (
        lambda m, s: replaced(m, "build.log", (info("build.log", stat.S_IFIFO), b"")),
        "no plain file",
    ),
    "the same twice": (lambda m, s: [*m[:3], (info("engine"), m[0][1])], "twice"),
    "a bomb": (
        lambda m, s: replaced(
            m, "build.log", (info("build.log", 0, zipfile.ZIP_DEFLATED), bytes(50 << 20))
        ),
        "compressed",
    ),
    "no engine": (lambda m, s: m[1:], "holds no engine"),
    "no graph": (lambda m, s: m[:2], r"holds no graph\.onnx"),
    "nothing": (lambda m, s: [], "holds no engine and no engine.json"),
    "another engine": (
        lambda m, s: replaced(m, "engine", (info("engine"), b"evil")),
        "not the one of its manifest",
    ),
    "another graph": (
        lambda m, s: replaced(m, "graph.onnx", (info("graph.onnx"), b"evil")),
        "not the one of its manifest",
    ),
    "no manifest": (
        lambda m, s: replaced(m, "engine.json", (info("engine.json"), b"{")),
        "damaged",
    ),
    "a manifest with no end": (
        lambda m, s: replaced(m, "engine.json", (info("engine.json"), b" " * (5 << 20))),
        "too large",
    ),
    "a file elsewhere": (
        lambda m, s: changed_manifest(m, s, engine_file="../../evil"),
        "not the name of an engine file",
    ),
    "an upper digest": (
        lambda m, s: changed_manifest(m, s, engine_sha256=s.manifest.engine_sha256.upper()),
        "not the one of its manifest",
    ),
}


def test_an_ordinary_zip_of_the_same_members_is_one(stored: StoredEngine, tmp_path: Path) -> None:
    """Or the refusals below would refuse the form and not what is hostile."""
    path = tmp_path / "theirs.srbundle"
    path.write_bytes(zipped(members_of(stored)))
    assert read_bundle(path) == stored


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name: str, stored: StoredEngine, tmp_path: Path) -> None:
    change, words = HOSTILE[name]
    path = tmp_path / "evil.srbundle"
    path.write_bytes(zipped(change(members_of(stored), stored)))
    with pytest.raises(EngineError, match=words) as caught:
        read_bundle(path)
    assert caught.value.hint


CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def patched(content: bytes, signature: bytes, offset: int, form: str, value: int) -> bytes:
    """Overwrite a field of the first record of a kind."""
    made = bytearray(content)
    struct.pack_into(form, made, content.index(signature) + offset, value)
    return bytes(made)


def both(content: bytes, central: int, local: int, form: str, value: int) -> bytes:
    """Overwrite a field of the first member in the directory and before its bytes."""
    return patched(patched(content, CENTRAL, central, form, value), LOCAL, local, form, value)


LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "encrypted": (lambda c: both(c, 8, 6, "<H", 1), "in a way that bundles are not"),
    "a bomb that says it is small": (
        lambda c: both(both(c, 10, 8, "<H", zipfile.ZIP_DEFLATED), 24, 22, "<L", 1),
        "compressed",
    ),
    "a method that nobody has": (lambda c: both(c, 10, 8, "<H", 99), "compressed"),
    "shorter than it says": (lambda c: both(both(c, 20, 18, "<L", 9), 24, 22, "<L", 9), "damaged"),
    "longer than it says": (
        lambda c: both(both(c, 20, 18, "<L", len(c)), 24, 22, "<L", len(c)),
        "damaged|not as long",
    ),
    "four gigabytes": (
        lambda c: both(both(c, 20, 18, "<L", 2**32 - 2), 24, 22, "<L", 2**32 - 2),
        "too large",
    ),
    "a member elsewhere": (lambda c: patched(c, CENTRAL, 42, "<L", 2**31), "damaged"),
    "a million members": (lambda c: patched(c, END, 10, "<H", 65535), "not one that srdeploy"),
    "a huge directory": (lambda c: patched(c, END, 12, "<L", 2**31), "not one that srdeploy"),
    "on two disks": (lambda c: patched(c, END, 4, "<H", 1), "not one that srdeploy"),
    "a comment": (lambda c: patched(c, END, 20, "<H", 2) + b"hi", "no bundle"),
    "something behind": (lambda c: c + b"x", "no bundle"),
    "64 bits": (
        lambda c: c[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + c[-22:],
        "not one that srdeploy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_archives_that_lie(name: str, bundle: Path) -> None:
    change, words = LIES[name]
    bundle.write_bytes(change(bundle.read_bytes()))
    with pytest.raises(EngineError, match=words):
        read_bundle(bundle)


def test_a_bomb_that_says_it_is_stored(stored: StoredEngine, tmp_path: Path) -> None:
    """Its compressed bytes are read as they are, and are not the engine."""
    bomb = zlib.compress(bytes(50 << 20))
    manifest = (info("engine.json"), dump(stored.manifest).encode())
    content = zipped([(info("engine"), bomb), manifest, (info("graph.onnx"), stored.graph)])
    path = tmp_path / "bomb.srbundle"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="not the one of its manifest"):
        read_bundle(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "empty", b""), (tmp_path / "text", b"a text file" * 9)):
        path.write_bytes(content)
        with pytest.raises(EngineError, match="no bundle"):
            read_bundle(path)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EngineError, match="cannot be read"):
            read_bundle(path)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no space
    with pytest.raises(EngineError, match="larger than 2 GiB"):
        read_bundle(large)


@pytest.fixture(scope="module")
def small(stored: StoredEngine, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """A bundle whose engine and graph are short, so that changes meet its records."""
    sha256 = hashlib.sha256(b"graph").hexdigest()
    build = dataclasses.replace(stored.manifest.build, graph_sha256=sha256)
    manifest = dataclasses.replace(
        stored.manifest, build=build, engine_sha256=hashlib.sha256(b"engine").hexdigest()
    )
    made = StoredEngine(b"engine", manifest, b"graph", "log")
    return bundle_bytes(made), tmp_path_factory.mktemp("small") / "b.srbundle"


@given(data=st.data())
def test_no_change_gives_anything_but_an_error_or_a_whole_engine(
    small, data: st.DataObject
) -> None:
    content, path = small
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(changed))))
    path.write_bytes(changed[:cut])
    try:
        stored = read_bundle(path)
    except SrDeployError:
        return
    assert (stored.content, stored.graph) == (b"engine", b"graph")
