"""What a layer costs in int8 and in float, measured on this machine or modelled.

Measured: engines in which all layers of one kind are float are timed against the one that is
int8 throughout, in turn, on the target itself. So fusion, conversions and whatever else an
engine does count, and a layer that int8 does not speed up shows as such.

Modelled, where the target does not run here: the roofline of a GPU. Source: Williams et al.,
"Roofline", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import onnx

from ..export.macs import macs, shapes_at
from ..export.quantise import quantisable_nodes, quantisable_weights
from ..runtime.session import Session
from ..runtime.timing import timed_rounds
from .ranges import Progress

MEASURED_UNIT = "% of the time in float"
MODELLED_UNIT = "% of the cost in 16 bits"

COUNTED_AT = (64, 64)
"""Height and width for which MACs and bytes are counted; their shares hardly depend on it."""

TIMED_AT = (120, 160)
"""Height and width of the frames that are timed."""

NOTICED = 8.0
"""Percent of a frame's time below which a gain is taken for none: the same engine, opened anew, was
up to 5 % faster or slower, by where its buffers lie in memory."""

STEP = 4.0
"""Gains are rounded to its powers, so that another hour's clock makes no other engine."""

ROUNDS, REPEATED = 5, 2
"""How often each engine is timed, and how often all are opened anew."""

SMALL = 0.05
"""Share of the multiply-accumulates below which a kind of layers cannot change the time much."""
# Multiply-accumulates in 16 bits for which a GPU could read a byte: 165 TFLOP/s of dense fp16
# and 1 TB/s (RTX 4090) make 82, 990 and 3.35 (H100) 148. int8 has twice the MACs, half the bytes.
MACS_PER_BYTE = 100.0


@dataclass(frozen=True)
class Costs:
    """What each quantisable layer costs.

    Attributes:
        unit: Of all numbers.
        all_int8: Of the graph with every quantisable layer in int8.
        in_float: Of the graph with none.
        saved: Layer to what its int8 saves; 0 or less where float is no slower.
    """

    unit: str
    all_int8: float
    in_float: float
    saved: Mapping[str, float]

    def of(self, float_nodes: Sequence[str]) -> float:
        """Estimate of the graph with ``float_nodes`` in float."""
        return self.all_int8 + sum(self.saved[node] for node in float_nodes)


def modelled_costs(model: onnx.ModelProto) -> Costs:
    """Costs of a graph's quantisable layers by the roofline; all of them in 16 bits are 100."""
    counts = macs(model, *COUNTED_AT)
    shapes = shapes_at(model, *COUNTED_AT)
    weights = quantisable_weights(model)
    saved: dict[str, float] = {}
    every = 0.0
    for node in model.graph.node:
        if node.name not in weights:
            continue
        moved = math.prod(shapes[node.input[0]]) + math.prod(shapes[weights[node.name].name])
        made = 2 * math.prod(shapes[node.output[0]])  # the output is float either way
        in_float = max(counts[node.name], (2 * moved + made) * MACS_PER_BYTE)
        in_int8 = max(counts[node.name] / 2, (moved + made) * MACS_PER_BYTE)
        saved[node.name] = in_float - in_int8
        every += in_float
    percent = {name: 100 * gain / every for name, gain in saved.items()}
    return Costs(MODELLED_UNIT, 100 - sum(percent.values()), 100.0, percent)


def kinds(model: onnx.ModelProto) -> list[tuple[str, ...]]:
    """Quantisable nodes that are alike: same operator, weight's shape and attributes."""
    weights = quantisable_weights(model)
    dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    found: dict[tuple[object, ...], list[str]] = {}
    for node in model.graph.node:
        if node.name in weights:
            attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
            key = (node.op_type, dims[weights[node.name].name], *attributes)
            found.setdefault(key, []).append(node.name)
    return [tuple(names) for names in found.values()]


Open = Callable[[Sequence[str]], Session]
"""Builds and opens the engine with some layers in float."""


def measured_costs(
    model: onnx.ModelProto, open_engine: Open, progress: Progress | None = None
) -> Costs:
    """Costs of a graph by the clock, in percent of the time of the engine that is all in float.

    Layers of a kind share what is measured of it by their multiply-accumulates. Engines are
    compared within a round; what kinds of few multiply-accumulates seem to save is taken for the
    error of what they are compared with.

    Raises:
        SrDeployError: An engine cannot be built or run.
    """
    groups = kinds(model)
    every = quantisable_nodes(model)
    counts = macs(model, *COUNTED_AT)
    whole = [sum(counts[name] for name in group) for group in groups]
    ratios = _compared([(), every, *groups], open_engine, progress)
    small = [
        ratio
        for ratio, count in zip(ratios[1:], whole, strict=True)
        if count < SMALL * sum(counts.values())
    ]
    in_float, *slower = np.array(ratios) / statistics.median([1.0, *small])
    saved: dict[str, float] = {}
    for group, ratio, count in zip(groups, slower, whole, strict=True):
        gain = _rounded(100 * (ratio - 1) / in_float)
        saved |= {name: gain * counts[name] / count for name in group}
    return Costs(MEASURED_UNIT, float(100 / in_float), 100.0, {n: saved[n] for n in every})


def _rounded(percent: float) -> float:
    """To 16, 64 … where the clock can tell it from none, else 0."""
    if abs(percent) < NOTICED:
        return 0.0
    return math.copysign(STEP ** round(math.log(abs(percent), STEP)), percent)


def _compared(
    choices: Sequence[Sequence[str]], open_engine: Open, progress: Progress | None
) -> list[float]:
    """Time of each choice of float layers but the first over that of the first: the median of the
    rounds' ratios, on average over engines that are opened anew.

    Raises:
        SrDeployError: An engine cannot be built or run.
    """
    found = []
    for repeat in range(REPEATED):

        def told(done: int, before: int = repeat * len(choices)) -> None:
            if progress:
                progress("timing layers", before + done, REPEATED * len(choices))

        with ExitStack() as opened:
            sessions = [opened.enter_context(open_engine(choice)) for choice in choices]
            rounds = timed_rounds(sessions, (1, *TIMED_AT), ROUNDS, told)
        ratios = [[took / first for took in others] for first, *others in rounds]
        found.append(np.median(ratios, axis=0))
    return [float(ratio) for ratio in np.mean(found, axis=0)]
