"""LayerNorm over the channels of N×C×H×W without its two transposes.

PyTorch normalises the last axis only, so a channel LayerNorm is traced as Transpose,
LayerNormalization, Transpose: two copies of the feature map that cost OpenVINO about a
quarter of VapSR. Written over axis 1 it needs none::

    d = x - mean(x);  y = d / sqrt(mean(d·d) + eps) · gamma + beta

Source: Ba et al., "Layer Normalization", arXiv:1607.06450, equation 4.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from ..precision import pin_to_fp32
from . import GraphPass, PassReport

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def run(model: onnx.ModelProto) -> PassReport:
    """Rewrite every channel LayerNorm of ``model`` in place."""
    report = PassReport()
    graph = model.graph
    producers = {out: node for node in graph.node for out in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    replaced: dict[int, list[NodeProto]] = {}
    for node in [n for n in graph.node if n.op_type == "LayerNormalization"]:
        before = producers.get(node.input[0])
        after = consumers.get(node.output[0], [])
        reason = _refusal(node, before, consumers, weights, outputs)
        if reason:
            report.refused[node.name] = reason
            continue
        assert before is not None  # _refusal has looked
        replaced[id(node)] = _over_axis_1(node, before.input[0], after[0].output[0], weights, graph)
        replaced[id(after[0])] = []
        if len(consumers[before.output[0]]) == 1:
            replaced[id(before)] = []
        report.rewritten.append(node.name)
    nodes = [new for node in graph.node for new in replaced.get(id(node), [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    return report


def _refusal(
    node: NodeProto,
    before: NodeProto | None,
    consumers: dict[str, list[NodeProto]],
    weights: dict[str, onnx.TensorProto],
    outputs: set[str],
) -> str:
    """Why this LayerNormalization is no channel LayerNorm; empty where it is one."""
    after = consumers.get(node.output[0], [])
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    if axis not in (-1, 3):
        return f"it normalises from axis {axis}"
    if before is None or before.op_type != "Transpose" or _permutation(before) != TO_LAST:
        return "its input is no transpose to channels-last"
    if len(after) != 1 or after[0].op_type != "Transpose" or _permutation(after[0]) != TO_FIRST:
        return "its output does not go to one transpose to channels-first alone"
    if node.output[0] in outputs or len([o for o in node.output if o]) != 1:
        return "its channels-last output or its statistics are used"
    if any(name and name not in weights for name in node.input[1:]):
        return "its scale or bias is computed"
    if any(name and len(consumers[name]) > 1 for name in node.input[1:]):
        return "its scale or bias is shared"
    return ""


def _permutation(node: NodeProto) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])


def _over_axis_1(
    node: NodeProto,
    x: str,
    y: str,
    weights: dict[str, onnx.TensorProto],
    graph: onnx.GraphProto,
) -> list[NodeProto]:
    """The nodes that compute ``y`` from ``x``, both N×C×H×W."""
    name = node.name
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)

    def constant(made: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, made))
        return made

    def op(kind: str, suffix: str, *inputs: str, output: str = "") -> str:
        made = output or f"{name}/{suffix}"
        nodes.append(helper.make_node(kind, inputs, [made], name=f"{name}/{suffix}"))
        return made

    nodes: list[NodeProto] = []
    axes = constant(f"{name}/axes", np.array([1], dtype=np.int64))
    centred = op("Sub", "centred", x, op("ReduceMean", "mean", x, axes))
    first_of_variance = len(nodes)
    square = op("Mul", "square", centred, centred)
    variance = op("ReduceMean", "variance", square, axes)
    small = constant(f"{name}/epsilon", np.array(epsilon, dtype=np.float32))
    deviation = op("Sqrt", "deviation", op("Add", "variance_epsilon", variance, small))
    for member in nodes[first_of_variance:]:  # squares leave fp16's range above 255
        pin_to_fp32(member)
    parts = [(k, n) for k, n in zip(("scale", "bias"), node.input[1:], strict=False) if n]
    result = op("Div", "normed", centred, deviation, output="" if parts else y)
    for i, (kind, tensor) in enumerate(parts):
        # Under their own names, so that the network can be rebuilt from the file.
        per_channel = numpy_helper.to_array(weights[tensor]).reshape(-1, 1, 1)
        graph.initializer.remove(weights[tensor])
        last = i == len(parts) - 1
        result = op(
            "Mul" if kind == "scale" else "Add",
            "scaled" if kind == "scale" else "shifted",
            result,
            constant(tensor, per_channel),
            output=y if last else "",
        )
    return nodes


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


PASS = GraphPass("channel-layernorm", run)
