"""Ranges: equal to what PyTorch's own activations reach, and kept as JSON."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from srdeploy.calib.calibration_set import make_calibration_set
from srdeploy.calib.observers import MinMaxObserver, PercentileObserver
from srdeploy.calib.pictures import as_input
from srdeploy.calib.ranges import collect_ranges
from srdeploy.errors import DatasetError, ExportError, ModelFileError
from srdeploy.export.quantise import activations, quantisable_nodes
from srdeploy.runtime.targets.onnxruntime import graph_runner


@pytest.fixture(scope="module")
def crops(photographs):
    return make_calibration_set(photographs, (24, 40), 5).crops


def test_ranges_are_what_pytorch_sees(network, exported, crops) -> None:
    seen: dict[str, float] = {}

    def watch(name):
        def hook(module, inputs):
            seen[name] = max(seen.get(name, 0), float(inputs[0].abs().max()))

        return hook

    hooks = [
        module.register_forward_pre_hook(watch(name))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        network(torch.from_numpy(as_input(crops)))
    for hook in hooks:
        hook.remove()
    calls: list[tuple[str, int, int]] = []
    wanted = activations(exported)
    bounds = collect_ranges(
        exported, crops, wanted, MinMaxObserver, lambda *call: calls.append(call)
    ).bounds
    assert tuple(bounds) == wanted
    assert calls[-1] == ("calibrating", 5, 5)
    sources = {node.name: node.input[0] for node in exported.graph.node}
    assert set(seen) == set(quantisable_nodes(exported))
    for name, largest in seen.items():
        low, high = bounds[sources[name]]
        assert low == -high
        assert high == pytest.approx(largest, rel=1e-4)


def test_order_of_the_crops_does_not_matter(exported, crops) -> None:
    def collected(pixels):
        return collect_ranges(
            exported, pixels, activations(exported), lambda: PercentileObserver(99)
        )

    assert collected(crops) == collected(crops[::-1])


def test_the_models_own_output_can_be_observed(exported, crops) -> None:
    name = exported.graph.output[0].name
    assert list(collect_ranges(exported, crops[:1], [name], MinMaxObserver).bounds) == [name]


def test_empty_sets_and_unknown_tensors_are_refused(exported, crops) -> None:
    with pytest.raises(DatasetError, match="empty"):
        collect_ranges(exported, crops[:0], activations(exported), MinMaxObserver)
    with pytest.raises(ExportError, match="nowhere"):
        collect_ranges(exported, crops, ["nowhere"], MinMaxObserver)


def test_a_network_that_overflows_is_refused(exported, crops) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(exported)
    weight = next(t for t in broken.graph.initializer if t.name == "conv_first.weight")
    values = np.full(tuple(weight.dims), np.float32(3e38))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with pytest.raises(DatasetError, match="not finite"):
        collect_ranges(broken, crops, activations(broken), MinMaxObserver)


def test_a_graph_that_onnx_runtime_refuses_is_translated() -> None:
    with pytest.raises(ModelFileError, match="ONNX Runtime refuses"):
        graph_runner(onnx.ModelProto())
