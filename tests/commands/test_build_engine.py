"""Which engine is kept of those that were built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import srdeploy.commands.build_engine as build_engine_module
import torch
from click.testing import CliRunner
from srdeploy.cli import main
from srdeploy.commands.build_engine import (
    FOR_NVIDIA,
    BuildOptions,
    _searched_for,
    _targets,
    build_engine,
)
from srdeploy.commands.delivery import best_of
from srdeploy.commands.one_engine import Built
from srdeploy.errors import BuildError, TargetUnavailable
from srdeploy.export.passes import run_passes
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import describe
from srdeploy.runtime import gpu_facts
from srdeploy.runtime.engine import open_engine, read_manifest
from srdeploy.runtime.targets import target_names
from srdeploy.spec import Budget, BuildConfig, Manifest, ModelSpec, Precision, ShapeRange
from srdeploy.validate.results import DatasetResult, PictureResult, to_records


def engine(name: str, milliseconds: float | None, *drifts: float | None) -> Built:
    """An engine of a speed and the drifts of pictures; None where it was not executed."""
    spec = ModelSpec("vapsr", "v", 4, 8)
    config = BuildConfig("", name, "1", Precision.INT8)
    pictures = [
        PictureResult(f"p{index}", 30.0, 30.0 + drift, 0.9, 0.9, 50.0)
        for index, drift in enumerate(drifts)
        if drift is not None
    ]
    results = (DatasetResult("proof", "torch", tuple(pictures)),) if pictures else ()
    manifest = Manifest(
        config, spec, "", name, "", milliseconds=milliseconds, drift=to_records(results, name)
    )
    return Built(b"", manifest, results, (), None)


def test_the_fastest_within_the_budget_is_kept() -> None:
    ruined, good, slow = engine("a", 5, -8.3), engine("b", 9, -0.03), engine("c", 20, -0.001)
    assert best_of([ruined, good, slow], Budget.of_mean(0.05)) is good
    assert best_of([ruined, good, slow], Budget.of_mean(0.01)) is slow
    assert best_of([ruined, good, slow], Budget.of_mean(0.0001)) is slow, "none is: the least loss"
    assert best_of([ruined, good, slow], None) is ruined
    assert best_of([engine("d", None, None)], Budget.of_mean(0.05)).manifest.engine_file == "d"


def test_of_engines_as_fast_as_each_other_the_better_is_kept() -> None:
    """And none is whose worst picture is beyond the budget, however good its mean."""
    quick, better = engine("a", 9.6, -0.04), engine("b", 10, -0.01)
    assert best_of([quick, better], Budget.of_mean(0.05)) is better
    assert best_of([quick, engine("c", 10.2, -0.01)], Budget.of_mean(0.05)) is quick
    spread = engine("d", 2, 0.2, -0.21)
    assert best_of([spread, better], Budget(0.05, 0.2)) is better
    assert best_of([spread, better], Budget(0.05, 0.3)) is spread


def test_int8_is_always_chosen_by_a_budget() -> None:
    """A target whose int8 sums saturate must not win by its speed."""
    assert _searched_for(BuildOptions(precision=Precision.INT8)) == Budget(0.05, 0.2)
    given = Budget(0.2, 0.3)
    assert _searched_for(BuildOptions(precision=Precision.INT8, budget=given)) == given
    assert _searched_for(BuildOptions(precision=Precision.FP32)) is None


SIZE = (64, 96)


def static_export(path: Path, name: str, config: object) -> Path:
    """A network of random weights, exported for frames of ``SIZE`` alone."""
    family = architecture(name)
    torch.manual_seed(1)
    network = family.build(config).eval()
    spec = describe(family, config, network, "test")
    model = trace(network, spec, size=SIZE)
    run_passes(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def static_vapsr(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("static") / "static.onnx"
    return static_export(path, "vapsr", VapSRConfig(2, 8, 1, 16))


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("onnxruntime", Precision.FP32),
        ("openvino", Precision.FP32),
        pytest.param("openvino", Precision.INT8, marks=pytest.mark.slow),
        pytest.param("onnxruntime", Precision.INT8, marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_one_size(
    static_vapsr: Path,
    target: str,
    precision: Precision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is built, its drift measured, and it takes frames of any size."""
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "cache"))
    options = BuildOptions(target, precision, budget=Budget.of_mean(9.0), min_int8=1.0)
    result = build_engine(static_vapsr, options, tmp_path / "e", lambda _: None)
    assert result.manifest.build.profiles == (ShapeRange.static(*SIZE),)
    photographs, drawings = result.manifest.drift
    assert (photographs.dataset, photographs.hard) == ("bundled photographs", False)
    assert (drawings.dataset, drawings.hard) == ("bundled drawings", True)
    lost, fidelity = (0.02, 45) if precision is Precision.FP32 else (9.0, 20)
    for record in (photographs, drawings):
        assert abs(record.drift) <= lost
        assert record.fidelity > fidelity
    assert read_manifest(result.path).budget == Budget.of_mean(9.0)
    assert (result.manifest.int8_mac_share > 0.7) == (precision is Precision.INT8)
    session, _ = open_engine(result.path)
    with session:
        assert session.upscale(np.zeros((1, 100, 90, 3), np.uint8)).shape == (1, 200, 180, 3)
        assert len(session.notes) == 2, "cut in one direction, mirrored in the other"


def test_another_size_than_that_of_the_graph_is_refused(static_vapsr: Path, tmp_path: Path) -> None:
    options = BuildOptions("onnxruntime", profiles=(ShapeRange.static(64, 64),))
    with pytest.raises(BuildError, match="96×64 only"):
        build_engine(static_vapsr, options, tmp_path / "e", lambda _: None)
    assert not list(tmp_path.iterdir())


def test_int8_of_a_graph_that_holds_its_size(tmp_path: Path) -> None:
    """The masks of shifted windows are constants of a static export."""
    tiny = next(v.config for v in architecture("hat").variants if v.tiny)
    path = static_export(tmp_path / "hat.onnx", "hat", tiny)
    options = BuildOptions("onnxruntime", Precision.INT8)
    with pytest.raises(BuildError, match="stands in the graph's constants") as caught:
        build_engine(path, options, None, lambda _: None)
    assert "--shapes 64x96" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["hat.onnx"]


def test_a_provider_goes_with_its_target() -> None:
    done = CliRunner().invoke(main, ["build-engine", "absent.onnx", "--provider", "cuda"])
    assert done.exit_code == 2
    assert "--target onnxruntime" in done.output


def test_a_provider_that_cannot_run_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for int8, whose calibration takes minutes."""
    monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", "/absent/libcuda.so.1")
    path = static_export(tmp_path / "f.onnx", "vapsr", VapSRConfig(2, 8, 2, 16))
    options = BuildOptions("onnxruntime", Precision.INT8, provider="tensorrt")
    with pytest.raises(TargetUnavailable, match="no NVIDIA driver"):
        build_engine(path, options, None, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["f.onnx"]


def test_libraries_for_gpus_are_missed_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine without a GPU is told nothing of TensorRT, one with a GPU is."""
    assert set(target_names()) >= FOR_NVIDIA
    monkeypatch.setattr(build_engine_module, "target_names", lambda: ("absent", "onnxruntime"))
    monkeypatch.setattr(build_engine_module, "FOR_NVIDIA", {"absent"})
    for problem, heard in (("there is no driver", False), (None, True)):
        said: list[str] = []
        monkeypatch.setattr(gpu_facts, "driver_problem", lambda *_, p=problem: p)
        (target,) = _targets(BuildOptions(), said.append)
        assert target.name == "onnxruntime"
        assert any("absent" in line for line in said) == heard
