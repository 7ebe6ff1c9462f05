"""The backends of a GPU, each with the reason why it is not here; one of the CPU beside them.

A test body takes any of them: on the CPU the default run executes it as a smoke check.
"""

from __future__ import annotations

import pytest
from gpu_cases import open_backend
from srdeploy.bench.built import Backend
from srdeploy.runtime.store import EngineStore


@pytest.fixture(autouse=True)
def kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are built in processes of their own, where Triton must compile, not interpret."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    """A store of the session: what several tests build is built once."""
    return EngineStore(tmp_path_factory.mktemp("cache") / "engines")


@pytest.fixture
def backend(request: pytest.FixtureRequest, store: EngineStore) -> Backend:
    """The backend that the test's parameter names."""
    return open_backend(request.param, store)
