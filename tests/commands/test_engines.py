"""Stale engines, bundles and ``srdeploy engines``, from command to engine."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from srdeploy import data
from srdeploy.cli import main
from srdeploy.commands.build_engine import BuildOptions, build_engine
from srdeploy.commands.engines import format_engines
from srdeploy.commands.opening import manifest_of, open_or_rebuild
from srdeploy.commands.run import run
from srdeploy.commands.validate import validate
from srdeploy.errors import EngineError, StaleEngine
from srdeploy.export.passes import run_passes
from srdeploy.export.pixels import with_pixels
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import describe
from srdeploy.runtime.engine import manifest_path, read_manifest, write_engine
from srdeploy.runtime.model_file import attach_spec
from srdeploy.runtime.store import EngineStore
from srdeploy.runtime.targets.onnxruntime import OnnxRuntimeTarget
from srdeploy.runtime.video import VideoOptions
from srdeploy.spec import BuildConfig, DriftRecord, Manifest, ModelSpec, Precision, dump

OLD = "0.1"
PICTURES = ("sha256:" + "0" * 64,)


class Older(OnnxRuntimeTarget):
    """The real target, as an earlier version of its library."""

    def version(self) -> str:
        return OLD


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, ModelSpec]:
    """A tiny exported network: its file, its graph with pixels, its description."""
    torch.manual_seed(5)
    family = architecture("vapsr")
    network = family.build(VapSRConfig(2, 8, 1, 8)).eval().requires_grad_(False)
    spec = describe(family, network.config, network, "test")
    model = trace(network, spec)
    run_passes(model)
    attach_spec(model, spec)
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return path, with_pixels(model).SerializeToString(), spec


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineStore:
    """The store of commands, empty, in an empty current directory."""
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return EngineStore()


def engine_of(store: EngineStore, exported, target: OnnxRuntimeTarget) -> Path:
    """An engine in the current directory, as build-engine writes it, and in the store."""
    path, graph, spec = exported
    config = BuildConfig(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        target.name,
        target.version(),
        Precision.FP32,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    built = store.obtain(target, graph, config, spec, lambda _: None, 0.5, PICTURES)
    sha256 = hashlib.sha256(built.content).hexdigest()
    engine = Path("net.engine")
    manifest = Manifest(
        config, spec, sha256, engine.name, "CPU", 0.5, calibration_pictures=PICTURES
    )
    write_engine(engine, built.content, manifest)
    return engine


@pytest.fixture
def stale(store: EngineStore, exported) -> Path:
    return engine_of(store, exported, Older())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Versions that the engines which are opened were built for."""
    versions: list[str] = []
    really = OnnxRuntimeTarget._open

    def watched(self, content, manifest, parallel, device):
        versions.append(manifest.build.target_version)
        return really(self, content, manifest, parallel, device)

    monkeypatch.setattr(OnnxRuntimeTarget, "_open", watched)
    return versions


FRAME = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)


def test_a_stale_engine_is_rebuilt(stale: Path, store: EngineStore, opened: list[str]) -> None:
    before = {p.name: p.read_bytes() for p in Path().iterdir()}
    said: list[str] = []
    session, manifest = open_or_rebuild(stale, said.append)
    with session:
        assert session.upscale(FRAME).shape == (1, 32, 32, 3)
    here = OnnxRuntimeTarget().version()
    assert opened == [here]
    assert manifest.build == dataclasses.replace(
        read_manifest(stale).build, target_version=here, provider="cpu"
    )
    assert (manifest.drift, manifest.milliseconds) == ((), None)
    assert (manifest.int8_mac_share, manifest.calibration_pictures) == (0.5, PICTURES)
    assert "its drift was not measured on this machine" in manifest.notes
    assert f"built for onnxruntime {OLD}, here is {here}" in said[0]
    assert any("built in" in line for line in said)
    assert any("was not measured" in line for line in said)
    digest = manifest.build.digest()
    assert f"engines export {digest[:12]} --as-engine -o FILE" in said[-1]
    assert {p.name: p.read_bytes() for p in Path().iterdir()} == before
    assert len(store.entries()) == 2

    said.clear()
    session, again = open_or_rebuild(stale, said.append)
    session.close()
    assert any("taken from the store" in line for line in said)
    assert again == manifest


@pytest.mark.parametrize("why", ["pruned", "damaged"])
def test_a_stale_engine_without_its_graph_is_refused(
    why: str, stale: Path, store: EngineStore, opened: list[str]
) -> None:
    if why == "pruned":
        store.prune(0)
    else:
        graph = store.entries()[0].folder / "graph.onnx"
        graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(StaleEngine, match=rf"built for onnxruntime {OLD}, here is .* not in the"):
        open_or_rebuild(stale, lambda _: None)
    with pytest.raises(StaleEngine):
        run(Path(data.pictures("proof")[0].path), Path("x.png"), stale, VideoOptions(),
            lambda _: None, lambda *_: None)  # fmt: skip
    assert opened == []
    assert not Path("x.png").exists()


def test_what_cannot_be_rebuilt_says_both(stale: Path, store: EngineStore, exported) -> None:
    """The precision was dropped, say."""
    manifest = read_manifest(stale)
    text = b"no graph at all"
    build = dataclasses.replace(
        manifest.build, graph_sha256=hashlib.sha256(text).hexdigest(), precision=Precision.FP16
    )
    folder = store.entries()[0].folder
    changed = dataclasses.replace(manifest, build=build)
    (folder / "graph.onnx").write_bytes(text)
    (folder / "engine.json").write_text(dump(changed))
    manifest_path(stale).write_text(dump(changed))
    with pytest.raises(StaleEngine, match=r"built for onnxruntime 0\.1.*cannot be rebuilt here"):
        open_or_rebuild(stale, lambda _: None)


def test_run_and_validate_rebuild(stale: Path, store: EngineStore, exported) -> None:
    picture = data.pictures("proof")[0].path
    said: list[str] = []
    result = run(picture, Path("x.png"), None, VideoOptions(), said.append, lambda *_: None)
    assert result.frames == 1
    assert Path("x.png").is_file()
    assert any("rebuilding it from its graph" in line for line in said)
    folder = Path("pictures")
    folder.mkdir()
    (folder / picture.name).write_bytes(picture.read_bytes())
    found = validate(stale, exported[0], folder, said.append, None)
    assert found.manifest is not None
    assert found.manifest.build.target_version == OnnxRuntimeTarget().version()
    assert abs(found.datasets[0].drift) < 0.05


def test_building_again_takes_it_from_the_store(store: EngineStore, exported) -> None:
    said: list[str] = []
    options = BuildOptions("onnxruntime", Precision.FP32)
    first = build_engine(exported[0], options, Path("a.engine"), said.append)
    assert not any("from the store" in line for line in said)
    (entry,) = store.entries()
    assert entry.manifest is not None
    assert entry.manifest.drift == first.manifest.drift
    assert entry.manifest.milliseconds == first.manifest.milliseconds
    said.clear()
    second = build_engine(exported[0], options, Path("b.engine"), said.append)
    assert any("taken from the store" in line for line in said)
    assert not any("built in" in line for line in said)
    assert Path("a.engine").read_bytes() == Path("b.engine").read_bytes()
    assert second.manifest.drift == first.manifest.drift
    assert second.manifest.notes == first.manifest.notes
    assert len(store.entries()) == 1


def srdeploy(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["engines", *words])
    assert result.exit_code == code, result.output
    return result


def test_list_verify_prune(store: EngineStore, exported) -> None:
    assert "0 engines" in srdeploy("ls").output
    engine_of(store, exported, OnnxRuntimeTarget())
    engine_of(store, exported, Older())
    newest, oldest = store.entries()
    listed = srdeploy("ls").output.splitlines()
    assert listed[0].startswith("2 engines, ")
    assert listed[1].split()[0] == "engine"
    assert listed[2].startswith(newest.digest[:12])
    assert f"onnxruntime {OLD}" in listed[2]
    document = json.loads(srdeploy("ls", "--json", "-", "--quiet").output)
    assert [row["digest"] for row in document["engines"]] == [newest.digest, oldest.digest]
    assert document["bytes"] == newest.size + oldest.size
    row = document["engines"][0]
    assert (row["precision"], row["milliseconds"], row["drift"]) == ("fp32", None, None)

    assert "whole: 2 engines" in srdeploy("verify").output
    (oldest.folder / "engine").write_bytes(b"evil")
    (newest.folder / "engine.json").write_text("{}")
    assert "damaged: its manifest cannot be read" in srdeploy("ls").output
    result = srdeploy("verify", "--json", "v.json", code=1)
    assert "error: 2 of 2 engines damaged" in result.output
    assert oldest.digest[:12] in result.output
    assert set(json.loads(Path("v.json").read_text())["damaged"]) == {newest.digest, oldest.digest}
    assert len(store.entries()) == 2
    srdeploy("verify", "--repair")
    assert store.entries() == ()

    engine_of(store, exported, OnnxRuntimeTarget())
    assert "removed 0 engines" in srdeploy("prune").output
    assert "removed 0 engines" in srdeploy("prune", "--older", "1", "--keep", "1").output
    result = srdeploy("prune", "--keep", "0", "--json", "p.json")
    assert "removed 1 engine, freed 0." in result.output
    assert json.loads(Path("p.json").read_text())["freed_bytes"] > 0
    srdeploy("prune", "--keep", "-1", code=2)


def test_the_list_shows_the_drift_that_is_held(store: EngineStore, exported) -> None:
    """Not that of drawings, of which each picture is held."""
    manifest = read_manifest(engine_of(store, exported, OnnxRuntimeTarget()))
    (entry,) = store.entries()
    photographs = DriftRecord("photographs", 30.0, 29.98, -0.02, 50.0, "torch")
    drawings = dataclasses.replace(photographs, drift=-0.1, hard=True)
    for records, shown in (((photographs, drawings), -0.02), ((drawings,), -0.1)):
        store.record(entry.digest, dataclasses.replace(manifest, drift=records))
        document = json.loads(srdeploy("ls", "--json", "-", "--quiet").output)
        assert document["engines"][0]["drift"] == shown


ROW = {
    "digest": "7e5296dbf868" + "0" * 52,
    "bytes": 6 << 20,
    "used": "2026-11-28T13:29:05+00:00",
    "variant": "vapsr-s-x4",
    "target": "openvino",
    "target_version": "2026.4.1-20000-abc",
    "precision": "int8",
    "device": "Intel(R) Xeon(R) Processor",
    "milliseconds": 95.2,
    "drift": -0.0001,
}
ROWS = [
    ROW,
    ROW | {"variant": "attentionsr-layer-x4", "milliseconds": None, "drift": None},
    {"digest": "3f2a" + "1" * 60, "bytes": 1 << 19, "used": ROW["used"], "variant": None},
]
TOLD = [
    ("7e5296dbf868", "95.2", "+0.000", "6.0", "2026-11-28 13:29"),
    ("7e5296dbf868", "–", "–", "6.0", "2026-11-28 13:29"),
    ("3f2a11111111", "–", "–", "0.5", "2026-11-28 13:29"),
]
WHAT = [
    "vapsr-s-x4 int8, openvino 2026.4.1, Intel(R) Xeon(R) Processor",
    "attentionsr-layer-x4 int8, openvino 2026.4.1, Intel(R) Xeon(R) Processor",
    "damaged: its manifest cannot be read",
]


def listing(rows: list[dict], width: int) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None)
    console.print(format_engines({"engines": rows}), crop=False)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 72, 73, 80, 120, 10_000])
def test_the_list_on_terminals_of_all_widths(width: int) -> None:
    lines = listing(ROWS, width)
    assert not [line for line in lines if len(line) > width or line.endswith(" ")]
    if width < 80:  # below 74 columns attentionsr-layer-x4 has no room beside the figures
        told = " ".join(" ".join(lines).split())
        assert told == " ".join(
            f"{digest} {speed} ms, drift {drift} dB, {size} MiB, used {used} UTC {what}"
            for (digest, speed, drift, size, used), what in zip(TOLD, WHAT, strict=True)
        )
        assert [line for line in lines if not line.startswith(" ")] == [row[0] for row in TOLD]
        return
    head, *rest = lines
    column = head.index("what")
    assert head.split() == ["engine", "ms", "drift,", "dB", "MiB", "used", "(UTC)", "what"]
    figures = [tuple(line[:column].split(maxsplit=4)) for line in rest if line[0] != " "]
    assert [(*row[:-1], row[-1].strip()) for row in figures] == TOLD
    assert " ".join(line[column:] for line in rest) == " ".join(WHAT)


def test_the_table_stands_wherever_its_words_have_room() -> None:
    assert listing([ROW], 72)[0].endswith("what")
    assert listing([ROW], 69)[0] == "7e5296dbf868"
    assert listing([], 40) == []


def test_moved_to_another_machine(
    store: EngineStore, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(store, exported, OnnxRuntimeTarget())
    (entry,) = store.entries()
    srdeploy("export", engine.name)
    srdeploy("export", entry.digest[:12], "-o", "same.srbundle")
    bundle = Path("net.engine.srbundle")
    assert manifest_of(bundle) == read_manifest(engine)
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "another machine"))
    for words in (["import", str(bundle)], ["import", str(bundle), "-o", "got.engine"]):
        assert f"in the store as {entry.digest[:12]}" in srdeploy(*words).output
    assert Path("got.engine").read_bytes() == engine.read_bytes()
    assert read_manifest(Path("got.engine")).engine_file == "got.engine"
    assert [e.digest for e in EngineStore().entries()] == [entry.digest]
    said: list[str] = []
    session, manifest = open_or_rebuild(bundle, said.append)
    with session:
        assert session.upscale(FRAME).shape == (1, 32, 32, 3)
    assert manifest == read_manifest(engine)
    srdeploy("export", entry.digest[:12], "--as-engine", "-o", "as.engine")
    assert Path("as.engine").read_bytes() == engine.read_bytes()
    open_or_rebuild(Path("as.engine"), said.append)[0].close()
    assert said == []
    assert "was not measured" in read_manifest(Path("as.engine")).notes[-1]


def test_a_stale_bundle_is_rebuilt(
    stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    srdeploy("export", stale.name, "-o", "old.srbundle")
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "another machine"))
    result = srdeploy("import", "old.srbundle", "-o", "new.engine")
    assert f"built for onnxruntime {OLD}" in result.output
    here = OnnxRuntimeTarget().version()
    assert read_manifest(Path("new.engine")).build.target_version == here
    (entry,) = EngineStore().entries()
    assert entry.manifest is not None
    assert entry.manifest.build.target_version == here
    session, manifest = open_or_rebuild(Path("old.srbundle"), lambda _: None)
    session.close()
    assert manifest.build.target_version == here
    assert opened == [here]


def test_what_cannot_be_exported(stale: Path, store: EngineStore) -> None:
    names = [e.digest for e in store.entries()]
    Path("folder").mkdir()
    short = "no engine file, and too short for the beginning of a digest: that needs at least 4"
    for word, problem in {
        "abc": f"'abc' is {short}",
        "": f"'' is {short}",
        names[0][:3]: f"'{names[0][:3]}' is {short}",
        "absent.engine": "there is no engine file absent.engine\n",
        "a/net": "there is no engine file a/net\n",
        "g" * 12: f"there is no engine file {'g' * 12}\n",
        "folder": "there is no engine file folder: it is a folder\n",
        "0" * 12: f"'{'0' * 12}' is no engine file and names 0 engines",
    }.items():
        output = srdeploy("export", word, code=1).output
        assert output.startswith(f"error: {problem}")
        assert "srdeploy engines ls shows" in output
    store.prune(0)
    assert "not in the store" in srdeploy("export", stale.name, code=1).output
    assert "error: " in srdeploy("import", stale.name, code=1).output
    Path("evil.srbundle").write_bytes(b"PK")
    assert "error: " in srdeploy("import", "evil.srbundle", "-o", "x", code=1).output
    with pytest.raises(EngineError):
        manifest_of(Path("evil.srbundle"))
    assert not Path("x").exists()
    assert store.entries() == ()


def test_words_of_a_manifest_do_not_steer_the_terminal(store: EngineStore, exported) -> None:
    engine_of(store, exported, OnnxRuntimeTarget())
    (entry,) = store.entries()
    assert entry.manifest is not None
    changed = dataclasses.replace(entry.manifest, device="\x1b[2J\ud800 GPU")
    (entry.folder / "engine.json").write_text(dump(changed))
    output = srdeploy("ls").output
    assert "\x1b" not in output
    assert "GPU" in output
