"""Where crops are cut: in turn from every picture, spread evenly inside each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError

CROP_SIZE = (80, 120)
CROP_COUNT = 100

Crops = NDArray[np.uint8]
"""N×H×W×3 RGB, 0…255."""

# Roberts' R2 sequence: the steps in y and x that spread points most evenly over a square
# (the plastic number and its square, inverted).
_STEP = np.array([0.7548776662466927, 0.5698402909980532])


def holds(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether a picture of ``shape`` (height, width, …) holds a crop of ``size``."""
    return shape[0] >= size[0] and shape[1] >= size[1]


def plan_crops(
    shapes: Sequence[tuple[int, int]], size: tuple[int, int], count: int, seed: int
) -> tuple[tuple[int, int, int], ...]:
    """Choose ``count`` crops, as many from each picture as from any other (±1).

    The result is a function of the arguments alone.

    Args:
        shapes: (height, width) of the pictures, each at least ``size``.
        size: (height, width) of a crop in pixels.
        count: How many; where it is below the number of pictures, some give none.
        seed: Of the order of the pictures and of the first crop's place in each.

    Returns:
        Of each crop the picture's index, and its top and left in pixels.

    Raises:
        DatasetError: There is no picture, or no crop is asked for.
    """
    if not shapes or count < 1:
        raise DatasetError(
            f"no calibration crops: {count} of {size[1]}×{size[0]} pixels were asked for,"
            f" {len(shapes)} pictures are that large",
            f"give pictures of at least {size[1]}×{size[0]} pixels",
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(shapes))
    starts = generator.random((len(shapes), 2))
    planned = []
    for index in range(count):
        turn, place = divmod(index, len(shapes))
        picture = int(order[place])
        free = np.array(shapes[picture]) - size + 1
        top, left = ((starts[place] + turn * _STEP) % 1.0 * free).astype(int)
        planned.append((picture, int(top), int(left)))
    return tuple(planned)
