"""Which tensors leave half of fp16's range on calibration pictures, and at which pixel.

Half of the range is the room for pictures that calibration has not seen. Every float tensor
counts that would be stored in fp16: the graph's own, its constants, and inside the bodies of the
custom ops those that follow the type of their inputs; what a body casts to float32 by itself does
not.

Memory is that of a plain run, whatever the size of the network: maxima and where they are are found
inside the graph, each as soon as its tensor is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..errors import DatasetError
from ..export.stored import StoredFloats, stored_floats
from ..runtime.targets.onnxruntime import graph_runner
from .calibration_set import Origin
from .crops import Crops
from .layout import pixel_of
from .pictures import as_input
from .ranges import Progress

HALF_RANGE = 65504 / 2
"""Half of the largest number that fp16 holds."""

STEP = "checking fp16's range"
_LARGEST, _SUM, _INDEX, _SHAPE = "/half_range_largest", "/half_range_sum", "/at", "/shape"


@dataclass(frozen=True)
class LargeTensor:
    """A tensor beyond half of fp16's range.

    Attributes:
        tensor: Its name; inside a custom op, the name in the graph of standard operators.
        node: The node of the graph that makes it, or the first that reads a constant.
        magnitude: The largest that was seen.
        picture: Where that was; empty for what is the same on every picture.
        row: In pixels of the picture; None where the tensor's positions are no pixels.
        column: Likewise.
        channel: Of the tensor, likewise.
    """

    tensor: str
    node: str
    magnitude: float
    picture: str = ""
    row: int | None = None
    column: int | None = None
    channel: int | None = None


def large_tensors(
    model: onnx.ModelProto,
    crops: Crops,
    origins: Sequence[Origin],
    progress: Progress | None = None,
) -> tuple[LargeTensor, ...]:
    """Run the float32 graph on ``crops`` and list what passes :data:`HALF_RANGE`, worst first.

    Args:
        model: Float32 N×3×H×W in, with or without Q/DQ; it is not changed.
        crops: N×H×W×3 uint8.
        origins: Where each crop was cut.
        progress: Told the crops that are done.

    Raises:
        DatasetError: There are no crops, or a tensor is not finite on them.
    """
    if len(crops) == 0 or len(crops) != len(origins):
        raise DatasetError(
            f"{len(crops)} calibration crops with {len(origins)} origins",
            "give at least one picture",
        )
    stored = stored_floats(model)
    seen = _maxima(stored.plain, list(stored.owners), crops, progress)
    found = [
        _located(stored, crops[index], origins[index], names)
        for index, names in _by_crop(seen).items()
    ]
    large = [tensor for group in found for tensor in group] + _constants(model)
    return tuple(sorted(large, key=lambda tensor: -tensor.magnitude))


def _maxima(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    crops: Crops,
    progress: Progress | None,
) -> dict[str, tuple[float, int]]:
    """The tensors beyond the limit, with their largest magnitude and the crop that has it."""
    run = graph_runner(_measuring(model, tensors))
    source = model.graph.input[0].name
    seen: dict[str, tuple[float, int]] = {}
    for index, crop in enumerate(crops):
        values = run({source: as_input(crop[None])})
        for name in tensors:
            magnitude = float(values[name + _LARGEST])
            # the runtime's maximum passes over NaN, its sum does not
            if np.isinf(magnitude) or np.isnan(values[name + _SUM]):
                raise DatasetError(
                    f"the tensor {name} is not finite on the calibration pictures",
                    "the network itself fails on them: check its weights",
                )
            if magnitude > max(HALF_RANGE, seen.get(name, (0.0, 0))[0]):
                seen[name] = (magnitude, index)
        if progress:
            progress(STEP, index + 1, len(crops))
    return {name: seen[name] for name in tensors if name in seen}


# ONNX Runtime takes the last of the nodes that nothing reads first, with all that it needs. So the
# nodes below follow their tensors backwards: forwards, all tensors would be held to the end.


def _measuring(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with the largest magnitude and the sum of magnitudes of ``tensors`` as outputs."""
    nodes: list[NodeProto] = []
    for name in reversed(tensors):
        nodes += [
            helper.make_node("Abs", [name], [f"{name}/half_range_abs"]),
            helper.make_node(
                "ReduceMax", [f"{name}/half_range_abs"], [name + _LARGEST], keepdims=0
            ),
            helper.make_node("ReduceL1", [name], [name + _SUM], keepdims=0),
        ]
    outputs = {name + end: TensorProto.FLOAT for name in tensors for end in (_LARGEST, _SUM)}
    return _extended(model, nodes, outputs)


def _locating(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The graph with the flat index of the largest magnitude, and the shape, as outputs."""
    flat = "half_range/flat"
    nodes = [helper.make_node("Constant", [], [flat], value_ints=[-1])]
    outputs: dict[str, int] = {}
    for name in reversed(tensors):
        magnitudes, line = f"{name}/half_range_abs", f"{name}/half_range_line"
        nodes += [
            helper.make_node("Abs", [name], [magnitudes]),
            helper.make_node("Reshape", [magnitudes, flat], [line]),
            helper.make_node("ArgMax", [line], [name + _INDEX], axis=0, keepdims=0),
            helper.make_node("ReduceMax", [magnitudes], [name + _LARGEST], keepdims=0),
            helper.make_node("Shape", [name], [name + _SHAPE]),
        ]
        outputs |= {name + _INDEX: TensorProto.INT64, name + _SHAPE: TensorProto.INT64}
        outputs[name + _LARGEST] = TensorProto.FLOAT
    return _extended(model, nodes, outputs)


def _extended(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], outputs: Mapping[str, int]
) -> onnx.ModelProto:
    """The graph with more nodes, and with ``outputs``, name to type, for its only outputs."""
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    graph = extended.graph
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(n, t, None) for n, t in outputs.items())
    return extended


def _by_crop(seen: dict[str, tuple[float, int]]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for name, (_, index) in seen.items():
        groups.setdefault(index, []).append(name)
    return groups


def _located(
    stored: StoredFloats, crop: NDArray[np.uint8], origin: Origin, tensors: Sequence[str]
) -> list[LargeTensor]:
    """The tensors whose largest magnitude is on ``crop``, with its pixel."""
    run = graph_runner(_locating(stored.plain, tensors))
    values = run({stored.plain.graph.input[0].name: as_input(crop[None])})
    varying = _varying(stored.plain)
    found = []
    for name in tensors:
        owner, magnitude = stored.owners[name], float(values[name + _LARGEST])
        if name not in varying:  # a weight as its node turns or dequantises it
            found.append(LargeTensor(name, owner, magnitude))
            continue
        shape = tuple(int(n) for n in values[name + _SHAPE])
        large = LargeTensor(name, owner, magnitude, origin.picture)
        if place := pixel_of(int(values[name + _INDEX]), shape, crop.shape[:2]):
            row, column = origin.top + place[0], origin.left + place[1]
            large = replace(large, row=row, column=column, channel=place[2])
        found.append(large)
    return found


def _varying(model: onnx.ModelProto) -> set[str]:
    """The tensors that depend on the picture or its size."""
    reached = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
    return reached


def _constants(model: onnx.ModelProto) -> list[LargeTensor]:
    """The graph's constants beyond the limit."""
    readers: dict[str, str] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, node.name)
    found = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name in readers:
            magnitudes = np.abs(numpy_helper.to_array(tensor))
            if magnitudes.size and not magnitudes.max() <= HALF_RANGE:
                largest = float(magnitudes.max())
                found.append(LargeTensor(tensor.name, readers[tensor.name], largest))
    return found
