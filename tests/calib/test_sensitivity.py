"""Sensitivity: each layer alone, measured from kept activations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from srdeploy.calib import sensitivity, suffix
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.channels import ChannelWatcher, convolved_tensors
from srdeploy.calib.equalise import equalise, own_input
from srdeploy.calib.journal import Journal
from srdeploy.calib.observers import MinMaxObserver
from srdeploy.calib.quantiser import Quantiser
from srdeploy.calib.ranges import collect_ranges, watch
from srdeploy.calib.sensitivity import rank_nodes
from srdeploy.calib.suffix import Prefix
from srdeploy.calib.tuning import Tuning, TuningPair, tuning_pairs
from srdeploy.errors import ExportError
from srdeploy.export.quantise import activations, quantisable_nodes
from srdeploy.runtime.targets.onnxruntime import ReferenceSession, graph_runner

SCALE = 2


@pytest.fixture(scope="module")
def pictures(photographs):
    return make_calibration_set(photographs, (24, 40), 6, 0).pictures


@pytest.fixture(scope="module")
def quantiser(exported, pictures):
    found = collect_ranges(exported, pictures, activations(exported), MinMaxObserver)
    return Quantiser(exported, found.bounds, {}, {})


@pytest.fixture(scope="module")
def tuning(exported, photographs):
    """An untrained network is far from the truth; near its own output a loss shows."""
    pairs = tuning_pairs(photographs, SCALE, (20, 30), 3)
    session = ReferenceSession(exported, SCALE)
    own = [(p.lr, session.upscale(p.lr[None])[0]) for p in pairs]
    near = [TuningPair(lr, np.clip(hr.astype(int) + 2, 0, 255).astype(np.uint8)) for lr, hr in own]
    return Tuning(near, SCALE)


def whole(quantiser, node, tuning, reach=1.0) -> float:
    """The same measured by running all of the graph."""
    every = set(quantisable_nodes(quantiser.model))
    tensor = next(n.input[0] for n in quantiser.model.graph.node if n.name == node)
    low, high = quantiser.ranges[tensor]
    ranges = dict(quantiser.ranges) | {tensor: (reach * low, reach * high)}
    narrowed = Quantiser(quantiser.model, ranges, quantiser.means, quantiser.codes)
    return tuning.drift(
        tuning.psnr_of(narrowed.graph(every - {node})), tuning.psnr_of(quantiser.model)
    )


def test_each_layer_alone_is_what_a_whole_run_gives(quantiser, tuning) -> None:
    nodes = quantisable_nodes(quantiser.model)
    calls: list[tuple[str, int, int]] = []
    ranked = rank_nodes(quantiser, nodes, tuning, progress=lambda *call: calls.append(call))
    assert {found.node for found in ranked} == set(nodes)
    assert [d.drift for d in ranked] == sorted(d.drift for d in ranked)
    assert calls[-1] == ("ranking layers", len(nodes), len(nodes))
    for found in ranked:
        plain = whole(quantiser, found.node, tuning)
        assert found.plain == pytest.approx(plain, abs=2e-4), found.node
        repaired = whole(quantiser, found.node, tuning, found.reach)
        assert found.drift == pytest.approx(repaired, abs=2e-4), found.node
        assert found.drift >= found.plain
    with pytest.raises(ExportError, match="nobody"):
        rank_nodes(quantiser, ["nobody"], tuning)


def test_a_far_too_wide_range_ranks_worst_and_is_narrowed(quantiser, tuning) -> None:
    source = next(n.input[0] for n in quantiser.model.graph.node if n.name == "upsampler.0")
    low, high = quantiser.ranges[source]
    ranges = dict(quantiser.ranges) | {source: (60 * low, 60 * high)}
    wide = Quantiser(quantiser.model, ranges, {}, {})
    ranked = rank_nodes(wide, quantisable_nodes(quantiser.model), tuning)
    assert ranked[0].node == "upsampler.0"
    assert ranked[0].reach < 1
    assert ranked[0].drift > ranked[0].plain + 0.01


def test_a_tensor_that_two_layers_read_keeps_its_range(quantiser, tuning) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantiser.model)
    layer = next(n for n in model.graph.node if n.name == "body.0.proj_1")
    twin = onnx.NodeProto()
    twin.CopyFrom(layer)
    twin.name, twin.output[0] = "twin", "twin_out"
    model.graph.node.append(twin)
    ranges = {k: (50 * a, 50 * b) for k, (a, b) in quantiser.ranges.items()}
    ranked = rank_nodes(Quantiser(model, ranges, {}, {}), ["body.0.proj_1", "conv_body"], tuning)
    reaches = {found.node: found.reach for found in ranked}
    assert reaches["body.0.proj_1"] == 1
    assert reaches["conv_body"] < 1


def test_what_was_measured_is_not_measured_again(quantiser, tuning, tmp_path, monkeypatch) -> None:
    """An interruption loses what was being measured, and no more."""
    nodes = quantisable_nodes(quantiser.model)
    path = tmp_path / "journal.jsonl"

    def interrupt(_step: str, done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank_nodes(quantiser, nodes, tuning, journal=Journal(path), progress=interrupt)
    lines = len(path.read_text().splitlines())
    assert lines >= 6  # the float graph and five nodes
    opened = Counter[str]()
    real = sensitivity.graph_runner
    monkeypatch.setattr(
        sensitivity, "graph_runner", lambda model: opened.update(["part"]) or real(model)
    )
    journal = Journal(path)
    resumed = rank_nodes(quantiser, nodes, tuning, journal=journal)
    assert journal.recalled == lines
    assert opened["part"] == len(nodes) - 5
    assert resumed == rank_nodes(quantiser, nodes, tuning)
    opened.clear()
    assert rank_nodes(quantiser, nodes, tuning, journal=Journal(path)) == resumed
    assert not opened


def test_little_memory_gives_the_same(quantiser, tuning, monkeypatch) -> None:
    nodes = quantisable_nodes(quantiser.model)
    expected = rank_nodes(quantiser, nodes, tuning)
    monkeypatch.setattr(suffix, "HELD_AT_ONCE", 200_000)
    prefix = Prefix(quantiser.model, tuning.inputs)
    blocks = list(prefix.blocks({node: prefix.reads(node) for node in nodes}))
    assert len(blocks) > 3
    assert [node for block in blocks for node in block] == list(nodes)
    assert rank_nodes(quantiser, nodes, tuning) == expected


def test_a_suffix_is_the_rest_of_the_graph(exported, tuning) -> None:
    prefix = Prefix(exported, tuning.inputs)
    part = prefix.suffix(exported, {"conv_body"})
    reads = {value.name for value in part.graph.input}
    assert reads == prefix.reads("conv_body")
    assert {n.name for n in part.graph.node} < {n.name for n in exported.graph.node}
    assert "conv_first" not in {n.name for n in part.graph.node}
    sink = exported.graph.output[0].name
    run, source = graph_runner(exported), exported.graph.input[0].name
    for kept, frame in zip(prefix.activations(reads), tuning.inputs, strict=True):
        got = graph_runner(part)({name: kept[name] for name in reads})[sink]
        assert np.abs(got - run({source: frame})[sink]).max() < 1e-5


def test_a_factor_of_its_own_is_measured_from_the_plain_graph(exported, pictures, tuning) -> None:
    """Its Mul is not in the graph whose activations are kept."""
    watcher = ChannelWatcher(convolved_tensors(exported))
    watch(exported, pictures, [watcher], "channels")
    maxima = {name: found.maxima for name, found in watcher.statistics().items()}
    own = "body.0.atten_branch.pointwise"
    plain, even = onnx.ModelProto(), onnx.ModelProto()
    for model in (plain, even):
        model.CopyFrom(exported)
    equalise(plain, maxima)
    assert own in equalise(even, maxima, [own]).factors
    assert own_input(own) in activations(even)
    run, same = graph_runner(exported), graph_runner(even)
    source, sink = exported.graph.input[0].name, exported.graph.output[0].name
    frame = {source: tuning.inputs[0]}
    assert np.abs(run(frame)[sink] - same(frame)[sink]).max() < 1e-4
    bounds = collect_ranges(even, pictures, activations(even), MinMaxObserver).bounds
    quantiser = Quantiser(even, bounds, {}, {})
    prefix = Prefix(plain, tuning.inputs)
    (found,) = rank_nodes(quantiser, [own], tuning, prefix, narrower=())
    assert found.plain == pytest.approx(whole(quantiser, own, tuning), abs=2e-4)
