"""What the ENLA op takes, checked in one place for torch, the kernels and the launcher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import PluginError
from ..arguments import shown

LARGEST_EMBEDDING = 64
"""Channels c of the embeddings that the kernels take; more would not fit their registers."""

LARGEST_FEATURES = 256
"""Random features m, likewise."""


@dataclass(frozen=True)
class EnlaShape:
    """Sizes of one attention.

    Attributes:
        batch: N.
        embedded: Channels c of queries and keys.
        channels: Channels C of the values.
        pixels: H·W.
        features: Random features m.
    """

    batch: int
    embedded: int
    channels: int
    pixels: int
    features: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates: both projections, the context, its use, and the normaliser."""
        per_pixel = self.features * (2 * self.embedded + 2 * self.channels + 1)
        return self.batch * self.pixels * per_pixel


def check(
    q: Sequence[int],
    k: Sequence[int],
    v: Sequence[int],
    projection: Sequence[int],
    eps: float,
) -> EnlaShape:
    """Check the arguments of an attention.

    Args:
        q: Shape of the queries, N×c×H×W.
        k: Of the keys, the same.
        v: Of the values, N×C×H×W.
        projection: Of the random projection F, m×c.
        eps: Added to each exponential.

    Raises:
        PluginError: An argument is out of range or they contradict each other; it is named.
    """
    for name, shape in (("q", q), ("k", k), ("v", v)):
        if len(shape) != 4:
            raise PluginError(f"enla: {name} must be N×channels×H×W, got {shown(shape)}")
        if any(size < 1 for size in shape):
            raise PluginError(f"enla: {name} is empty: {shown(shape)}")
    if tuple(k) != tuple(q):
        raise PluginError(f"enla: k is {shown(k)}, expected the shape of q, {shown(q)}")
    if (v[0], *v[2:]) != (q[0], *q[2:]):
        raise PluginError(f"enla: v is {shown(v)}, expected the batch and size of q, {shown(q)}")
    if len(projection) != 2 or projection[0] < 1 or projection[1] != q[1]:
        raise PluginError(
            f"enla: projection is {shown(projection)}, expected features×{q[1]}, the channels of q"
        )
    if not (eps >= 0 and math.isfinite(eps)):
        raise PluginError(f"enla: eps must be finite and not negative, got {eps}")
    return EnlaShape(q[0], q[1], v[1], q[2] * q[3], projection[0])


def check_for_kernels(shape: EnlaShape) -> None:
    """Check what only the kernels limit.

    Raises:
        PluginError: The embeddings are too wide or there are too many random features.
    """
    if shape.embedded > LARGEST_EMBEDDING:
        raise PluginError(
            f"enla: q has {shape.embedded} channels, the kernels take up to {LARGEST_EMBEDDING}"
        )
    if shape.features > LARGEST_FEATURES:
        raise PluginError(
            f"enla: projection has {shape.features} features, the kernels take up to"
            f" {LARGEST_FEATURES}"
        )
