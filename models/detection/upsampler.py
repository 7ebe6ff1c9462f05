"""Sub-pixel upsampling as EDSR lays it out: its steps, its reach, and its scale from tensors.

``models/networks/layers/upsampler.py`` has the layers and names their source.
"""

from __future__ import annotations

import math
import re

from .. import StateDict
from .sizes import count_indices, size_of

SCALES = (2, 3, 4, 8)


def steps(scale: int) -> list[int]:
    """Factors of the successive steps: powers of two go by 2, three goes at once.

    Raises:
        ValueError: The scale is none of 2, 3, 4, 8.
    """
    if scale not in SCALES:
        raise ValueError(f"the scale must be one of {SCALES}, got {scale}")
    return [3] if scale == 3 else [2] * int(math.log2(scale))


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
    """Scale of the upsampler whose tensors are called ``prefix.N.weight``.

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
