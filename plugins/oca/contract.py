"""What the OCA op takes, checked in one place for torch, the kernel and the launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import PluginError
from ..arguments import shown

LARGEST_HEAD_DIM = 64
"""Channels of a head that the kernel takes; more would not fit its registers."""


@dataclass(frozen=True)
class OcaShape:
    """Sizes of one attention.

    Attributes:
        batch: N.
        height: H of the maps in pixels, not necessarily whole windows.
        width: W likewise.
        channels: C, of all heads together.
        window: Edge E of a window of queries, pixels.
        overlap: Pixels by which the window of keys is larger, K - E.
        heads: Attention heads; they divide C.
    """

    batch: int
    height: int
    width: int
    channels: int
    window: int
    overlap: int
    heads: int

    @property
    def key_window(self) -> int:
        """Edge K of the window of keys."""
        return self.window + self.overlap

    @property
    def margin(self) -> int:
        """Pixels of the window of keys beyond the window of queries, on each side."""
        return self.overlap // 2

    @property
    def head_dim(self) -> int:
        """Channels d of a head."""
        return self.channels // self.heads

    @property
    def windows_down(self) -> int:
        """Rows of windows, the last one perhaps partly below the map."""
        return (self.height + self.window - 1) // self.window

    @property
    def windows_across(self) -> int:
        """Windows in a row, the last one perhaps partly beside the map."""
        return (self.width + self.window - 1) // self.window

    @property
    def table_rows(self) -> int:
        """Rows of the table of position biases, (E + K - 1)²."""
        return (self.window + self.key_window - 1) ** 2

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both matrix products."""
        windows = self.batch * self.windows_down * self.windows_across
        return 2 * windows * self.window**2 * self.key_window**2 * self.channels


def check(
    maps: Mapping[str, Sequence[int]],
    bias: Sequence[int],
    window: int,
    overlap: int,
    heads: int,
) -> OcaShape:
    """Check the arguments of an attention.

    Args:
        maps: Shapes of ``q``, ``k`` and ``v``, N×H×W×C each.
        bias: Shape of the table of position biases, (E + K - 1)²×heads.
        window: Edge E of a window, pixels.
        overlap: K - E, pixels, even.
        heads: Attention heads.

    Raises:
        PluginError: An argument is out of range or they contradict each other; it is named.
    """
    q = maps["q"]
    for name, shape in maps.items():
        if len(shape) != 4:
            raise PluginError(f"oca: {name} must be N×H×W×C, got {shown(shape)}")
        if tuple(shape) != tuple(q):
            raise PluginError(f"oca: {name} is {shown(shape)}, expected the shape of q, {shown(q)}")
    if any(size < 1 for size in q):
        raise PluginError(f"oca: q is empty: {shown(q)}")
    if window < 2:
        raise PluginError(f"oca: window must be at least 2 pixels, got {window}")
    if overlap % 2 or not 0 <= overlap <= window:
        raise PluginError(
            f"oca: overlap must be even and 0 to the window's {window} pixels, got {overlap}",
            "it is the key window's edge minus the window's, half of it on each side",
        )
    if heads < 1 or q[3] % heads:
        raise PluginError(f"oca: heads must divide the {q[3]} channels, got {heads}")
    batch, height, width, channels = q
    sizes = OcaShape(batch, height, width, channels, window, overlap, heads)
    if tuple(bias) != (sizes.table_rows, heads):
        raise PluginError(
            f"oca: bias is {shown(bias)}, expected {sizes.table_rows}×{heads} for windows of"
            f" {window} and {sizes.key_window} pixels"
        )
    return sizes


def check_for_kernel(shape: OcaShape) -> None:
    """Check what only the kernel limits.

    Raises:
        PluginError: The heads are too wide.
    """
    if shape.head_dim > LARGEST_HEAD_DIM:
        raise PluginError(
            f"oca: heads of {shape.head_dim} channels are too wide for the kernel, which takes up"
            f" to {LARGEST_HEAD_DIM}"
        )
