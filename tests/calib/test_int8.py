"""Sensitivity and the whole of int8 calibration, on a small network and on VapSR-S."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.int8 import calibrate_int8
from srdeploy.calib.observers import MinMaxObserver
from srdeploy.calib.pictures import NamedPicture
from srdeploy.calib.ranges import collect_ranges
from srdeploy.calib.sensitivity import mean_psnr, rank_nodes, tuning_pairs
from srdeploy.errors import DatasetError, ExportError
from srdeploy.export.macs import int8_mac_share
from srdeploy.export.passes import run_passes
from srdeploy.export.precision import lower
from srdeploy.export.quantise import activations, quantisable_nodes, quantise
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.runtime.targets.onnxruntime import ReferenceSession
from srdeploy.spec import Precision
from srdeploy.validate.datasets import find_datasets
from srdeploy.validate.metrics import luma, psnr
from srdeploy.validate.resize import shrink

SCALE = 2


@pytest.fixture(scope="module")
def pairs(photographs):
    return tuning_pairs(photographs, SCALE, (20, 30), 4)


@pytest.fixture(scope="module")
def bounds(exported, photographs):
    crops = make_calibration_set(photographs, (24, 40), 6).crops
    return collect_ranges(exported, crops, activations(exported), MinMaxObserver).bounds


def test_windows_come_in_turn_and_most_textured_first() -> None:
    rng = np.random.default_rng(1)
    flat = np.full((64, 96, 3), 90, np.uint8)
    half = flat.copy()
    half[:, 48:] = rng.integers(0, 256, (64, 48, 3))
    noise = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    pictures = [NamedPicture("half", half), NamedPicture("noise", noise)]
    found = tuning_pairs(pictures, SCALE, (32, 24), 3)
    assert np.array_equal(found[0].hr, half[:, 48:])
    assert np.array_equal(found[0].lr, shrink(half, SCALE)[:, 24:])
    assert any(np.array_equal(found[1].hr, noise[:, x : x + 48]) for x in (0, 24, 48))
    assert [p.lr.shape for p in found] == [(32, 24, 3)] * 3


def test_small_and_odd_tuning_pictures() -> None:
    odd = NamedPicture("odd", np.zeros((49, 71, 3), np.uint8))
    (pair,) = tuning_pairs([odd], SCALE, (64, 96), 6)
    assert pair.lr.shape == (24, 35, 3)
    assert pair.hr.shape == (48, 70, 3)
    with pytest.raises(DatasetError, match="none of 1 tuning pictures"):
        tuning_pairs([NamedPicture("tiny", np.zeros((31, 200, 3), np.uint8))], SCALE)
    with pytest.raises(DatasetError, match="none of 0"):
        tuning_pairs([], SCALE)


def test_psnr_is_that_of_the_reference_session(exported, pairs) -> None:
    session = ReferenceSession(exported, SCALE)
    expected = [
        psnr(
            luma(session.upscale(pair.lr[None])[0])[SCALE:-SCALE, SCALE:-SCALE],
            luma(pair.hr)[SCALE:-SCALE, SCALE:-SCALE],
        )
        for pair in pairs
    ]
    assert mean_psnr(exported, pairs, SCALE) == pytest.approx(np.mean(expected), abs=1e-3)
    with pytest.raises(DatasetError, match="no tuning pictures"):
        mean_psnr(exported, (), SCALE)


def test_a_node_with_a_far_too_wide_range_ranks_worst(exported, bounds, pairs) -> None:
    nodes = quantisable_nodes(exported)
    spoilt = "upsampler.0"
    source = next(n.input[0] for n in exported.graph.node if n.name == spoilt)
    wide = bounds | {source: (-1e4, 1e4)}
    # An untrained network is far from the truth; against its own output a loss shows.
    session = ReferenceSession(exported, SCALE)
    own = [type(p)(p.lr, session.upscale(p.lr[None])[0]) for p in pairs]
    shifted = [type(p)(p.lr, np.clip(p.hr.astype(int) + 2, 0, 255).astype(np.uint8)) for p in own]
    calls: list[tuple[str, int, int]] = []
    ranked = rank_nodes(exported, wide, nodes, shifted, SCALE, lambda *call: calls.append(call))
    assert {d.node for d in ranked} == set(nodes)
    assert [d.drift for d in ranked] == sorted(d.drift for d in ranked)
    assert ranked[0].node == spoilt
    assert calls[-1] == ("ranking layers", len(nodes), len(nodes))
    alone = quantise(exported, wide, set(nodes) - {spoilt})
    lost = mean_psnr(alone, shifted, SCALE) - mean_psnr(exported, shifted, SCALE)
    assert ranked[0].drift == pytest.approx(lost, abs=1e-6)
    with pytest.raises(ExportError, match="nobody"):
        rank_nodes(exported, wide, ["nobody"], shifted, SCALE)


@pytest.fixture(scope="module")
def calibration(photographs):
    return make_calibration_set(photographs, count=6, frame_count=1)


def test_calibration_as_a_whole(exported, calibration, photographs) -> None:
    steps: set[str] = set()
    result = calibrate_int8(
        exported,
        calibration,
        photographs,
        SCALE,
        max_drift=0.0,
        min_int8=0.6,
        progress=lambda step, done, total: steps.add(step),
    )
    assert steps == {"measuring channels", "calibrating", "ranking layers", "searching"}
    assert result.calibration_sha256 == calibration.sha256
    assert set(result.ranges.bounds) == set(activations(exported))
    assert len(result.ranked) == len(quantisable_nodes(exported))
    assert [d.drift for d in result.float_nodes] == sorted(d.drift for d in result.float_nodes)
    model = result.graph(Precision.FP16)
    weights = {n.name: n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    in_float = {name for name, weight in weights.items() if weight == f"{name}.weight"}
    assert in_float == {d.node for d in result.float_nodes}
    (chosen,) = (t for t in result.trials if set(t.float_nodes) == in_float)
    assert 0.6 <= int8_mac_share(model) == pytest.approx(chosen.int8_share)
    lower(model, Precision.FP16)


def test_a_graph_with_nodes_that_read_nothing(exported, calibration, photographs) -> None:
    """Constant nodes, as they stand in a graph whose custom ops were written out."""
    model = onnx.ModelProto()
    model.CopyFrom(exported)
    half = onnx.helper.make_node("Constant", [], ["half"], "half", value_float=0.5)
    model.graph.node.insert(0, half)
    result = calibrate_int8(model, calibration, photographs, SCALE, max_drift=100)
    assert (
        result.ranges
        == calibrate_int8(exported, calibration, photographs, SCALE, max_drift=100).ranges
    )


def test_a_large_budget_leaves_no_layer_in_float(exported, calibration, photographs) -> None:
    result = calibrate_int8(exported, calibration, photographs, SCALE, max_drift=100)
    assert result.float_nodes == ()
    assert int8_mac_share(result.graph(Precision.FP32)) == 1.0


def test_empty_sets_and_counts_are_refused(exported, calibration, photographs) -> None:
    with pytest.raises(DatasetError, match="tuning"):
        calibrate_int8(exported, calibration, (), SCALE)
    for wrong in ({"max_drift": -0.1}, {"min_int8": 1.1}, {"min_int8": -0.1}):
        with pytest.raises(ExportError, match=r"within .* dB with"):
            calibrate_int8(exported, calibration, photographs, SCALE, **wrong)


@pytest.mark.shared
@pytest.mark.slow
def test_drift_of_vapsr_s_with_the_bundled_pictures(shared) -> None:
    """At least 80 % of the MACs in int8, a tenth of a decibel at most."""
    from srdeploy.calib.sensitivity import TuningPair
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
    repaired = quantise(result.prepared, result.ranges.bounds, means=result.means)
    assert mean_psnr(repaired, pairs, 4) - reference > -0.3  # -0.487 without the repairs
