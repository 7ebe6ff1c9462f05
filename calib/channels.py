"""What each channel of an activation does on calibration crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..export.quantise import quantisable_nodes
from .pictures import Crops
from .ranges import Progress, watch


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one activation N×C×…, over all crops.

    Attributes:
        maxima: Largest magnitude of each channel, C.
        means: Mean of each channel, C.
    """

    maxima: NDArray[np.float32]
    means: NDArray[np.float64]


def convolved_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """The activations that quantisable convolutions read, in the graph's order."""
    wanted = set(quantisable_nodes(model))
    convolutions = (n for n in model.graph.node if n.op_type == "Conv" and n.name in wanted)
    return tuple(dict.fromkeys(node.input[0] for node in convolutions))


def channel_statistics(
    model: onnx.ModelProto,
    crops: Crops,
    tensors: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, ChannelStatistics]:
    """Run ``model`` on ``crops`` and keep the maxima and means of the channels of ``tensors``.

    The sums are float64, so that they hardly depend on the order of the crops.

    Raises:
        DatasetError: There are no crops.
        ExportError: The graph has no such tensor.
    """
    maxima: dict[str, NDArray[np.float32]] = {}
    sums: dict[str, NDArray[np.float64]] = {}

    def see(name: str, values: NDArray[np.float32]) -> None:
        others = (0, *range(2, values.ndim))
        largest = np.abs(values).max(axis=others)
        total = values.mean(axis=others, dtype=np.float64)
        maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
        sums[name] = sums[name] + total if name in sums else total

    watch(model, crops, tensors, see, "measuring channels", progress)
    return {n: ChannelStatistics(maxima[n], sums[n] / len(crops)) for n in tensors}
