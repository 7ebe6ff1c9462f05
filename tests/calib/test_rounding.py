"""Adaptive rounding: the layer's output errs less, in convolutions of all kinds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from srdeploy.calib.rounding import covariances, round_weights
from srdeploy.export.pair_sums import pairs_fit
from srdeploy.export.quantise import nearest_codes, weight_scales
from srdeploy.runtime.targets.onnxruntime import graph_runner


def layer(weight: np.ndarray, **attributes) -> onnx.ModelProto:
    """RGB mixed into channels that go together, then a convolution of them."""
    rng = np.random.default_rng(3)
    groups = attributes.get("group", 1)
    channels = weight.shape[1] * groups
    mix = rng.normal(size=(channels, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "mix"], ["mixed"], "mix"),
            helper.make_node("Conv", ["mixed", "weight"], ["sr"], "layer", **attributes),
        ],
        "g",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(mix, "mix"), numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rounded(model: onnx.ModelProto, crops: np.ndarray, in_pairs: bool = False) -> dict:
    return round_weights(model, covariances(model, crops), {}, in_pairs)


def errors(model: onnx.ModelProto, codes: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Variance of each output channel's error with a weight's codes."""
    weight = numpy_helper.to_array(model.graph.initializer[1])
    scales = weight_scales(weight, 0).reshape(-1, 1, 1, 1)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    rounded = (codes * scales).astype(np.float32)
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(rounded, "weight"))
    frames = crops.transpose(0, 3, 1, 2).astype(np.float32) / 255
    lost = graph_runner(other)({"lr": frames})["sr"] - graph_runner(model)({"lr": frames})["sr"]
    return lost[:, :, 4:-4, 4:-4].var(axis=(0, 2, 3))


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((8, 16, 1, 1), {}),
        ((8, 6, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((6, 4, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((12, 1, 5, 5), {"pads": [2, 2, 2, 2], "group": 12}),
        ((8, 3, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    ],
)
def test_the_output_errs_less_than_with_nearest_codes(shape, attributes, photographs) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(size=shape).astype(np.float32)
    model = layer(weight, **attributes)
    crops = np.stack([p.pixels[:80, :120] for p in photographs])
    codes = rounded(model, crops)["weight"]
    assert codes.shape == shape
    assert codes.dtype == np.int8
    scales = weight_scales(weight, 0).reshape(-1, 1, 1, 1)
    nearest = nearest_codes(weight, scales)
    assert np.abs(codes.astype(int) - nearest).max() <= 40
    adaptive, plain = (errors(model, c, crops) for c in (codes, nearest))
    assert adaptive.sum() < 0.6 * plain.sum()


def test_linear_layers_and_shared_weights(photographs) -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(3, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["lr"], ["rows"], "t", perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["rows", "weight"], ["a"], "linear"),
            helper.make_node("Conv", ["lr", "shared"], ["b"], "one"),
            helper.make_node("Conv", ["b", "shared"], ["sr"], "two"),
        ],
        "g",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [
            helper.make_tensor_value_info("sr", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(rng.normal(size=(3, 3, 1, 1)).astype(np.float32), "shared"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    crops = np.stack([p.pixels[:80, :120] for p in photographs])
    found = rounded(model, crops)
    assert set(found) == {"weight"}
    rows = crops.reshape(-1, 3).astype(np.float64) / 255
    scales = weight_scales(weight, 1)
    lost = [
        (rows @ (codes * scales - weight)).var()
        for codes in (found["weight"], nearest_codes(weight, scales))
    ]
    assert lost[0] <= lost[1]


@pytest.mark.parametrize("shape", [(8, 16, 1, 1), (8, 6, 3, 3), (8, 3, 3, 3), (8, 5, 3, 3)])
def test_weights_that_fit_in_pairs(shape, photographs) -> None:
    """No pair is too large, and the output still errs less than with nearest codes."""
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = layer(weight, pads=[shape[2] // 2] * 4)
    crops = np.stack([p.pixels[:80, :120] for p in photographs])
    codes = rounded(model, crops, in_pairs=True)["weight"]
    assert pairs_fit(codes, 0)
    scales = weight_scales(weight, 0, in_pairs=True).reshape(-1, 1, 1, 1)
    nearest = nearest_codes(weight, scales)
    assert pairs_fit(nearest, 0)
    lost = [((weight - c * scales) ** 2).mean() for c in (codes, nearest)]
    assert lost[0] < 4 * lost[1]
    assert not pairs_fit(rounded(model, crops)["weight"], 0)


@pytest.mark.parametrize(("shape", "group"), [((8, 6, 3, 3), 1), ((12, 1, 5, 5), 12)])
def test_inputs_divided_later_need_no_second_look(shape, group, photographs) -> None:
    """As the graph whose weights and inputs were equalised after its activations were seen."""
    rng = np.random.default_rng(4)
    weight = rng.normal(size=shape).astype(np.float32)
    model = layer(weight, group=group, pads=[shape[2] // 2] * 4)
    crops = np.stack([p.pixels[:80, :120] for p in photographs])
    factors = rng.uniform(0.2, 5, shape[1] * group).astype(np.float32)
    divided = onnx.ModelProto()
    divided.CopyFrom(model)
    mix, taken = divided.graph.initializer
    by = factors.reshape(group, -1).repeat(shape[0] // group, axis=0).reshape(shape[0], -1, 1, 1)
    mix.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(mix) / factors[:, None, None, None], "mix")
    )
    taken.CopyFrom(numpy_helper.from_array((weight * by).astype(np.float32), "weight"))
    once = round_weights(divided, covariances(model, crops), {"layer": factors})["weight"]
    again = rounded(divided, crops)["weight"]
    assert np.mean(once != again) < 0.01
