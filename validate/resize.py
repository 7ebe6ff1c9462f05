"""MATLAB's ``imresize`` with its default bicubic kernel, which made the literature's LR images.

Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE TASSP 1981
(kernel with a = -1/2), widened by 1/scale when shrinking (antialiasing), as MATLAB documents it.
Rows are resized first and rounded to 8 bits, then columns, and rounded again: so done, no
pixel differs from the published LR of Set5 and Set14.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError


def shrink(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Shrink an H×W×C picture by an integer scale, as MATLAB's ``imresize(x, 1/scale)``.

    Raises:
        DatasetError: H or W is not a multiple of ``scale``; crop with :func:`modcrop` first.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise DatasetError(f"{width}×{height} pixels cannot be shrunk by exactly {scale}")
    return resize(image, height // scale, width // scale)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an H×W×C uint8 picture to ``height`` × ``width``, in either direction."""
    rows = _apply(image, height)
    return _apply(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def modcrop(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Crop right and bottom so that H and W are multiples of ``scale``."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _apply(image: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """Resize axis 0 to ``length`` and round half up to uint8."""
    indices, weights = _taps(image.shape[0], length)
    total = np.zeros((length, *image.shape[1:]))
    for tap in range(indices.shape[1]):
        total += weights[:, tap, None, None] * image[indices[:, tap]]
    return np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _taps(length_in: int, length_out: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Source rows and their weights for each output row, both length_out × taps."""
    scale = length_out / length_in
    stretch = min(scale, 1.0)  # below 1 the kernel widens, which is the antialiasing
    support = 4.0 / stretch
    centre = (np.arange(length_out) + 0.5) / scale - 0.5
    first = np.floor(centre - support / 2).astype(np.intp) + 1
    offsets = first[:, None] + np.arange(int(np.ceil(support)) + 1)
    weights = _cubic(stretch * (centre[:, None] - offsets))
    weights /= weights.sum(axis=1, keepdims=True)
    # Beyond the border the picture is mirrored with its edge pixel repeated.
    period = 2 * length_in
    mirrored = np.mod(offsets, period)
    mirrored = np.where(mirrored >= length_in, period - 1 - mirrored, mirrored)
    used = np.any(weights != 0, axis=0)
    return mirrored[:, used], weights[:, used]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2, zero from |x| = 2 on."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
