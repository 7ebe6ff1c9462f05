"""Places in tensors and the pixels that they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from srdeploy.calib.layout import pixel_of

SIZE = (80, 120)


@pytest.mark.parametrize(
    ("shape", "place", "expected"),
    [
        ((1, 3, 80, 120), (0, 2, 7, 9), (7, 9, 2)),
        ((1, 80, 120, 3), (0, 7, 9, 2), (7, 9, 2)),
        ((1, 1, 64, 80, 120), (0, 0, 5, 79, 119), (79, 119, 5)),
        ((1, 16, 320, 480), (0, 1, 31, 47), (7, 11, 1)),  # four times as large
        ((1, 16, 40, 60), (0, 1, 31, 47), (63, 95, 1)),  # half as large
        ((1, 8, 80, 128), (0, 3, 5, 127), (5, 119, 3)),  # padded to windows
        ((1, 8, 320, 512), (0, 3, 5, 4), (1, 1, 3)),
    ],
)
def test_maps(shape, place, expected) -> None:
    assert pixel_of(int(np.ravel_multi_index(place, shape)), shape, SIZE) == expected


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1, 11, 11),
        (1, 9600, 24),  # tokens
        (1, 24, 1, 1),  # a mean
        (150, 2, 64, 16),  # windows
        (2, 3, 80, 120),
        (1, 2, 9600, 9600),
        (1, 24, 240, 120),
        (1, 24, 14, 22),  # not even nearly a sixth
    ],
)
def test_what_is_no_map(shape) -> None:
    assert pixel_of(0, shape, SIZE) is None


def test_a_tensor_that_could_be_both_is_neither() -> None:
    assert pixel_of(0, (1, 64, 64, 64), (64, 64)) is None
