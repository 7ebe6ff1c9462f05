"""An int8 graph within a drift budget, from calibration and tuning pictures.

Two repairs come first, which cost nothing when the engine runs: channels are equalised into the
neighbouring weights, and biases make up for what rounding the weights shifts. Then each layer is
measured alone, and the layers whose loss per multiply-accumulate is largest stay in float until
the drift on the tuning windows is within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExportError
from ..export.macs import macs
from ..export.quantise import activations, quantisable_nodes, quantise
from ..spec import Precision
from .calibration_set import CalibrationSet
from .channels import channel_statistics, convolved_tensors
from .equalise import equalise
from .observers import Observer, PercentileObserver
from .pictures import NamedPicture
from .ranges import Progress, Ranges, collect_ranges
from .search import Trial, search
from .sensitivity import NodeDrift, mean_psnr, rank_nodes, tuning_pairs

MAX_DRIFT = 0.05
"""dB that the search may lose where no budget is given."""

MIN_INT8 = 0.8
"""Least share of the Conv and MatMul MACs in int8."""

COUNTED_AT = (64, 64)
"""Height and width for which MACs are counted; their shares hardly depend on it."""

# Measured with VapSR-S on pictures outside calibration, tuning and test sets, mean PSNR-Y:
# all layers int8 / the worst 10 in float: 99.9 −0.94 / −0.060, 99.99 −0.25 / −0.025,
# 99.999 −0.22 / −0.020, minmax −0.28 / −0.031 dB.
PERCENTILE = 99.999


def percentile_observer() -> Observer:
    """What observes activations unless another observer is given."""
    return PercentileObserver(PERCENTILE)


@dataclass(frozen=True)
class Int8Result:
    """A calibrated network, from which int8 graphs of any float type are made.

    Attributes:
        prepared: The float32 graph with equalised channels; its results are the source's.
        ranges: Calibrated ranges of all quantisable nodes' inputs.
        means: Mean of each channel of the convolutions' inputs.
        float_nodes: Nodes left in float with what each alone would cost, worst first.
        ranked: The same of every quantisable node.
        trials: Every choice of float nodes that was measured.
        calibration_sha256: Digest of the calibration crops and frames.
    """

    prepared: onnx.ModelProto
    ranges: Ranges
    means: Mapping[str, NDArray[np.floating]]
    float_nodes: tuple[NodeDrift, ...]
    ranked: tuple[NodeDrift, ...]
    trials: tuple[Trial, ...]
    calibration_sha256: str

    def graph(self, rest: Precision) -> onnx.ModelProto:
        """The graph with Q/DQ, everything else still float32; ``lower`` to ``rest`` comes next.

        Raises:
            ExportError: Q/DQ of this type need a newer operator set.
        """
        names = [node.node for node in self.float_nodes]
        return quantise(self.prepared, self.ranges.bounds, names, rest, self.means)


def calibrate_int8(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    tuning: Sequence[NamedPicture],
    scale: int,
    max_drift: float = MAX_DRIFT,
    min_int8: float = MIN_INT8,
    observer: Callable[[], Observer] = percentile_observer,
    progress: Progress | None = None,
) -> Int8Result:
    """Calibrate ``model``, repair it, and choose which of its layers stay in float.

    Args:
        model: Float32 N×3×H×W in and out, after the graph passes; it is not changed.
        calibration: What the activations are observed on.
        tuning: Taken as HR; never the same pictures as ``calibration``.
        scale: Upscaling factor.
        max_drift: Budget in dB, from 0 on.
        min_int8: Least share of the Conv and MatMul MACs that stays int8, 0 to 1.
        observer: Makes the observer of one activation.
        progress: Told each step's name, the parts of it that are done, and all its parts.

    Raises:
        DatasetError: No tuning picture is usable.
        ExportError: The graph cannot be quantised.
    """
    nodes = quantisable_nodes(model)
    if not nodes or max_drift < 0 or not 0 <= min_int8 <= 1:
        raise ExportError(
            f"cannot quantise {len(nodes)} Conv and MatMul nodes within {max_drift} dB with"
            f" {min_int8:.0%} of the MACs in int8",
            "int8 needs such nodes with constant weights, a budget from 0 on, a share of 0 to 1",
        )
    pairs = tuning_pairs(tuning, scale)
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    pictures = calibration.pictures
    before = channel_statistics(model, pictures, convolved_tensors(model), progress)
    done = equalise(prepared, {name: found.maxima for name, found in before.items()})
    ranges = collect_ranges(
        prepared, calibration.pictures, activations(prepared), observer, progress
    )
    readers = {node.name: node.input[0] for node in model.graph.node if node.name in nodes}
    means: dict[str, NDArray[np.floating]] = {n: found.means for n, found in before.items()}
    # an equalised activation has one reader, and its means are divided as it is
    means |= {readers[n]: means[readers[n]] / by for n, by in done.factors.items()}
    ranked = rank_nodes(prepared, ranges.bounds, nodes, pairs, scale, progress)
    reference = mean_psnr(model, pairs, scale)

    def measure(float_nodes: Sequence[str]) -> float:
        graph = quantise(prepared, ranges.bounds, float_nodes, Precision.FP32, means)
        return mean_psnr(graph, pairs, scale) - reference

    found = search(ranked, macs(model, *COUNTED_AT), measure, max_drift, min_int8, progress)
    chosen = set(found.chosen.float_nodes)
    return Int8Result(
        prepared,
        ranges,
        means,
        tuple(node for node in ranked if node.node in chosen),
        ranked,
        found.trials,
        calibration.sha256,
    )
