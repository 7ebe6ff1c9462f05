"""Figures as they are printed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from srdeploy.calib.listing import _signed
from srdeploy.errors import DriftExceeded
from srdeploy.spec import Budget
from srdeploy.validate.results import DatasetResult, PictureResult, check_budget


def test_no_loss_is_minus_zero(repository: Path) -> None:
    """What is shown with a sign has the ``z`` of PEP 682, as -0.0001 dB would read -0.000 dB."""
    shown = []
    for path in [*repository.glob("*.py"), *repository.glob("[a-z]*/**/*.py")]:
        if path.relative_to(repository).parts[0] == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FormattedValue) and node.format_spec:
                spec = ast.unparse(node.format_spec)
                shown += [(path, node.lineno, spec)] if "+" in spec else []
    assert len(shown) > 10
    assert not [place for place in shown if "+z" not in place[2]]
    assert _signed(-0.0001) == "+0.000"


def test_a_budget_of_nothing_is_not_minus_zero() -> None:
    lossy = DatasetResult("Set5", "torch", (PictureResult("baby", 30.0, 29.9, 0.9, 0.9, 50.0),))
    with pytest.raises(DriftExceeded, match="; the budget is 0 dB on average, 0 dB for a picture"):
        check_budget([lossy], Budget(0.0, 0.0))
