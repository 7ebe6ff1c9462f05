"""The benchmark of engines, whole, on the CPU: every part either ran or says why not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper
from srdeploy.bench.float_digits import from_digits, to_digits, with_digits
from srdeploy.bench.gpu_engines import main
from srdeploy.bench.recording import NotRun, attempt, marked
from srdeploy.bench.roofline import floor
from srdeploy.errors import EngineError, TargetUnavailable
from srdeploy.runtime.targets.onnxruntime import graph_runner

TARGETS = ("onnxruntime", "onnxruntime:cuda", "tensorrt", "nonsense")
SIZE = "speed 40x24"


@pytest.fixture(scope="module")
def found(repository: Path, tmp_path_factory) -> dict:
    """What the benchmark writes of a tiny network, without torch.compile, which takes long."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "golden").mkdir()
    name = "vapsr_tiny_x2.safetensors"
    (folder / "golden" / name).write_bytes((repository / "tests/golden" / name).read_bytes())
    arguments = [f"--target={name}" for name in TARGETS]
    arguments += ["--models=vapsr-tiny,nonsense", "--sizes=40x24", "--precisions=fp32,int8,bf16"]
    arguments += ["--seconds=0.1", "--rounds=2", "--rivals=torch,ort"]
    arguments += [f"--golden={folder / 'golden'}", f"--json={folder / 'found.json'}"]
    before = os.environ.get("SRDEPLOY_CACHE")
    with pytest.raises(SystemExit) as ended:  # there is no model called nonsense
        main(arguments)
    assert ended.value.code == 1
    assert os.environ.get("SRDEPLOY_CACHE") == before
    return json.loads((folder / "found.json").read_text())


def test_an_engine_on_the_cpu(found) -> None:
    target = found["targets"]["onnxruntime"]
    assert target["dry_run"] is True
    (golden,) = target["golden"]
    assert golden["network"] == "vapsr_tiny_x2"
    assert golden["within"] is True
    assert 0 < golden["error"] < 2e-5
    network = target["models"]["vapsr-tiny"]
    assert 0 < network["parity"]["max_relative_error"] < 2e-5
    for precision, lost in (("fp32", 0.001), ("int8", 0.2)):
        measured = network[precision]
        cold, again = measured["build"]["seconds"].values()
        assert again > 0
        assert cold > 0
        (drift,) = measured["drift"]
        assert abs(drift["drift"]) < lost
        assert drift["reference_runtime"] == "torch"
    assert network["int8"]["build"]["int8_mac_share"] == 1


def test_speed_and_rivals(found) -> None:
    measured = found["targets"]["onnxruntime"]["models"]["vapsr-tiny"]["fp32"][SIZE]
    ours = [f"onnxruntime, {lanes} in flight" for lanes in (1, 2, 3)]
    rivals = ["PyTorch float32 channels_last", "ONNX Runtime cpu, same graph"]
    assert list(measured["contestants"]) == ours + rivals
    for figures in measured["contestants"].values():
        assert len(figures["rounds"]) == 2
        times = figures["milliseconds"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert figures["calls"] >= 2 * figures["in_flight"]
    for name in ours:
        for rival in rivals:
            low, high = measured["times_faster"][name][rival]["range"]
            assert 0 < low <= measured["times_faster"][name][rival]["median"] <= high
    assert all(db > 50 for db in measured["agreement_db"].values())
    assert set(measured["roofline"]["share"]) == set(ours)
    assert measured["roofline"]["floor_ms"] > 0


def test_what_cannot_be_had_is_said(found) -> None:
    reasons = dict(marked(found, "not_run"))
    network = "targets/onnxruntime/models/vapsr-tiny"
    assert "no CUDA graphs" in reasons[f"{network}/fp32/graphs"]
    assert "does not tell" in reasons[f"{network}/fp32/layers"]
    assert "builds no bf16" in reasons[f"{network}/bf16/build"]
    assert "no target is called" in reasons["targets/nonsense"]
    assert set(found["targets"]) == set(TARGETS)
    failed = dict(marked(found, "failed"))
    assert list(failed) == ["networks/nonsense"]
    assert "no model is called" in failed["networks/nonsense"]


@pytest.mark.parametrize(
    ("error", "mark"),
    [
        (NotRun("there is none"), "not_run"),
        (TargetUnavailable("there is none", "hint"), "not_run"),
        (EngineError("there is none", "hint"), "failed"),
        (ZeroDivisionError("there is none"), "failed"),
    ],
)
def test_attempts(error: Exception, mark: str) -> None:
    def part() -> None:
        raise error

    assert "there is none" in attempt(part)[mark]


@settings(max_examples=20)
@given(
    arrays.arrays(np.float32, (2, 3, 4, 5), elements=st.floats(0, 1, width=32)),
    st.floats(-3, 3, width=32),
)
def test_floats_as_digits(values: np.ndarray, low: float) -> None:
    """Through a graph that only adds: what comes out is what went in, to float32's rounding."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, "h", "w"]) for n in "xy"]
    shift = helper.make_tensor("c", TensorProto.FLOAT, [], [low])
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    graph = helper.make_graph(nodes, "shift", value[:1], value[1:], [shift])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    run = graph_runner(with_digits(model, low - 1, low + 3))
    got = from_digits(run({"frames": to_digits(values)})["upscaled"], low - 1, low + 3)
    assert np.abs(got - (values + np.float32(low))).max() < 1e-6


def test_the_floor_of_a_frame() -> None:
    """One convolution: 3·3·9 products a pixel, six values a pixel and the filter to carry."""
    weight = numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "w")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, "h", "w"]) for n in "xy"]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4)
    graph = helper.make_graph([node], "conv", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    pixels = 24 * 40
    carried = 4 * (6 * pixels + 81)
    memory = floor(model, 24, 40, {"bytes_per_s": 1e9, "fp32_flops": 1e15})
    assert memory == {
        "macs": 81 * pixels,
        "bytes": carried,
        "floor_ms": pytest.approx(carried / 1e6),
        "memory_bound": 1,
    }
    computing = floor(model, 24, 40, {"bytes_per_s": 1e15, "fp32_flops": 1e9})
    assert computing["floor_ms"] == pytest.approx(2 * 81 * pixels / 1e6)
    assert computing["memory_bound"] == 0
    with pytest.raises(NotRun, match="fp32_flops"):
        floor(model, 24, 40, {"bytes_per_s": 1e9})
