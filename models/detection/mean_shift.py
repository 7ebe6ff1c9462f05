"""The mean of DIV2K, which some networks take off, and the range that it was taken off on."""

from __future__ import annotations

from .. import StateDict

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of R, G and B over DIV2K's training pictures, on [0, 1]."""


def value_range_of(state: StateDict) -> float:
    """Range of the pixel values, 1 or 255, that the shift in a checkpoint was made for.

    Raises:
        KeyError: There is no such tensor.
        ValueError: It is no multiple of DIV2K's mean.
    """
    shift = state["sub_mean.bias"].float().flatten()
    ratio = shift[0].item() / -DIV2K_MEAN[0] if shift.numel() == 3 else float("nan")
    for value_range in (1.0, 255.0):
        if abs(ratio / value_range - 1) < 0.02:
            return value_range
    raise ValueError(
        f"the tensor 'sub_mean.bias' shifts by {shift.tolist()}, expected the mean"
        f" {DIV2K_MEAN} on a range of 1 or 255, taken off"
    )
