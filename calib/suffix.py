"""Running only the part of a graph that a change reaches, on activations kept from before.

A layer quantised alone changes nothing before it. So the float network runs once, what its
later parts read is kept, and each layer's measurement starts at that layer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..runtime.targets.onnxruntime import graph_runner

Values = dict[str, NDArray[Any]]

HELD_AT_ONCE = 1 << 30
"""Bytes of activations that are kept at a time."""


class Prefix:
    """A float graph, whose activations others start from.

    Args:
        model: Float32 N×3×H×W in.
        inputs: What it runs on, one after the other; sizes may differ.
    """

    def __init__(self, model: onnx.ModelProto, inputs: Sequence[NDArray[np.float32]]) -> None:
        self.model = model
        self.inputs = inputs
        self.source = model.graph.input[0].name
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.kinds = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }

    def reads(self, node: str) -> set[str]:
        """Tensors that the graph from ``node`` on reads and does not make.

        Those of a pixel shuffle right before it are among them, as it may move int8.
        """
        nodes = self.model.graph.node
        tensor = next(n.input[0] for n in nodes if n.name == node)
        shuffles = {n.name for n in nodes if tensor in n.output and n.op_type == "DepthToSpace"}
        both = (_cut(self.model, start)[1] for start in ({node}, {node} | shuffles))
        return set().union(*both)

    def suffix(self, changed: onnx.ModelProto, start: Collection[str]) -> onnx.ModelProto:
        """The part of a changed copy of the graph that depends on the nodes ``start``.

        Its inputs are tensors of this graph, its output is the graph's.
        """
        nodes, reads = _cut(changed, start)
        inputs = [
            helper.make_tensor_value_info(name, self.kinds.get(name, TensorProto.FLOAT), None)
            for name in sorted(reads)
        ]
        used = {name for node in nodes for name in node.input}
        part = helper.make_graph(
            nodes,
            "suffix",
            inputs,
            list(changed.graph.output),
            [tensor for tensor in changed.graph.initializer if tensor.name in used],
        )
        return helper.make_model(
            part,
            opset_imports=changed.opset_import,
            functions=changed.functions,
            ir_version=changed.ir_version,
        )

    def blocks(self, reads: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
        """Keys of ``reads``, in order, whose tensors fit into memory together.

        Args:
            reads: Anything, to the names of the tensors that it reads.
        """
        tensors = sorted({name for names in reads.values() for name in names})
        sizes = self._sizes(tensors)
        block: list[str] = []
        held: set[str] = set()
        for key, names in reads.items():
            together = held | set(names)
            if block and sum(sizes[name] for name in together) > HELD_AT_ONCE:
                yield block
                block, together = [], set(names)
            block.append(key)
            held = together
        if block:
            yield block

    def _sizes(self, tensors: Sequence[str]) -> dict[str, int]:
        """Bytes of each tensor over all inputs, as the first one has it; sizes alone are kept."""
        counted = onnx.ModelProto()
        counted.CopyFrom(self.model)
        del counted.graph.output[:]
        for index, name in enumerate(tensors):
            counted.graph.node.append(helper.make_node("Size", [name], [f"size/{index}"]))
            counted.graph.output.append(
                helper.make_tensor_value_info(f"size/{index}", TensorProto.INT64, [])
            )
        found = graph_runner(counted)({self.source: self.inputs[0]}) if tensors else {}
        return {n: 4 * len(self.inputs) * int(found[f"size/{i}"]) for i, n in enumerate(tensors)}

    def activations(self, tensors: Collection[str]) -> list[Values]:
        """The tensors, of each input."""
        exposed = onnx.ModelProto()
        exposed.CopyFrom(self.model)
        del exposed.graph.output[:]
        names = sorted(set(tensors) - {self.source})
        exposed.graph.output.extend(
            helper.make_tensor_value_info(name, self.kinds.get(name, TensorProto.FLOAT), None)
            for name in names
        )
        frames: list[Values] = [{self.source: frame} for frame in self.inputs]
        if not names:
            return frames
        run = graph_runner(exposed)
        return [frame | run(frame) for frame in frames]


def _cut(model: onnx.ModelProto, start: Collection[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes from ``start`` on, and what they read that neither they nor constants give."""
    constants = {tensor.name for tensor in model.graph.initializer}
    reached: set[str] = set()
    kept = []
    for node in model.graph.node:
        if node.name in start or reached & set(node.input):
            reached |= set(node.output)
            kept.append(node)
    # what is computed from constants alone, as weights are, belongs to whoever reads it
    fixed = [n for n in _fixed(model.graph.node, constants) if not reached & set(n.output)]
    needed = _needed(fixed, {name for node in kept for name in node.input} - reached)
    nodes = [n for n in model.graph.node if n.name in needed or reached & set(n.output)]
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input if name}
    return nodes, read - made - constants


def _fixed(nodes: Collection[onnx.NodeProto], constants: set[str]) -> list[onnx.NodeProto]:
    """Nodes that compute with constants only."""
    known = set(constants)
    found = []
    for node in nodes:
        if all(name in known for name in node.input if name):
            known |= set(node.output)
            found.append(node)
    return found


def _needed(nodes: Sequence[onnx.NodeProto], wanted: set[str]) -> set[str]:
    """Names of those of ``nodes`` that make what is wanted, directly or not."""
    wanted = set(wanted)
    found = set()
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.add(node.name)
    return found
