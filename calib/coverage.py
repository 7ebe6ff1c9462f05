"""What a calibration set covers of what a network may meet, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..validate.datasets import Picture

# Where warnings begin. Of BSDS500 (every second picture), 40 sets of 50 crops from 1, 2, 5, 7
# pictures, the worst of them: range 0.25, 0.70, 0.75, 0.80; gradient 3.6, 5.3, 6.9, 7.9;
# clipped 0.33, 0.12, 0.11, 0.07; grey 0.08 or less; in the darkest quarter 0.69, 0.47, 0.51,
# 0.36, in the brightest 0.60, 0.28, 0.30, 0.21. The bundled pictures: range 1.0, gradient 6.9,
# clipped 0.16, grey 0.24 (four of seventeen), darkest quarter 0.15, brightest 0.25.
LEAST_PICTURES = 5
LEAST_RANGE = 0.6
LEAST_GRADIENT = 2.0
MOST_CLIPPED = 0.25
MOST_GREY = 0.75
MOST_IN_A_QUARTER = 0.75

COLOURLESS = 3.0
"""Code values between R, G and B; the least of 200 of BSDS500, all in colour, is 8.8."""

BINS = 16
_LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, of full-range RGB


@dataclass(frozen=True)
class Coverage:
    """Figures of the crops and whole frames of a set, every pixel counted once.

    Attributes:
        pictures: Distinct pictures that were cut.
        luma_histogram: Shares of the pixels in 16 equal bins of luma, from black to white.
        luma_range: Between the darkest and the brightest hundredth of the pixels, as a share
            of the range from black to white.
        gradient: Mean difference of neighbouring pixels in luma, in code values.
        clipped: Share of the R, G and B values that are 2 or less, or 253 or more.
        grey: Share of the crops and frames without colour.
    """

    pictures: int
    luma_histogram: tuple[float, ...]
    luma_range: float
    gradient: float
    clipped: float
    grey: float

    def warnings(self) -> tuple[str, ...]:
        """What makes the set poor, a sentence each."""
        quarter = BINS // 4
        dark, bright = sum(self.luma_histogram[:quarter]), sum(self.luma_histogram[-quarter:])
        checks = (
            (
                self.pictures < LEAST_PICTURES,
                f"only {self.pictures} distinct picture(s): {LEAST_PICTURES} or more show what"
                " other pictures will hold",
            ),
            (dark > MOST_IN_A_QUARTER, f"{dark:.0%} of the pixels are dark"),
            (bright > MOST_IN_A_QUARTER, f"{bright:.0%} of the pixels are bright"),
            (
                self.luma_range < LEAST_RANGE,
                f"the pixels cover only {self.luma_range:.0%} of the range from black to white",
            ),
            (
                self.gradient < LEAST_GRADIENT,
                f"there is little texture: neighbours differ by {self.gradient:.1f} code values,"
                " in photographs by 4 to 20",
            ),
            (self.clipped > MOST_CLIPPED, f"{self.clipped:.0%} of the values are clipped"),
            (self.grey > MOST_GREY, f"{self.grey:.0%} of the crops have no colour"),
        )
        return tuple(sentence for poor, sentence in checks if poor)


def cover(cut: Sequence[Picture], pictures: int) -> Coverage:
    """Measure what ``cut`` (each H×W×3 uint8, at least one) covers.

    Args:
        cut: Crops and whole frames.
        pictures: How many distinct pictures they come from.
    """
    counts = np.zeros(256, np.int64)
    steps = neighbours = clipped = values = colourless = 0
    for pixels in cut:
        luma = np.rint(pixels @ _LUMA).astype(np.int16)
        counts += np.bincount(luma.reshape(-1), minlength=256)
        for axis in (0, 1):
            differences = np.abs(np.diff(luma, axis=axis))
            steps += int(differences.sum())
            neighbours += differences.size
        clipped += int(np.count_nonzero((pixels <= 2) | (pixels >= 253)))
        values += pixels.size
        colourless += _chroma(pixels) < COLOURLESS
    shares = counts / counts.sum()
    low, high = np.searchsorted(np.cumsum(shares), (0.01, 0.99))
    return Coverage(
        pictures,
        tuple(float(share) for share in shares.reshape(BINS, -1).sum(axis=1)),
        float(high - low) / 255,
        steps / max(neighbours, 1),
        clipped / values,
        colourless / len(cut),
    )


def _chroma(pixels: Picture) -> float:
    """Mean distance between the largest and the smallest of R, G and B, in code values."""
    return float(np.mean(pixels.max(axis=2) - pixels.min(axis=2)))
