"""PSNR on validation pictures, of a network or of anything else that makes pictures larger."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..validate.metrics import cut_border, luma, psnr

Pair = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]
"""Name, LR and HR, H×W×3."""


def evaluate(network: nn.Module, validation: list[Pair], scale: int) -> dict[str, float]:
    """PSNR-Y by picture and their ``mean``, in dB, outputs rounded to 8 bits."""

    def upscale(low: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x: Tensor = torch.from_numpy(low.copy()).to(device).permute(2, 0, 1)[None].float() / 255.0
        y = network(x)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
        return np.asarray(y.cpu().numpy())

    device = next(network.parameters()).device
    with torch.inference_mode():
        return score(upscale, validation, scale)


def score(
    upscale: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], validation: list[Pair], scale: int
) -> dict[str, float]:
    """PSNR-Y by picture and their ``mean``, in dB, of anything that makes pictures larger."""
    scores = {
        name: psnr(cut_border(luma(upscale(low)), scale), cut_border(luma(high), scale))
        for name, low, high in validation
    }
    scores["mean"] = float(np.mean(list(scores.values()))) if scores else float("nan")
    return scores
