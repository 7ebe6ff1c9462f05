"""A graph in parts, run one after the other, so that not all activations are held at once.

The activations of VapSR-S that int8 is calibrated on take 121 MiB for a crop of 120×80 and 967 MiB
for a frame of 320×240; in parts, the frame's need 350 MiB. Each part gives the tensors that are
watched in it and what later parts read; every node runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ..errors import ExportError
from ..export.macs import shapes_at
from ..runtime.targets.onnxruntime import graph_runner

MOST_BYTES = 256 << 20
"""Of the watched tensors that a part gives for one picture."""

Values = dict[str, NDArray[Any]]


class Part:
    """Consecutive nodes of a graph as a function; it may run in several threads at once.

    Attributes:
        watched: The tensors that were asked for and are made here.
        passed_on: What is made here and later parts read.
        dropped: What this part reads and no later part does.
    """

    def __init__(
        self, model: onnx.ModelProto, nodes: Sequence[NodeProto], watched: Sequence[str]
    ) -> None:
        self.watched = tuple(watched)
        self.passed_on: tuple[str, ...] = ()
        self.dropped: tuple[str, ...] = ()
        self._model = model
        self._nodes = nodes
        self.made = {name for node in nodes for name in node.output}
        used = dict.fromkeys(name for node in nodes for name in node.input if name)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants = [constants[name] for name in used if name in constants]
        self.inputs = tuple(n for n in used if n not in constants and n not in self.made)
        self._runner: Callable[[Values], Values] | None = None

    def prepare(self, values: Values) -> None:
        """Open the part for inputs of these types, if it is not open."""
        if self._runner is None:
            inputs = [_typed(name, values[name]) for name in self.inputs]
            names = dict.fromkeys((*self.watched, *self.passed_on))
            outputs = [onnx.ValueInfoProto(name=name) for name in names]
            graph = helper.make_graph(self._nodes, "part", inputs, outputs, self._constants)
            part = helper.make_model(
                graph, opset_imports=self._model.opset_import, functions=self._model.functions
            )
            part.ir_version = self._model.ir_version
            self._runner = graph_runner(part, keep_memory=False)

    def run(self, values: Values) -> Values:
        """Compute what is watched and passed on from a picture's ``values`` so far."""
        assert self._runner is not None  # prepared
        return self._runner({name: values[name] for name in self.inputs})


def split(
    model: onnx.ModelProto, tensors: Collection[str], height: int, width: int
) -> tuple[Part, ...]:
    """Cut a graph so that each part gives at most :data:`MOST_BYTES` of ``tensors``.

    What ``tensors`` do not need is left out. How the graph is cut depends on nothing but the
    arguments: ONNX Runtime rounds otherwise where it can merge other nodes.

    Args:
        model: N×3×H×W in.
        tensors: Names of tensors that nodes make.
        height: Of the picture, in pixels.
        width: Likewise.

    Raises:
        ExportError: The graph has no such tensor.
    """
    known = {out for node in model.graph.node for out in node.output}
    missing = [name for name in tensors if name not in known]
    if missing:
        raise ExportError(f"the graph has no tensor {', '.join(missing)}", "name its own tensors")
    shapes = shapes_at(model, height, width)
    parts: list[Part] = []
    nodes: list[NodeProto] = []
    held: dict[str, int] = {}
    for node in _needed(model, tensors):
        made = {n: 4 * math.prod(shapes.get(n, ())) for n in node.output if n in tensors}
        if held and sum(held.values()) + sum(made.values()) > MOST_BYTES:
            parts.append(Part(model, nodes, list(held)))
            nodes, held = [], {}
        nodes.append(node)
        held |= made
    if nodes:
        parts.append(Part(model, nodes, list(held)))
    _connect(parts)
    return tuple(parts)


def _needed(model: onnx.ModelProto, tensors: Collection[str]) -> list[NodeProto]:
    """The nodes that ``tensors`` depend on, in the graph's order."""
    wanted = set(tensors)
    nodes = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    return nodes[::-1]


def run_parts(
    parts: Sequence[Part],
    inputs: Sequence[Values],
    see: Callable[[str, NDArray[np.float32]], None],
) -> None:
    """Run each picture of ``inputs`` through all parts and show what is watched to ``see``.

    The pictures run at the same time, each alone: for several pictures in one tensor ONNX
    Runtime's convolutions add in another order.
    """
    held = [dict(values) for values in inputs]
    if len(held) == 1:  # in this thread: an interruption ends it at once
        for part in parts:
            part.prepare(held[0])
            _run_part(part, held, map, see)
        return
    with ThreadPoolExecutor(len(held)) as pool:
        for part in parts:
            part.prepare(held[0])
            _run_part(part, held, pool.map, see)


def _run_part(
    part: Part,
    held: Sequence[Values],
    run_all: Callable[[Callable[[Values], Values], Sequence[Values]], Iterable[Values]],
    see: Callable[[str, NDArray[np.float32]], None],
) -> None:
    """Run one part on each picture; what only it made is gone when this returns."""
    for values, made in zip(held, list(run_all(part.run, held)), strict=True):
        for name in part.watched:
            see(name, made[name])
        values |= {name: made[name] for name in part.passed_on}
        for name in part.dropped:
            del values[name]


def _connect(parts: Sequence[Part]) -> None:
    """Let each part pass on what later ones read, and drop what none does."""
    later: set[str] = set()
    for part in reversed(parts):
        part.passed_on = tuple(sorted(part.made & later))
        part.dropped = tuple(name for name in part.inputs if name not in later)
        later.update(part.inputs)


def _typed(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * value.ndim)
