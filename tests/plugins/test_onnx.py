"""The ops as ONNX nodes: bodies against the torch ops, in every runtime and operator set."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from srdeploy.export.macs import macs
from srdeploy.export.precision import lower
from srdeploy.plugins import DOMAIN, NAMESPACE, VERSION, plugin_versions
from srdeploy.plugins.enla.contract import EnlaShape
from srdeploy.plugins.enla.op import enla
from srdeploy.plugins.oca.contract import OcaShape
from srdeploy.plugins.oca.op import oca
from srdeploy.plugins.onnx_functions import (
    attach_functions,
    function,
    inline_functions,
    register_schemas,
)
from srdeploy.runtime.targets.onnxruntime import graph_runner
from srdeploy.spec import Precision

Arrays = dict[str, np.ndarray]


def model_of(name: str, inputs: Arrays, opset: int = 20, **attributes: Any) -> onnx.ModelProto:
    """One node with its body, every size a symbol but the channels."""
    kind = helper.np_dtype_to_tensor_dtype(inputs["q"].dtype)
    plugin = {"plugin_namespace": NAMESPACE, "plugin_version": VERSION}
    node = helper.make_node(
        name, list(inputs), ["out"], name, domain=DOMAIN, **attributes, **plugin
    )
    channel_axis = 3 if name == "oca" else 1

    def dims(key: str, array: np.ndarray) -> list[str | int]:
        if array.ndim < 4:
            return list(array.shape)
        names: list[str | int] = ["n", "a", "b", "c"]
        names[channel_axis] = array.shape[channel_axis]
        return names

    values = [
        helper.make_tensor_value_info(key, kind, dims(key, array)) for key, array in inputs.items()
    ]
    out = helper.make_tensor_value_info("out", kind, dims("v", inputs["v"]))
    graph = helper.make_graph([node], name, values, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    attach_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def oca_arrays(n: int, height: int, width: int, edge: int, overlap: int, heads: int) -> Arrays:
    random = np.random.default_rng(0)
    maps = {k: random.standard_normal((n, height, width, heads * 3)) for k in "qkv"}
    bias = random.standard_normal(((2 * edge + overlap - 1) ** 2, heads))
    return {k: a.astype(np.float32) for k, a in {**maps, "bias": bias}.items()}


def enla_arrays(n: int, height: int, width: int) -> Arrays:
    random = np.random.default_rng(0)
    arrays = {k: random.standard_normal((n, 6, height, width)) / 2 for k in "qk"}
    arrays |= {"v": random.standard_normal((n, 5, height, width))}
    arrays |= {"projection": random.standard_normal((12, 6))}
    return {k: a.astype(np.float32) for k, a in arrays.items()}


def run_openvino(model: onnx.ModelProto, inputs: Arrays) -> np.ndarray:
    core = ov.Core()
    opened = core.read_model(inline_functions(model).SerializeToString())
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    return np.array(core.compile_model(opened, "CPU", hint)(inputs)[0])


@given(
    n=st.integers(1, 2),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    edge=st.integers(2, 8),
    half_overlap=st.integers(0, 4),
    heads=st.integers(1, 3),
)
def test_oca_body_at_any_size(n, height, width, edge, half_overlap, heads) -> None:
    overlap = 2 * min(half_overlap, edge // 2)
    inputs = oca_arrays(n, height, width, edge, overlap, heads)
    model = model_of("oca", inputs, window=edge, overlap=overlap, heads=heads)
    expected = oca(*map(torch.from_numpy, inputs.values()), edge, overlap, heads).numpy()
    assert np.abs(graph_runner(model)(inputs)["out"] - expected).max() < 2e-6
    assert np.abs(run_openvino(model, inputs) - expected).max() < 5e-6


@given(n=st.integers(1, 2), height=st.integers(1, 17), width=st.integers(1, 17))
def test_enla_body_at_any_size(n, height, width) -> None:
    inputs = enla_arrays(n, height, width)
    model = model_of("enla", inputs, eps=1e-4)
    expected = enla(*map(torch.from_numpy, inputs.values()), 1e-4).numpy()
    assert np.abs(graph_runner(model)(inputs)["out"] - expected).max() < 2e-6
    assert np.abs(run_openvino(model, inputs) - expected).max() < 5e-6


@pytest.mark.parametrize("opset", range(18, 24))
def test_every_operator_set(opset: int) -> None:
    inputs = oca_arrays(1, 9, 8, 4, 2, 2)
    model = model_of("oca", inputs, opset, window=4, overlap=2, heads=2)
    expected = oca(*map(torch.from_numpy, inputs.values()), 4, 2, 2).numpy()
    assert np.abs(graph_runner(model)(inputs)["out"] - expected).max() < 2e-6
    inputs = enla_arrays(1, 7, 5)
    model = model_of("enla", inputs, opset, eps=1e-4)
    expected = enla(*map(torch.from_numpy, inputs.values()), 1e-4).numpy()
    assert np.abs(graph_runner(model)(inputs)["out"] - expected).max() < 2e-6
    assert {f.opset_import[0].version for f in model.functions} == {opset}


def test_one_model_with_several_calls_and_other_attributes() -> None:
    """ONNX Runtime opens each call of a function by itself; names must not collide."""
    inputs = oca_arrays(1, 8, 8, 4, 2, 2)
    model = model_of("oca", inputs, window=4, overlap=2, heads=2)
    again = model.graph.node.add()
    again.CopyFrom(model.graph.node[0])
    model.graph.node[0].output[0] = again.input[0] = "between"
    again.name = "again"
    q, k, v, bias = map(torch.from_numpy, inputs.values())
    expected = oca(oca(q, k, v, bias, 4, 2, 2), k, v, bias, 4, 2, 2).numpy()
    for form in (model, inline_functions(model)):
        assert np.abs(graph_runner(form)(inputs)["out"] - expected).max() < 2e-6
    names = [node.name for node in inline_functions(model).graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_softmax_features_and_sums_stay_float32(dtype) -> None:
    """A node takes and gives 16-bit floats; what would overflow inside is float32."""
    for name, inputs, attributes, inner in (
        ("oca", oca_arrays(1, 8, 8, 4, 2, 2), {"window": 4, "overlap": 2, "heads": 2}, {"Softmax"}),
        ("enla", enla_arrays(1, 7, 5), {"eps": 1e-4}, {"Exp", "MatMul", "ReduceSum", "Div"}),
    ):
        low = {key: array.astype(dtype) for key, array in inputs.items()}
        plain = inline_functions(model_of(name, low, 22, **attributes))
        inferred = onnx.shape_inference.infer_shapes(plain).graph
        types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
        floats = [n for n in plain.graph.node if types.get(n.output[0]) != TensorProto.INT64]
        assert inner <= {n.op_type for n in floats}
        for node in floats:
            if node.op_type in inner:
                assert types[node.output[0]] == TensorProto.FLOAT, node.name


def test_a_lowered_graph_gives_the_node_lower_types() -> None:
    inputs = oca_arrays(1, 8, 8, 4, 2, 2)
    model = model_of("oca", inputs, window=4, overlap=2, heads=2)
    lowered = lower(model, Precision.FP16)
    (node,) = (n for n in lowered.graph.node if n.domain == DOMAIN)
    inferred = onnx.shape_inference.infer_shapes(lowered).graph
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    exact = graph_runner(model)(inputs)["out"]
    assert np.abs(graph_runner(lowered)(inputs)["out"] - exact).max() < 5e-3


def test_shapes_flow_through_the_nodes() -> None:
    """As the checker and every pass see them, without opening the bodies."""
    inputs = enla_arrays(2, 7, 5)
    model = model_of("enla", inputs, eps=1e-4)
    (out,) = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
    assert [d.dim_param or d.dim_value for d in out.type.tensor_type.shape.dim] == [
        "n",
        5,
        "b",
        "c",
    ]


def test_a_wrong_node_does_not_pass_the_checker() -> None:
    inputs = oca_arrays(1, 8, 8, 4, 2, 2)
    good = model_of("oca", inputs, window=4, overlap=2, heads=2)
    for name in ("window", "heads"):
        bad = onnx.ModelProto()
        bad.CopyFrom(good)
        node = bad.graph.node[0]
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        with pytest.raises(onnx.checker.ValidationError, match=name):
            onnx.checker.check_model(bad, full_check=True)


def test_macs_inside_the_nodes_are_counted() -> None:
    inputs = oca_arrays(1, 8, 8, 4, 2, 2)
    model = model_of("oca", inputs, window=4, overlap=2, heads=2)
    for name in ("q", "k", "v"):  # sizes that the counter cannot name
        value = next(v for v in model.graph.input if v.name == name)
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 16, 24, 6), strict=True):
            dim.dim_value = size
    assert sum(macs(model, 16, 24).values()) == OcaShape(1, 16, 24, 6, 4, 2, 2).macs
    inputs = enla_arrays(1, 7, 5)
    model = model_of("enla", inputs, eps=1e-4)
    for value in model.graph.input[:3]:
        sizes = (1, value.type.tensor_type.shape.dim[1].dim_value, 7, 5)
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            dim.dim_value = size
    assert sum(macs(model, 7, 5).values()) == EnlaShape(1, 6, 5, 35, 12).macs


def test_names_and_versions() -> None:
    """Every plugin is a node with a body, and says the same namespace and version."""
    register_schemas()
    nodes = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == DOMAIN}
    assert nodes
    assert {name.rpartition("::")[2] for name in plugin_versions()} <= nodes
    for name in nodes:
        defaults = {a.name: a.s.decode() for a in function(name, 20).attribute_proto}
        assert defaults == {"plugin_namespace": NAMESPACE, "plugin_version": VERSION}
