"""The two layers of channel attention, between the mean of each channel and its weight.

Source: Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507; Zhang et al., "Image
Super-Resolution Using Very Deep Residual Channel Attention Networks", arXiv:1807.02758.
"""

from __future__ import annotations

from torch import nn


def channel_gate(channels: int, squeezed: int) -> tuple[nn.Module, ...]:
    """N×C×1×1 to weights in 0…1 of the same shape: 1×1 down, ReLU, 1×1 up, sigmoid."""
    return (
        nn.Conv2d(channels, squeezed, 1),
        nn.ReLU(),
        nn.Conv2d(squeezed, channels, 1),
        nn.Sigmoid(),
    )
