"""The convolution that the residual trunks are made of."""

from __future__ import annotations

from torch import nn


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """N×inputs×H×W to N×outputs×H×W, zeros beyond the border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)
