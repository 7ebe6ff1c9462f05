"""The mean over a whole picture: one of the operations that tiling changes."""

from __future__ import annotations

from torch import Tensor, nn


class GlobalMean(nn.Module):
    """N×C×H×W to N×C×1×1.

    PyTorch's adaptive pooling gives the same, but traces to a copy by index where its input
    lies in channels-last order.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Average over H and W."""
        return x.mean((2, 3), keepdim=True)
