"""Option values that are more than a word."""

from __future__ import annotations

import pytest
from srdeploy.commands.options import generations, profiles
from srdeploy.spec import ShapeRange


def test_profiles() -> None:
    assert profiles(["64x96"]) == (ShapeRange.static(64, 96),)
    assert profiles(["4x64x96"]) == (ShapeRange.static(64, 96, 4),)
    low, high = profiles(["16x16,32x48,64x96", "1x8x8,2x8x8,4x8x8"])
    assert low == ShapeRange((16, 16), (32, 48), (64, 96))
    assert high == ShapeRange((8, 8), (8, 8), (8, 8), (1, 2, 4))
    assert profiles([]) == ()


@pytest.mark.parametrize(
    "text", ["", "x", "64", "0x8", "64x96,128x128", "0x8x8", "ax8x8", "8x8,4x4,9x9", "1x2x3x4"]
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|must grow"):
        profiles([text])


def test_generations() -> None:
    assert generations("RTX30, rtx50") == ("8.6", "12.0")
    assert generations("") == ()
    with pytest.raises(ValueError, match="unknown: gtx10; known: rtx20, rtx30"):
        generations("rtx30,gtx10")
