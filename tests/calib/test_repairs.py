"""Equalisation and bias correction: exact in float, and better in int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.channels import ChannelStatistics, ChannelWatcher, convolved_tensors
from srdeploy.calib.equalise import equalise
from srdeploy.calib.observers import MinMaxObserver
from srdeploy.calib.ranges import collect_ranges, watch
from srdeploy.errors import DatasetError
from srdeploy.export.passes import run_passes
from srdeploy.export.quantise import activations, quantisable_nodes, quantise
from srdeploy.export.trace import trace
from srdeploy.models import architecture, architecture_names
from srdeploy.models.attentionsr import AttentionSRConfig
from srdeploy.models.han import HANConfig
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.runtime.targets.onnxruntime import float_runner, graph_runner

FAMILIES = [architecture(name) for name in architecture_names()]
FRAMES = np.random.default_rng(0).random((2, 3, 13, 17), dtype=np.float32)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def channels(model: onnx.ModelProto, crops, tensors=None) -> dict[str, ChannelStatistics]:
    watcher = ChannelWatcher(tensors or convolved_tensors(model))
    watch(model, crops, [watcher], "channels")
    return watcher.statistics()


def maxima(model: onnx.ModelProto, crops) -> dict[str, np.ndarray]:
    found = channels(model, crops)
    return {name: statistics.maxima for name, statistics in found.items()}


def test_statistics_are_those_of_the_channels(exported, photographs) -> None:
    crops = make_calibration_set(photographs, (24, 40), 3).crops
    found = channels(exported, crops, ["lr"])["lr"]
    pixels = crops.astype(np.float64) / 255
    assert np.allclose(found.maxima, pixels.max(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(found.means, pixels.mean(axis=(0, 1, 2)), atol=1e-6)
    turned = channels(exported, crops[::-1], ["lr"])["lr"]
    assert np.array_equal(turned.maxima, found.maxima)
    assert np.allclose(turned.means, found.means, rtol=1e-12)
    with pytest.raises(DatasetError, match="empty"):
        channels(exported, crops[:0], ["lr"])


@settings(max_examples=8)
@given(
    config=st.sampled_from(
        [
            VapSRConfig(2, 8, 2, 16),
            VapSRConfig(4, 8, 1, 12, 2, 16),
            AttentionSRConfig(3, 8, 2, 2),
            HANConfig(2, 2, 2, 8, 2),
        ]
    ),
    seed=st.integers(0, 3),
    balance=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_nothing_changes_in_float(config, seed, balance) -> None:
    """Whatever the network and the channels' sizes; groups and pixel shuffle included."""
    family = next(f for f in FAMILIES if isinstance(config, f.configuration))
    torch.manual_seed(seed)
    model = trace(family.build(config).eval(), family.describe(config))
    run_passes(model)
    rng = np.random.default_rng(seed)
    sizes = maxima(model, np.zeros((1, 8, 8, 3), np.uint8))
    uneven = {t: np.exp(rng.normal(0, 2, len(a))).astype(np.float32) for t, a in sizes.items()}
    changed = copied(model)
    done = equalise(changed, uneven, balance=balance)
    assert done.factors
    assert set(done.factors) | set(done.refused) <= set(quantisable_nodes(model))
    before, after = float_runner(model)(FRAMES), float_runner(changed)(FRAMES)
    assert np.abs(after - before).max() <= 2e-5 * max(np.abs(before).max(), 1)


def test_channels_are_even_afterwards(exported, photographs) -> None:
    crops = make_calibration_set(photographs, (24, 40), 3).crops
    changed = copied(exported)
    done = equalise(changed, maxima(exported, crops), balance=1.0)
    assert "body.0.proj_2" in done.factors  # through a product and three convolutions
    readers = {node.name: node.input[0] for node in exported.graph.node}
    again = maxima(changed, crops)
    for name in done.factors:
        largest = again[readers[name]]
        assert largest.max() <= 1.05 * largest[largest > 0].min(), name


def test_refusals_say_why(exported, photographs) -> None:
    crops = make_calibration_set(photographs, (24, 40), 1).crops
    refused = equalise(copied(exported), maxima(exported, crops)).refused
    assert refused["conv_first"] == "its input is the picture"
    assert "reads its input too" in refused["body.0.proj_1"]


def chain(mode: str) -> onnx.ModelProto:
    """Conv, LeakyRelu, DepthToSpace, Conv, with one channel a hundred times the others."""
    rng = np.random.default_rng(1)
    first = rng.normal(0, 1, (16, 3, 3, 3)).astype(np.float32)
    first[5] *= 100
    constants = {
        "a.weight": first,
        "a.bias": rng.normal(0, 1, 16).astype(np.float32),
        "b.weight": rng.normal(0, 1, (6, 4, 3, 3)).astype(np.float32),
    }
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["lr", "a.weight", "a.bias"], ["x"], "a", **pads),
        helper.make_node("LeakyRelu", ["x"], ["y"], "act", alpha=0.1),
        helper.make_node("DepthToSpace", ["y"], ["z"], "shuffle", blocksize=2, mode=mode),
        helper.make_node("Conv", ["z", "b.weight"], ["sr"], "b", **pads),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 6, "2H", "2W"])],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_a_large_channel_no_longer_costs_the_others_their_codes(mode, photographs) -> None:
    model, crops = chain(mode), make_calibration_set(photographs, (24, 40), 4).crops
    changed = copied(model)
    done = equalise(changed, maxima(model, crops))
    assert set(done.factors) == {"b"}
    exact = float_runner(model)(FRAMES)
    assert np.allclose(float_runner(changed)(FRAMES), exact, rtol=1e-4, atol=1e-3)
    errors = []
    for form in (model, changed):
        ranges = collect_ranges(form, crops, activations(form), MinMaxObserver).bounds
        alone = quantise(form, ranges, ["a"])
        errors.append(np.abs(float_runner(alone)(FRAMES) - exact).mean())
    assert errors[1] < 0.8 * errors[0], errors


def test_a_shared_weight_is_left(photographs) -> None:
    """Dividing it would change the other convolution too."""
    model = chain("CRD")
    model.graph.node.append(helper.make_node("Identity", ["a.weight"], ["other"], "other"))
    crops = make_calibration_set(photographs, (24, 40), 1).crops
    assert "shared" in equalise(model, maxima(model, crops)).refused["b"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_bias_takes_back_what_rounding_shifts(groups: int, photographs) -> None:
    rng = np.random.default_rng(groups)
    weight = rng.normal(0.3, 0.3, (8, 4 // groups, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] = 40  # coarse codes for all others
    first = rng.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["lr", "a.weight"], ["x"], "a"),
        helper.make_node("Relu", ["x"], ["y"], "act"),
        helper.make_node("Conv", ["y", "b.weight"], ["sr"], "b", group=groups),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 8, "h", "w"])],
        [numpy_helper.from_array(first, "a.weight"), numpy_helper.from_array(weight, "b.weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    crops = make_calibration_set(photographs, (24, 40), 6).crops
    ranges = collect_ranges(model, crops, activations(model), MinMaxObserver).bounds
    found = channels(model, crops)
    means = {name: statistics.means for name, statistics in found.items()}
    frames = crops.transpose(0, 3, 1, 2).astype(np.float32) / 255
    exact = graph_runner(model)({"lr": frames})["sr"]
    shifts = []
    for known in (None, means):
        graph_int8 = quantise(model, ranges, ["a"], means=known)
        error = graph_runner(graph_int8)({"lr": frames})["sr"] - exact
        shifts.append(np.abs(error.mean(axis=(0, 2, 3))).max())
    assert shifts[1] < shifts[0] / 4, shifts
    assert {t.name for t in model.graph.initializer} == {"a.weight", "b.weight"}  # unchanged
