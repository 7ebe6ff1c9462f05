"""PSNR and SSIM on the Y channel, as the super-resolution literature computes them.

Y is BT.601's luma of 8-bit RGB (16…235), in double precision and not rounded (MATLAB's
``rgb2ycbcr`` on doubles); ``scale`` pixels are cut from every border. SSIM: Wang et al.,
"Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004,
11×11 Gaussian window of σ 1.5, valid region only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError

Plane = NDArray[np.float64]

WINDOW = 11
"""Edge of SSIM's window, so the least size of a plane, in pixels."""

_SIGMA = 1.5


def luma(image: NDArray[np.uint8]) -> Plane:
    """BT.601 luma of an H×W×3 uint8 RGB picture, H×W, 16…235."""
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    plane: Plane = image.astype(np.float64) @ weights + 16.0
    return plane


def cut_border(plane: Plane, border: int) -> Plane:
    """Drop ``border`` pixels at each edge."""
    return plane[border:-border, border:-border] if border else plane


def psnr(a: Plane, b: Plane) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal planes.

    Raises:
        DatasetError: The planes differ in size or are empty.
    """
    _check_sizes(a, b, 1)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(a: Plane, b: Plane) -> float:
    """Mean structural similarity of two planes of at least 11×11 pixels, −1…1.

    Raises:
        DatasetError: The planes differ in size or are smaller than the window.
    """
    _check_sizes(a, b, WINDOW)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(similarity.mean())


def _check_sizes(a: Plane, b: Plane, least: int) -> None:
    """Refuse what numpy would broadcast, or average over nothing."""
    if a.shape != b.shape or a.ndim != 2:
        raise DatasetError(f"planes of one size can be compared, got {a.shape} and {b.shape}")
    if min(a.shape) < least:
        raise DatasetError(f"planes must be at least {least}×{least} pixels, got {a.shape}")


def _blur(plane: Plane) -> Plane:
    """Gaussian window over the valid region, separably: H×W to (H−10)×(W−10)."""
    return _blur_rows(_blur_rows(plane).T).T


def _blur_rows(plane: Plane) -> Plane:
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / _SIGMA) ** 2)
    taps /= taps.sum()
    length = plane.shape[0] - WINDOW + 1
    blurred = np.zeros((length, plane.shape[1]))
    for first, weight in enumerate(taps):
        blurred += weight * plane[first : first + length]
    return blurred
