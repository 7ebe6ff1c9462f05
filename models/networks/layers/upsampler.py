"""Sub-pixel upsampling as EDSR lays it out.

Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network", CVPR 2016, arXiv:1609.05158; Lim et al., "Enhanced
Deep Residual Networks for Single Image Super-Resolution", arXiv:1707.02921.
"""

from __future__ import annotations

from torch import nn

from ...detection.upsampler import steps
from .conv import conv3x3


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """N×C×H×W to N×C×(sH)×(sW): per step a 3×3 convolution to r²C and a pixel shuffle.

    The convolutions stand at the even indices; a shuffle holds no tensors.
    """
    layers: list[nn.Module] = []
    for factor in steps(scale):
        layers += [
            conv3x3(channels, channels * factor**2),
            nn.PixelShuffle(factor),
        ]
    return nn.Sequential(*layers)
