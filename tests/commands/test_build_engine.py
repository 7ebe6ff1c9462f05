"""Which engine is kept of those that were built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner
from srdeploy.cli import main
from srdeploy.commands.build_engine import BuildOptions, _best, _searched_for, build_engine
from srdeploy.commands.one_engine import Built
from srdeploy.errors import BuildError, TargetUnavailable
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.runtime import gpu_facts
from srdeploy.runtime.model_file import attach_spec
from srdeploy.spec import BuildConfig, Manifest, ModelSpec, Precision
from srdeploy.validate.results import DatasetResult, PictureResult


def engine(name: str, milliseconds: float | None, drift: float | None) -> Built:
    """An engine of a speed and a drift; None where it was not executed."""
    spec = ModelSpec("vapsr", "v", 4, 8)
    config = BuildConfig("", name, "1", Precision.INT8)
    manifest = Manifest(config, spec, "", name, "", milliseconds=milliseconds)
    pictures = []
    if drift is not None:
        pictures.append(PictureResult("p", 30.0, 30.0 + drift, 0.9, 0.9, 50.0))
    result = DatasetResult("proof", "torch", tuple(pictures))
    return Built(b"", manifest, (result,) if pictures else (), (), None)


def test_the_fastest_within_the_budget_is_kept() -> None:
    ruined, good, slow = engine("a", 5, -8.3), engine("b", 9, -0.03), engine("c", 20, -0.001)
    assert _best([ruined, good, slow], 0.05) is good
    assert _best([ruined, good, slow], 0.01) is slow
    assert _best([ruined, good, slow], 0.0001) is slow, "none is: the least loss"
    assert _best([ruined, good, slow], None) is ruined
    assert _best([engine("d", None, None)], 0.05).manifest.engine_file == "d"


def test_int8_is_always_chosen_by_a_budget() -> None:
    """A target whose int8 sums saturate must not win by its speed."""
    assert _searched_for(BuildOptions(precision=Precision.INT8)) == 0.05
    assert _searched_for(BuildOptions(precision=Precision.INT8, max_drift=0.2)) == 0.2
    assert _searched_for(BuildOptions(precision=Precision.FP32)) is None


def test_a_graph_of_one_size_is_refused(tmp_path: Path) -> None:
    family = architecture("vapsr")
    network = family.build(VapSRConfig(2, 8, 2, 16)).eval()
    spec = dataclasses.replace(family.describe(network.config), random_weights=True)
    model = trace(network, spec, size=(32, 48))
    attach_spec(model, spec)
    path = tmp_path / "static.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="48×32 only"):
        build_engine(path, BuildOptions(), None, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["static.onnx"]


def test_a_provider_goes_with_its_target() -> None:
    done = CliRunner().invoke(main, ["build-engine", "absent.onnx", "--provider", "cuda"])
    assert done.exit_code == 2
    assert "--target onnxruntime" in done.output


def test_a_provider_that_cannot_run_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for int8, whose calibration takes minutes."""
    monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", "/absent/libcuda.so.1")
    family = architecture("vapsr")
    network = family.build(VapSRConfig(2, 8, 2, 16)).eval()
    spec = dataclasses.replace(family.describe(network.config), random_weights=True)
    model = trace(network, spec)
    attach_spec(model, spec)
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    options = BuildOptions("onnxruntime", Precision.INT8, provider="tensorrt")
    with pytest.raises(TargetUnavailable, match="no NVIDIA driver"):
        build_engine(tmp_path / "f.onnx", options, None, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["f.onnx"]
