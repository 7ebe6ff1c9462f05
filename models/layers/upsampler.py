"""Sub-pixel upsampling as EDSR lays it out, and how far it reaches.

Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel Convolutional Neural Network", CVPR 2016, arXiv:1609.05158; Lim et al., "Enhanced
Deep Residual Networks for Single Image Super-Resolution", arXiv:1707.02921.
"""

from __future__ import annotations

import math
import re

from torch import nn

from .. import StateDict, count_indices, size_of
from .conv import conv3x3

SCALES = (2, 3, 4, 8)


def steps(scale: int) -> list[int]:
    """Factors of the successive steps: powers of two go by 2, three goes at once.

    Raises:
        ValueError: The scale is none of 2, 3, 4, 8.
    """
    if scale not in SCALES:
        raise ValueError(f"the scale must be one of {SCALES}, got {scale}")
    return [3] if scale == 3 else [2] * int(math.log2(scale))


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


def upsampler_radius(scale: int) -> int:
    """LR pixels that the upsampler and one 3×3 convolution after it reach to each side.

    A convolution at r times the resolution reaches 1/r of an LR pixel.
    """
    reach, resolution = 0.0, 1
    for factor in steps(scale):
        reach += 1 / resolution
        resolution *= factor
    return math.ceil(reach + 1 / scale)


def scale_of_upsampler(state: StateDict, prefix: str, channels: int) -> int:
    """Scale of the :func:`upsampler` whose tensors are called ``prefix.N.weight``.

    Raises:
        KeyError: There are no such tensors.
        ValueError: They make no known scale.
    """
    name = rf"{re.escape(prefix)}\.\d\."
    factors = {channels * factor**2: factor for factor in (2, 3)}
    outputs = size_of(state, (name + "weight", 0), (name + "bias", 0), valid=factors.__contains__)
    count = count_indices(state, prefix, step=2)
    for scale in SCALES:
        if factors[outputs] == steps(scale)[0] and count == len(steps(scale)):
            return scale
    raise ValueError(
        f"the {count} convolutions '{prefix}.*' give {outputs} of {channels} channels,"
        f" which is an upsampler of none of the scales {SCALES}"
    )
