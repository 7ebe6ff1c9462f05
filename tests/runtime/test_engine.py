"""Engines on disk: the manifest is believed only where it proves itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from srdeploy.errors import EngineError, OutputError, SrDeployError
from srdeploy.export.pixels import with_pixels
from srdeploy.files import write_bytes
from srdeploy.runtime.engine import manifest_path, open_engine, read_manifest, write_engine
from srdeploy.runtime.targets import open_target
from srdeploy.spec import (
    BuildConfig,
    Gpu,
    Manifest,
    ModelSpec,
    Precision,
    ShapeRange,
    TensorRtOptions,
    dump,
    load,
)


@pytest.fixture
def engine(exported, tmp_path: Path) -> Path:
    model, spec = exported
    target = open_target("onnxruntime")
    config = BuildConfig("1" * 64, target.name, target.version(), Precision.FP32)
    content = target.build(with_pixels(model).SerializeToString(), config).content
    path = tmp_path / "net.engine"
    sha256 = hashlib.sha256(content).hexdigest()
    write_engine(path, content, Manifest(config, spec, sha256, path.name, "CPU"))
    return path


def test_round_trip(engine: Path) -> None:
    session, manifest = open_engine(engine)
    with session:
        assert session.upscale(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 16, 16, 3)
    assert load(Manifest, dump(manifest)) == manifest
    assert sorted(p.name for p in engine.parent.iterdir()) == ["net.engine", "net.engine.json"]


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_changed_byte_is_noticed(engine: Path, position: int) -> None:
    content = bytearray(engine.read_bytes())
    content[position] ^= 1
    engine.write_bytes(content)
    with pytest.raises(EngineError, match="not the file that its manifest describes"):
        open_engine(engine)


def test_another_version_of_the_library(engine: Path) -> None:
    manifest = read_manifest(engine)
    build = dataclasses.replace(manifest.build, target_version="0.1")
    older = dataclasses.replace(manifest, build=build)
    manifest_path(engine).write_text(dump(older))
    with pytest.raises(EngineError, match=r"built for onnxruntime 0\.1"):
        open_engine(engine)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("srdeploy::oca 2", "srdeploy::oca of version 2, this srdeploy has version 1"),
        ("srdeploy::gone 1", "srdeploy::gone of version 1, this srdeploy has no such plugin"),
        ("nonsense", "no such plugin"),
    ],
)
def test_an_engine_that_calls_another_plugin(engine: Path, plugin: str, reason: str) -> None:
    path = manifest_path(engine)
    manifest = json.loads(path.read_text())
    manifest["build"]["plugins"] = ["srdeploy::enla_apply 1", "srdeploy::oca 1"]
    path.write_text(json.dumps(manifest))
    session, _ = open_engine(engine)
    session.close()
    manifest["build"]["plugins"] += [plugin]
    path.write_text(json.dumps(manifest))
    with pytest.raises(EngineError, match=reason):
        open_engine(engine)


def change(document: dict, path: str, value: object) -> str:
    *parents, last = path.split(".")
    inner = document
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    inner[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("engine_sha256", 5),
        ("format", 1),
        ("build.precision", "int3"),
        ("build.profiles.0.minimum", [1]),
        ("build.profiles.0.minimum", [4000, 4000]),
        ("model.scale", "4"),
        ("model", None),
        ("extra", 1),
        ("build.target", "../../etc/passwd"),
        ("build.target", "nonsense"),
        ("notes", "text"),
    ],
)
def test_hostile_manifests(engine: Path, path: str, value: object) -> None:
    document = json.loads(manifest_path(engine).read_text())
    manifest_path(engine).write_text(change(document, path, value))
    with pytest.raises(SrDeployError) as caught:
        open_engine(engine)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\x00"])
def test_manifests_that_are_none(engine: Path, text: str) -> None:
    manifest_path(engine).write_text(text)
    with pytest.raises(EngineError):
        read_manifest(engine)


def test_missing_files(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no engine"):
        open_engine(tmp_path / "absent")
    manifest_path(engine).unlink()
    with pytest.raises(EngineError, match="no manifest"):
        open_engine(engine)


def test_a_full_disk_leaves_the_old_pair(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the manifest is written: engine and manifest stay the old ones."""
    before = {p.name: p.read_bytes() for p in engine.parent.iterdir()}
    newer = dataclasses.replace(
        read_manifest(engine), engine_sha256=hashlib.sha256(b"new").hexdigest()
    )
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if content.startswith(b"{"):
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_engine(engine, b"new", newer)
    assert {p.name: p.read_bytes() for p in engine.parent.iterdir()} == before


def test_key_holds_every_option() -> None:
    """Changing any field of the build input changes its digest."""
    base = BuildConfig("a", "t", "1", Precision.INT8)
    other = {
        "onnx_sha256": "b",
        "target": "u",
        "target_version": "2",
        "precision": Precision.FP16,
        "rest": Precision.BF16,
        "profiles": (ShapeRange((1, 1), (2, 2), (3, 3)),),
        "calibration_sha256": "c",
        "float_nodes": ("n",),
        "capabilities": ("8.6",),
        "plugins": ("srdeploy::oca 1",),
        "islands": ("n",),
        "recovery_sha256": "3",
        "graph_sha256": "4",
        "provider": "cuda",
        "tensorrt": TensorRtOptions(tf32=True),
        "gpu": Gpu("a GPU", "8.6", "13.0"),
        "in_pairs": True,
    }
    assert set(other) == {f.name for f in dataclasses.fields(BuildConfig)}
    digests = {dataclasses.replace(base, **{k: v}).digest() for k, v in other.items()}
    assert len(digests | {base.digest()}) == len(other) + 1


def test_spec_json_round_trip() -> None:
    spec = ModelSpec(
        "a", "b", 4, 7, True, 255.0, (0.1, 0.2, 0.3), ("la/*",), config={"x": [1, 2]}, weights="ünï"
    )
    assert load(ModelSpec, dump(spec)) == spec


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    with pytest.raises(OutputError, match="could not be written"):
        write_bytes(tmp_path / "absent" / "f", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        write_bytes(tmp_path / "folder", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "folder"]
