"""What each channel of an activation does on calibration pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..export.quantise import quantisable_nodes
from .observers import check_finite


@dataclass(frozen=True)
class ChannelStatistics:
    """Of one activation N×C×…, over all pixels of all pictures.

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


class ChannelWatcher:
    """Keeps the maxima and sums of the channels of each tensor.

    The maxima do not depend on the order in which pictures are seen; the sums are float64, so
    that the means hardly do.

    Args:
        tensors: Names of activations N×C×….
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self.tensors = tuple(tensors)
        self._maxima: dict[str, NDArray[np.float32]] = {}
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._sizes: dict[str, int] = {}

    def see(self, name: str, values: NDArray[np.float32]) -> None:
        """Take in a tensor."""
        axes = (0, *range(2, values.ndim))
        largest = np.maximum(values.max(axis=axes), -values.min(axis=axes))
        check_finite(largest)
        self._maxima[name] = np.maximum(self._maxima.get(name, 0.0), largest)
        total = values.sum(axis=axes, dtype=np.float64)
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._sizes[name] = self._sizes.get(name, 0) + values.size // values.shape[1]

    def statistics(self) -> dict[str, ChannelStatistics]:
        """What was seen."""
        return {
            name: ChannelStatistics(self._maxima[name], self._sums[name] / self._sizes[name])
            for name in self.tensors
        }
