"""The mean of DIV2K, which some networks take off before and put back after.

EDSR does it with a 1×1 convolution whose tensors are part of the checkpoint.
"""

from __future__ import annotations

import torch
from torch import nn

from ...detection.mean_shift import DIV2K_MEAN


class MeanShift(nn.Conv2d):
    """x + sign · range · mean per channel, N×3×H×W, as a frozen 1×1 convolution."""

    def __init__(self, value_range: float, sign: int) -> None:
        super().__init__(3, 3, 1)
        assert self.bias is not None
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.bias.copy_(torch.tensor(DIV2K_MEAN) * value_range * sign)
        self.requires_grad_(False)
