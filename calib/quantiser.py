"""Everything but the choice of layers that makes an int8 graph of a float one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..export.quantise import quantise
from ..spec import Precision
from .journal import digest_model


@dataclass(frozen=True)
class Quantiser:
    """A float graph after its repairs, and what was calibrated for it.

    Attributes:
        model: Float32, equalised.
        ranges: Tensor to its (low, high).
        means: Tensor to the mean of each of its channels.
        codes: Weight to its codes; others are rounded to the nearest.
        in_pairs: Whether int8 products fit where they are added in pairs of 16 bits.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, tuple[float, float]]
    means: Mapping[str, NDArray[np.floating]]
    codes: Mapping[str, NDArray[np.int8]]
    in_pairs: bool = False

    def graph(
        self, float_nodes: Collection[str], rest: Precision = Precision.FP32
    ) -> onnx.ModelProto:
        """The graph with Q/DQ around all quantisable nodes but ``float_nodes``.

        Raises:
            ExportError: Q/DQ of type ``rest`` need a newer operator set.
        """
        return quantise(
            self.model, self.ranges, float_nodes, rest, self.means, self.codes, self.in_pairs
        )

    def digest(self) -> str:
        """SHA-256 of all but the ranges, hexadecimal."""
        sha256 = hashlib.sha256(digest_model(self.model).encode())
        if self.in_pairs:
            sha256.update(b"in pairs")
        for kind in (self.means, self.codes):
            for name in sorted(kind):
                sha256.update(name.encode() + np.ascontiguousarray(kind[name]).tobytes())
        return sha256.hexdigest()
