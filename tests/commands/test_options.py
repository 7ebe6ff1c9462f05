"""Option values that are more than a word."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from srdeploy.cli import main
from srdeploy.commands.options import budget, generations, profiles
from srdeploy.spec import TAIL, Budget, ShapeRange


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.05", Budget(0.05, TAIL * 0.05)),
        ("0.05,0.2", Budget(0.05, 0.2)),
        (" 0.05, 0.06 ", Budget(0.05, 0.06)),
        ("0.1,0.1", Budget(0.1, 0.1)),
        ("0", Budget(0.0, 0.0)),
        ("0,0.3", Budget(0.0, 0.3)),
    ],
)
def test_budget(text: str, expected: Budget) -> None:
    assert budget(text) == expected


NO_BUDGETS = ["", ",", "a", "0.1,b", "0.2,0.1", "1,2,3", "nan", "0.1,nan", "-1", "inf", "0.1,inf"]


@pytest.mark.parametrize("text", NO_BUDGETS)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        budget(text)


@pytest.mark.parametrize("command", ["build-engine", "validate"])
@pytest.mark.parametrize("text", NO_BUDGETS)
def test_what_is_no_budget_is_a_usage_error(command: str, text: str) -> None:
    data = ["--data", "."] if command == "validate" else []
    done = CliRunner().invoke(main, [command, *data, f"--max-drift={text}"])
    assert done.exit_code == 2
    assert "--max-drift" in done.output
    assert "expected" in done.output


def test_generations() -> None:
    assert generations("RTX30, rtx50") == ("8.6", "12.0")
    assert generations("") == ()
    with pytest.raises(ValueError, match="unknown: gtx10; known: rtx20, rtx30"):
        generations("rtx30,gtx10")
