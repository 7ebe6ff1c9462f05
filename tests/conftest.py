"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("srdeploy", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("srdeploy")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of test sets, official weights and golden tensors; skips where there is none."""
    folder = Path(os.environ.get("SRDEPLOY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("no test data: set SRDEPLOY_SHARED")
    return folder
