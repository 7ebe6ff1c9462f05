"""What the commands' tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from srdeploy.export.passes import run_passes
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import describe


@pytest.fixture(scope="session")
def model() -> bytes:
    """An exported network, x2."""
    family, config = architecture("vapsr"), VapSRConfig(2, 8, 1, 16)
    torch.manual_seed(2)
    network = family.build(config).eval()
    with torch.no_grad():  # an output that fills the range
        network.upsampler[2].weight.mul_(4)
        network.upsampler[2].bias.fill_(0.5)
    traced = trace(network, describe(family, config, network, "test"))
    run_passes(traced)
    return traced.SerializeToString()


@pytest.fixture
def folder(
    model: bytes,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The current directory, with an ONNX in it, and an empty engine store."""
    monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
    (tmp_path / "net.onnx").write_bytes(model)
    monkeypatch.chdir(tmp_path)
    return tmp_path
