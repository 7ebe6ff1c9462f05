"""An int8 graph from calibration and tuning pictures.

Ranges come from calibration crops; the layers that lose most, each measured alone on the
tuning pictures, stay in float. Choosing them within a drift budget, and repairs other than
float, would take the place of :func:`calibrate_int8`'s third step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from ..errors import ExportError
from ..export.macs import int8_mac_share
from ..export.quantise import activations, quantisable_nodes, quantise
from ..spec import Precision
from .observers import Observer, PercentileObserver
from .pictures import NamedPicture, digest, make_crops, too_small
from .ranges import Progress, Ranges, collect_ranges
from .sensitivity import NodeDrift, rank_nodes, tuning_pairs

CROP_SIZE = (80, 120)
CROP_COUNT = 100
WORST = 10
# Measured with VapSR-S on pictures outside calibration, tuning and test sets, mean PSNR-Y:
# all layers int8 / the worst 10 in float: 99.9 −0.94 / −0.060, 99.99 −0.25 / −0.025,
# 99.999 −0.22 / −0.020, minmax −0.28 / −0.031 dB.
PERCENTILE = 99.999


def percentile_observer() -> Observer:
    """What observes activations unless another observer is given."""
    return PercentileObserver(PERCENTILE)


@dataclass(frozen=True)
class Int8Result:
    """An int8 graph and how it came about.

    Attributes:
        model: The graph with Q/DQ, everything else still float32; ``lower`` comes next.
        ranges: Calibrated ranges of all quantisable nodes' inputs.
        float_nodes: Nodes left in float with what each alone would cost, worst first.
        calibration_sha256: Digest of the calibration crops.
        int8_mac_share: Share of the Conv and MatMul MACs that are int8.
        left_out: Names of calibration pictures that were too small for a crop.
    """

    model: onnx.ModelProto
    ranges: Ranges
    float_nodes: tuple[NodeDrift, ...]
    calibration_sha256: str
    int8_mac_share: float
    left_out: tuple[str, ...]


def calibrate_int8(
    model: onnx.ModelProto,
    calibration: Sequence[NamedPicture],
    tuning: Sequence[NamedPicture],
    scale: int,
    rest: Precision,
    worst: int = WORST,
    observer: Callable[[], Observer] = percentile_observer,
    progress: Progress | None = None,
) -> Int8Result:
    """Calibrate ``model`` and quantise all of it but its ``worst`` most sensitive nodes.

    Args:
        model: Float32 N×3×H×W in and out, after the graph passes.
        calibration: Fed to the network as they are, in crops of 80×120.
        tuning: Taken as HR; never the same pictures as ``calibration``.
        scale: Upscaling factor.
        rest: Type that the graph is going to be lowered to.
        worst: How many nodes stay in float.
        observer: Makes the observer of one activation.
        progress: Told each step's name, the parts of it that are done, and all its parts.

    Raises:
        DatasetError: No picture is usable.
        ExportError: The graph cannot be quantised.
    """
    nodes = quantisable_nodes(model)
    if not nodes or worst < 0:
        raise ExportError(
            f"cannot leave the worst {worst} of {len(nodes)} Conv and MatMul nodes in float",
            "int8 needs at least one such node with constant weights, and a count from 0 on",
        )
    crops = make_crops(calibration, CROP_SIZE, CROP_COUNT)
    pairs = tuning_pairs(tuning, scale) if worst else ()
    ranges = collect_ranges(model, crops, activations(model), observer, progress)
    float_nodes: tuple[NodeDrift, ...] = ()
    if worst:
        float_nodes = rank_nodes(model, ranges.bounds, nodes, pairs, scale, progress)[:worst]
    quantised = quantise(model, ranges.bounds, [d.node for d in float_nodes], rest)
    return Int8Result(
        quantised,
        ranges,
        float_nodes,
        digest(crops),
        int8_mac_share(quantised),
        too_small(calibration, CROP_SIZE),
    )
