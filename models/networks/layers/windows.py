"""Cutting a picture into attention windows, and what attention must know of their pixels.

Source: Liu et al., "Swin Transformer", arXiv:2103.14030, sections 3.2 and 3.3. Features are
N×H×W×C.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASKED = -100.0
"""Added to the logit of a pair of pixels that the shift has brought together."""


def relative_positions(edge: int) -> Tensor:
    """Row of the bias table for every two pixels of a window, edge²×edge² int64."""
    pixels = torch.cartesian_prod(torch.arange(edge), torch.arange(edge))
    difference = pixels[:, None] - pixels[None] + edge - 1
    return difference[..., 0] * (2 * edge - 1) + difference[..., 1]


def to_windows(x: Tensor, edge: int) -> Tensor:
    """N×(hE)×(wE)×C to N×(h·w)×E²×C."""
    n, height, width, c = x.shape
    h, w = height // edge, width // edge
    return x.reshape(n, h, edge, w, edge, c).transpose(2, 3).reshape(n, h * w, edge * edge, c)


def from_windows(x: Tensor, edge: int, height: int, width: int) -> Tensor:
    """Undo :func:`to_windows`."""
    n, _, _, c = x.shape
    h, w = height // edge, width // edge
    return x.reshape(n, h, w, edge, edge, c).transpose(2, 3).reshape(n, height, width, c)


def roll(x: Tensor, by: int) -> Tensor:
    """Turn N×H×W×C by ``by`` pixels down and to the right, up and to the left if negative."""
    for axis in (1, 2):
        length = x.shape[axis]
        cut = -by if by < 0 else length - by
        x = torch.cat([x.narrow(axis, cut, length - cut), x.narrow(axis, 0, cut)], axis)
    return x


def shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Mask for windows shifted by half, (h·w)×1×E²×E².

    Shifting wraps the picture around, so that the last windows hold pixels from opposite
    edges; attention must not pass between them.
    """

    def regions(length: int) -> Tensor:
        i = torch.arange(length, device=device)
        return (i >= length - window).long() + (i >= length - window // 2).long()

    region = regions(height)[:, None] * 3 + regions(width)
    of_pixel = to_windows(region[None, :, :, None], window)[0, :, :, 0]
    apart = of_pixel[:, None, :] != of_pixel[:, :, None]
    return (apart * MASKED)[:, None]


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend N×C×H×W to the right and below to multiples, mirrored at the last pixel."""
    for axis in (2, 3):
        length = x.shape[axis]
        i = torch.arange((length + multiple - 1) // multiple * multiple, device=x.device)
        # not length-1 - |length-1-i|: OpenVINO 2026.4 gets |…| of integers wrong
        x = x.index_select(axis, torch.minimum(i, 2 * (length - 1) - i))
    return x
