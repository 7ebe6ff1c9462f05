"""Training as int8: the arithmetic, the gradients, and what a short training recovers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from srdeploy import data
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.channels import ChannelWatcher, convolved_tensors
from srdeploy.calib.equalise import equalise
from srdeploy.calib.observers import MinMaxObserver
from srdeploy.calib.pictures import NamedPicture, as_input
from srdeploy.calib.ranges import collect_ranges, watch
from srdeploy.commands import finetune as command
from srdeploy.commands.finetune import finetune
from srdeploy.errors import DatasetError, TrainingError
from srdeploy.export.passes import run_passes
from srdeploy.export.quantise import activations, quantisable_nodes, quantise
from srdeploy.export.trace import trace
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.runtime.model_file import spec_of
from srdeploy.runtime.targets.onnxruntime import graph_runner
from srdeploy.train import distil, loop
from srdeploy.train.quantised import (
    ActivationGrid,
    FakeQuant,
    grid_parameters,
    plain_state,
    quantise_network,
    scale_inputs,
)
from srdeploy.train.recipe import Recipe
from srdeploy.validate.reference import open_reference
from torch import nn

QUICK = Recipe(
    steps=40, batch=2, patch=16, rate=1e-3, warmup=2, decay=20, ema=0.8, validate_every=20
)


def grid_of(step: float) -> ActivationGrid:
    return ActivationGrid(step)


def test_a_grid_rounds_and_its_gradients_are_those_of_lsq() -> None:
    grid = grid_of(0.5)
    x = torch.tensor([0.2, 0.3, 0.75, -1.25, 63.5, 64.0, -1e4], requires_grad=True)
    y = grid(x)
    # ties to even, and ±127 codes
    assert y.tolist() == [0.0, 0.5, 1.0, -1.0, 63.5, 63.5, -63.5]
    y.backward(torch.arange(1.0, 8.0))
    assert x.grad.tolist() == [1, 2, 3, 4, 5, 0, 0]
    # inside: code minus value in steps; outside: the last code. Times the step: it is a logarithm.
    expected = 1 * -0.4 + 2 * 0.4 + 3 * 0.5 + 4 * 0.5 + 5 * 0 + 6 * 127 - 7 * 127
    assert float(grid.log_step.grad) == pytest.approx(0.5 * expected, rel=1e-5)
    assert grid.bounds() == (-63.5, 63.5)


def test_weights_round_by_channel_and_gradients_pass_straight() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    grids = quantise_network(network, {"0": FakeQuant("a", 0.01), "2": FakeQuant("a", 0.01)})
    assert list(grids) == ["a"]
    assert grid_parameters(network) == [grids["a"].log_step]
    for index, name in ((0, "0.weight"), (2, "2.weight")):
        scales = before[name].abs().flatten(1).amax(1)[:, None] / 127
        codes = network[index].weight.flatten(1) / scales
        assert (network[index].weight - before[name]).abs().flatten(1).max() <= scales.max() * 0.51
        assert codes.abs().max() <= 128  # of scales that were rounded up
    network(torch.rand(1, 3, 3, 3)).sum().backward()
    kept = dict(network.named_parameters())["0.parametrizations.weight.original"]
    assert kept.grad.abs().min() > 0
    assert {n: t.tolist() for n, t in plain_state(network.state_dict()).items()} == {
        n: t.tolist() for n, t in before.items()
    }


def test_what_is_no_layer_or_no_step_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    for wrong in ("1", "absent"):
        with pytest.raises(TrainingError, match=f"'{wrong}'"):
            quantise_network(network, {wrong: FakeQuant("a", 1.0)})
    with pytest.raises(TrainingError, match="the step of 'a' is 0"):
        quantise_network(network, {"0": FakeQuant("a", 0.0)})


def test_inputs_are_scaled_before_they_are_rounded() -> None:
    network = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    nn.init.ones_(network[0].weight)
    scale_inputs(network, {"0": np.array([[[0.5]], [[2.0]]], np.float32)})
    quantise_network(network, {"0": FakeQuant("a", 1.0)})
    x = torch.tensor([2.8, 1.2]).reshape(1, 2, 1, 1)
    assert float(network(x).detach()) == pytest.approx(1 + 2, rel=1e-2)
    assert list(plain_state(network.state_dict())) == ["0.weight"]


@pytest.fixture(scope="module")
def photographs() -> list[NamedPicture]:
    return [NamedPicture(p.name, p.read()) for p in data.pictures("calibration")][:4]


def calibrated(model: onnx.ModelProto, photographs: list[NamedPicture]):
    """The equalised graph and its ranges."""
    crops = make_calibration_set(photographs, (24, 40), 4, 0).crops
    watcher = ChannelWatcher(convolved_tensors(model))
    watch(model, crops, [watcher], "channels")
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    equalise(prepared, {name: found.maxima for name, found in watcher.statistics().items()})
    ranges = collect_ranges(prepared, crops, activations(prepared), MinMaxObserver).bounds
    return prepared, ranges


def of_graph(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return graph_runner(model)({model.graph.input[0].name: x})[model.graph.output[0].name]


@pytest.mark.parametrize(
    "golden",
    ["vapsr_tiny_x2", "attentionsr_tiny_x2", "han_tiny_x2", "enlcn_tiny_x4", "hat_tiny_x2"],
    indirect=True,
)
def test_a_quantised_network_computes_as_its_graph(golden, photographs) -> None:
    """One layer at a time, since a code that flips changes those after it."""
    model = trace(golden.network, golden.spec)
    run_passes(model)
    prepared, ranges = calibrated(model, photographs)
    nodes = quantisable_nodes(prepared)
    x = as_input(make_calibration_set(photographs, (24, 24), 1, 0, seed=3).crops)
    exact = of_graph(model, x)
    losses = []
    for node in (nodes[0], nodes[len(nodes) // 2], nodes[-1]):
        others = set(nodes) - {node}
        student, _ = distil.rebuild(
            golden.spec,
            command._arrays(prepared),
            command._arrays(model),
            command._input_scales(prepared),
        )
        layers = command._layers(prepared, ranges, others)
        assert len(layers) == 1, f"{node} is no module of its own"
        quantise_network(student, layers)
        with torch.no_grad():
            ours = student(torch.from_numpy(x)).numpy()
        theirs = of_graph(quantise(prepared, ranges, others), x)
        losses.append(np.abs(theirs - exact).mean())
        # of an untrained network some layers hardly reach the output: float rounding remains
        assert np.abs(ours - theirs).mean() < 0.05 * losses[-1] + 1e-6
    assert max(losses) > 1e-4
    layers = command._layers(prepared, ranges, ())
    assert len(layers) >= 0.9 * len(nodes)


@pytest.fixture(scope="module")
def vapsr(photographs):
    """The bundled tiny network: graph, equalised graph, ranges of which one is spoilt, spec."""
    network, spec = load_network(data.bundled_weights("vapsr-tiny-x4"), "bundled vapsr-tiny-x4")
    model = trace(network, spec)
    run_passes(model)
    prepared, ranges = calibrated(model, photographs)
    spoilt = next(n.input[0] for n in prepared.graph.node if n.name == "upsampler.3")
    low, high = ranges[spoilt]
    return model, prepared, ranges | {spoilt: (8 * low, 8 * high)}, spec


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory) -> Path:
    """Training pictures, small ones."""
    made = tmp_path_factory.mktemp("training")
    for index, picture in enumerate(photographs):
        Image.fromarray(picture.pixels[:200, :240]).save(made / f"{index}.png")
    return made


@pytest.fixture(autouse=True)
def _light(monkeypatch) -> Iterator[None]:
    """Compiling the fast gradients, or waiting for threads, takes longer than these trainings."""
    monkeypatch.setattr(distil, "speed_up", lambda network: 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_training_brings_a_network_nearer_to_its_teacher(vapsr, folder, photographs) -> None:
    model, prepared, ranges, spec = vapsr
    lines: list[str] = []
    before = prepared.SerializeToString()
    done = finetune(
        model,
        prepared,
        ranges,
        ["conv_first"],
        spec,
        [folder],
        photographs[:1],
        lines.append,
        QUICK,
    )
    assert prepared.SerializeToString() == before
    assert lines[-1].startswith("step 40: loss")
    assert done.spec.weights == "bundled vapsr-tiny-x4, fine-tuned for int8"
    assert spec_of(done.model, "tuned") == done.spec
    open_reference(done.model, done.spec)  # its digest is right
    x = as_input(make_calibration_set(photographs, (40, 40), 2, 0, seed=5).crops)
    exact = of_graph(model, x)
    errors = [
        float(np.square(of_graph(quantise(graph, bounds, ["conv_first"]), x) - exact).mean())
        for graph, bounds in ((prepared, ranges), (done.model, done.ranges))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_resumed_recovery_equals_an_uninterrupted_one(
    vapsr, folder, photographs, tmp_path: Path, monkeypatch
) -> None:
    class Killed(BaseException):
        pass

    original = loop.take_step

    def dying(*args):
        if args[3] == 5:
            raise Killed
        return original(*args)

    recipe = Recipe(**{**vars(QUICK), "steps": 6, "decay": 2, "validate_every": 3})
    model, prepared, ranges, spec = vapsr
    whole, parts = tmp_path / "whole.pth", tmp_path / "parts.pth"
    results = []

    def run(checkpoint: Path):
        return finetune(
            model, prepared, ranges, [], spec, [folder], [], lambda _: None, recipe, checkpoint
        )

    results.append(run(whole))
    monkeypatch.setattr(loop, "take_step", dying)
    with pytest.raises(Killed):
        run(parts)
    monkeypatch.setattr(loop, "take_step", original)
    results.append(run(parts))
    assert results[0].ranges == results[1].ranges
    assert results[0].spec == results[1].spec


def test_folders_without_pictures_and_foreign_graphs_are_refused(
    vapsr, folder, tmp_path: Path
) -> None:
    model, prepared, ranges, spec = vapsr
    for place, match in ((tmp_path / "absent", "there is no"), (tmp_path, "no pictures")):
        with pytest.raises(DatasetError, match=match):
            finetune(model, prepared, ranges, [], spec, [place], [], lambda _: None, QUICK)
    other = onnx.ModelProto()
    other.CopyFrom(prepared)
    bias = next(t for t in other.graph.initializer if t.name == "upsampler.3.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(12, np.float32), bias.name))
    with pytest.raises(TrainingError, match="differs by"):
        finetune(model, other, ranges, [], spec, [folder], [], lambda _: None, QUICK)
