"""The whole of int8 calibration, on a small network and on VapSR-S."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from srdeploy.calib import ranges, rounding, sensitivity
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.channels import convolved_tensors
from srdeploy.calib.cost import Costs
from srdeploy.calib.int8 import calibrate_int8
from srdeploy.calib.journal import Journal
from srdeploy.calib.observers import OBSERVERS
from srdeploy.calib.pictures import NamedPicture
from srdeploy.calib.quantiser import Quantiser
from srdeploy.calib.tuning import Tuning, TuningPair, mean_psnr, tuning_pairs
from srdeploy.commands.finetune import _repaired_tensors
from srdeploy.errors import DatasetError, ExportError
from srdeploy.export.macs import int8_mac_share
from srdeploy.export.passes import run_passes
from srdeploy.export.precision import lower
from srdeploy.export.quantise import activations, quantisable_nodes
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.runtime.targets.onnxruntime import graph_runner
from srdeploy.spec import TAIL, Precision
from srdeploy.validate.datasets import find_datasets

SCALE = 2


@pytest.fixture(scope="module")
def calibration(photographs):
    return make_calibration_set(photographs, (40, 60), 8, 1)


@pytest.fixture(scope="module")
def journal(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("calibration") / "journal.jsonl"


@pytest.fixture(scope="module")
def calibrated(exported, calibration, photographs, journal):
    return calibrate_int8(exported, calibration, photographs, SCALE, journal=Journal(journal))


def test_calibration_as_a_whole(calibrated, exported) -> None:
    assert set(calibrated.repaired.quantiser.ranges) == set(
        activations(calibrated.repaired.quantiser.model)
    )
    assert {node.node for node in calibrated.repaired.ranked} == set(quantisable_nodes(exported))
    steps: set[str] = set()
    result = calibrated.search(0.0, 0.6, progress=lambda step, done, total: steps.add(step))
    assert steps == {"searching"}
    model = result.graph(Precision.FP16)
    weights = {n.name: n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    in_float = {name for name, weight in weights.items() if weight == f"{name}.weight"}
    assert in_float == set(result.float_nodes)
    report = result.report
    chosen = report.trials[report.chosen]
    assert set(chosen.float_nodes) == in_float
    assert 0.6 <= int8_mac_share(model) == pytest.approx(chosen.int8_share)
    assert {layer.node for layer in report.layers if layer.precision is Precision.INT8} == set(
        quantisable_nodes(exported)
    ) - in_float
    assert sum(layer.mac_share for layer in report.layers) == pytest.approx(1)
    assert {trial.label for trial in report.trials} >= {
        "all layers in float",
        "plain int8, no repair",
    }
    lower(model, Precision.FP16)


def test_a_second_calibration_recalls_the_first(
    calibrated, exported, calibration, photographs, journal
) -> None:
    expected = calibrated.search()
    again = Journal(journal)
    lines = len(journal.read_text().splitlines())
    second = calibrate_int8(exported, calibration, photographs, SCALE, journal=again)
    assert second.search().report == expected.report
    assert len(journal.read_text().splitlines()) == lines
    assert again.recalled > len(quantisable_nodes(exported))


def test_a_second_calibration_runs_no_graph(
    calibrated, exported, calibration, photographs, journal, monkeypatch
) -> None:
    """All is recalled: ranges, channels, codes, and every drift."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the graph ran again")

    for module in (ranges, rounding):
        monkeypatch.setattr(module, "watch", never)
    monkeypatch.setattr(Tuning, "psnr", never)
    monkeypatch.setattr(sensitivity, "graph_runner", never)
    second = calibrate_int8(exported, calibration, photographs, SCALE, journal=Journal(journal))
    assert second.search().report == calibrated.search().report
    ours, theirs = second.repaired.quantiser, calibrated.repaired.quantiser
    assert ours.digest() == theirs.digest()
    with pytest.raises(AssertionError, match="ran again"):
        calibrate_int8(exported, calibration, photographs, SCALE)


def test_the_worst_window_may_lose_so_much_and_no_more(calibrated, exported, photographs) -> None:
    """Where the tail is short, what is chosen by is the worst window."""
    tuning = calibrated.tuning
    assert tuning.tail == TAIL
    reference = calibrated.repaired.reference
    plain = tuning.psnr_of(calibrated.repaired.quantiser.graph(()))
    lost = np.subtract(plain, reference)
    assert len(lost) == len(tuning.inputs)
    for tail in (1.0, TAIL, 1000.0):
        held = Tuning(tuning_pairs(photographs, SCALE), SCALE, tail).drift(plain, reference)
        assert held == min(lost.mean(), lost.min() / tail)


def test_an_interrupted_calibration_goes_on(exported, calibration, photographs, tmp_path) -> None:
    path = tmp_path / "journal.jsonl"

    def interrupt(step: str, done: int, _total: int) -> None:
        if step == "ranking layers" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_int8(
            exported, calibration, photographs, SCALE, journal=Journal(path), progress=interrupt
        )
    kept = len(path.read_text().splitlines())
    assert kept > 4
    journal = Journal(path)
    calibrate_int8(exported, calibration, photographs, SCALE, journal=journal)
    assert journal.recalled >= kept


@pytest.mark.parametrize("observer", sorted(OBSERVERS))
def test_every_observer_calibrates(observer, exported, calibration, photographs) -> None:
    made = calibrate_int8(exported, calibration, photographs, SCALE, observer)
    assert set(made.repaired.quantiser.ranges) >= set(convolved_tensors(exported)) - {
        node.input[0] for node in exported.graph.node if node.name in made.repaired.factors
    }
    assert int8_mac_share(made.search(100).graph(Precision.FP32)) == 1.0


def test_training_starts_from_what_the_repairs_reached(calibrated) -> None:
    """Rounded to the nearest, without corrections, it is nearer to the repaired graph."""
    quantiser = calibrated.repaired.quantiser
    found = _repaired_tensors(quantiser, ["conv_first"])
    assert "conv_first.weight" not in found
    start = onnx.ModelProto()
    start.CopyFrom(quantiser.model)
    for tensor in start.graph.initializer:
        if tensor.name in found:
            values = found[tensor.name].astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    repaired = graph_runner(quantiser.graph(["conv_first"]))
    source, sink = start.graph.input[0].name, start.graph.output[0].name
    apart = []
    for model in (start, quantiser.model):
        plain = graph_runner(Quantiser(model, quantiser.ranges, {}, {}).graph(["conv_first"]))
        frames = [{source: frame} for frame in calibrated.tuning.inputs]
        lost = [plain(frame)[sink] - repaired(frame)[sink] for frame in frames]
        apart.append(np.mean([np.square(one).mean() for one in lost]))
    assert apart[0] < 0.7 * apart[1]


def test_costs_decide(calibrated, exported) -> None:
    """What int8 slows down is float, as far as the share allows."""
    nodes = quantisable_nodes(exported)
    slow = "upsampler.0"
    costs = Costs("ms a frame", 10.0, 30.0, {node: -1.0 if node == slow else 1.0 for node in nodes})
    result = calibrated.search(100, 0.0, costs)
    assert result.float_nodes == (slow,)
    assert result.report.cost_unit == "ms a frame"
    in_float = next(t for t in result.report.trials if t.label == "all layers in float")
    assert (in_float.cost, in_float.drift, set(in_float.float_nodes)) == (30.0, 0.0, set(nodes))
    assert calibrated.search(100, 1.0, costs).float_nodes == ()


def test_a_graph_with_nodes_that_read_nothing(exported, calibrated, calibration, photographs):
    """Constant nodes, as they stand in a graph whose custom ops were written out."""
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    half = onnx.helper.make_node("Constant", [], ["half"], "half", value_float=0.5)
    model.graph.node.insert(0, half)
    found = calibrate_int8(model, calibration, photographs, SCALE)
    assert found.repaired.quantiser.ranges == calibrated.repaired.quantiser.ranges


def test_a_large_budget_leaves_no_layer_in_float(calibrated) -> None:
    result = calibrated.search(100)
    assert result.float_nodes == ()
    assert int8_mac_share(result.graph(Precision.FP32)) == 1.0


def test_empty_sets_and_counts_are_refused(calibrated, exported, calibration) -> None:
    with pytest.raises(DatasetError, match="tuning"):
        calibrate_int8(exported, calibration, (), SCALE)
    for wrong in ((-0.1, 0.8), (0.1, 1.1), (0.1, -0.1)):
        with pytest.raises(ExportError, match=r"within .* dB with"):
            calibrated.search(*wrong)


@pytest.mark.shared
@pytest.mark.slow
def test_drift_of_vapsr_s_with_the_bundled_pictures(shared) -> None:
    """At least 80 % of the MACs in int8, a tenth of a decibel at most."""
    from srdeploy.data import pictures

    family = architecture("vapsr")
    state = torch.load(shared / "weights/vapsr/VapSR-S.pth", weights_only=True)["params_ema"]
    config = family.detect(state)
    network = family.build(config).eval()
    network.load_state_dict(state)
    model = trace(network, family.describe(config))
    run_passes(model)
    split = {
        name: [NamedPicture(p.name, p.read()) for p in pictures(name)]
        for name in ("calibration", "tuning")
    }
    calibration = make_calibration_set(split["calibration"])
    result = calibrate_int8(model, calibration, split["tuning"], 4)
    int8 = result.graph(Precision.FP32)
    (dataset,) = find_datasets(shared / "data" / "Set5", 4)
    pairs = [TuningPair(*pair.read()) for pair in dataset.pairs]
    reference = mean_psnr(model, pairs, 4)
    assert reference == pytest.approx(32.168, abs=0.005)
    assert mean_psnr(int8, pairs, 4) - reference > -0.1
    assert int8_mac_share(int8) >= 0.8
    assert (
        mean_psnr(result.repaired.quantiser.graph(()), pairs, 4) - reference > -0.3
    )  # -0.487 without the repairs
