"""``validate``: what it measures where the engine cannot run, and how it says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from srdeploy import data
from srdeploy.cli import main
from srdeploy.commands.build_engine import BuildOptions, build_engine
from srdeploy.commands.engines import export_engine
from srdeploy.commands.stand_in import left_out
from srdeploy.runtime.engine import read_manifest
from srdeploy.runtime.store import EngineStore
from srdeploy.runtime.targets import open_target
from srdeploy.spec import BuildConfig, Precision

BUILD = BuildOptions("tensorrt-rtx", Precision.FP16, capabilities=("8.9",))


@pytest.fixture
def engine(folder: Path) -> Path:
    """One for a GPU that is not here, the only one of the current directory; a picture too."""
    pytest.importorskip("tensorrt_rtx")
    (folder / "photos").mkdir()
    picture = data.pictures("proof")[0]
    shutil.copy(picture.path, folder / "photos" / picture.file)
    return build_engine(folder / "net.onnx", BUILD, None, lambda _: None).path


def validate(*words: str) -> Result:
    command = ["validate", "--data", "photos", "--json", "figures.json", "--report", "page.html"]
    return CliRunner().invoke(main, [*command, *words])


@pytest.mark.parametrize("named", [True, False])
def test_an_engine_for_a_gpu_that_is_not_here(engine: Path, named: bool) -> None:
    """Its graph is measured elsewhere, and everything says that it is not the engine."""
    done = validate(*(["--engine", engine.name] if named else []))
    assert done.exit_code == 0, done.output
    assert f"{engine.name} cannot run here: " in done.output
    assert ("the newest in this directory" in done.output) != named
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["target"], figures["engine_executed"]) == ("tensorrt-rtx", False)
    assert figures["executed_on"] in ("onnxruntime", "openvino")
    assert f"measuring its graph in {figures['executed_on']}: not the engine itself" in done.output
    assert "note: these are figures of the engine's graph" in done.output
    assert figures["datasets"][0]["psnr_engine"] > 10
    assert "the figures are those of its graph" in Path("page.html").read_text()
    # nor is it fp16, which no CPU target computes
    (note,) = figures["notes"]
    assert note.startswith(f"{figures['executed_on']} computes fp16 in float32: ")
    assert f"note: {note}\n" in done.output
    assert Path("page.html").read_text().count(note) == 1
    assert note in read_manifest(engine).notes
    # the same that the build measured of it, on the pictures that it measured it on
    Path("photos").rename("first")
    Path("photos").mkdir()
    for picture in data.pictures("proof"):
        shutil.copy(picture.path, Path("photos") / picture.file)
    done = validate("--engine", engine.name)
    assert done.exit_code == 0, done.output
    figures = json.loads(Path("figures.json").read_text())
    photographs, drawings = read_manifest(engine).drift
    assert (photographs.hard, drawings.hard) == (False, True)
    drawn = [picture.drawn for picture in data.pictures("proof")]
    whole = np.average(
        [photographs.drift, drawings.drift], weights=[drawn.count(False), sum(drawn)]
    )
    assert figures["datasets"][0]["drift"] == pytest.approx(whole, abs=0.01)
    worst = min((photographs, drawings), key=lambda record: record.worst_drift)
    assert figures["worst_picture"]["name"] == f"photos/{worst.worst}"
    lowest = figures["worst_picture"]["drift"]
    assert f", worst {worst.worst} {lowest:+z.4f} dB, fidelity " in done.output
    assert figures["worst_picture"]["drift"] == pytest.approx(worst.worst_drift, abs=0.01)


def test_a_bundle_brings_its_graph(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = export_engine(EngineStore(), engine.name, None, False, lambda _: None).path
    monkeypatch.setenv("SRDEPLOY_CACHE", str(engine.parent / "another"))
    done = validate("--engine", str(bundle))
    assert done.exit_code == 0, done.output
    assert "not the engine itself" in done.output


def test_without_its_graph(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRDEPLOY_CACHE", str(engine.parent / "another"))
    done = validate()
    assert done.exit_code == 1
    assert "is not in the engine store" in done.output
    assert "--onnx FILE" in done.output
    assert not Path("figures.json").exists()


def test_one_that_runs_here_is_measured_before_a_newer_one_that_does_not(engine: Path) -> None:
    options = BuildOptions("onnxruntime", Precision.FP32)
    ours = build_engine(Path("net.onnx"), options, None, lambda _: None).path
    manifest = engine.with_name(f"{engine.name}.json")
    manifest.write_bytes(manifest.read_bytes())
    done = validate()
    assert done.exit_code == 0, done.output
    assert f"cannot run here: {engine.name}, which is newer" in done.output
    assert f"validating {ours}" in done.output
    figures = json.loads(Path("figures.json").read_text())
    assert (figures["engine_executed"], figures["notes"]) == (True, [])


@pytest.mark.parametrize(
    ("precision", "rest", "told"),
    [
        (Precision.FP16, Precision.FP16, True),
        (Precision.INT8, Precision.FP16, True),
        (Precision.INT8, Precision.FP32, False),
        (Precision.BF16, Precision.BF16, False),
    ],
)
def test_what_a_stand_in_leaves_out(precision: Precision, rest: Precision, told: bool) -> None:
    build = BuildConfig("0" * 64, "tensorrt-rtx", "1", precision, rest)
    for name in ("onnxruntime", "openvino"):
        assert bool(left_out(open_target(name), build)) == told
