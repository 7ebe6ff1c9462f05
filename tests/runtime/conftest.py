"""A small exported network for the tests of the runtime."""

from __future__ import annotations

import onnx
import pytest
import torch
from srdeploy.export.passes import run_passes
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import describe
from srdeploy.spec import ModelSpec


@pytest.fixture(scope="session")
def exported() -> tuple[onnx.ModelProto, ModelSpec]:
    """A VapSR ×2 of two blocks whose output fills the range, after the passes."""
    torch.manual_seed(3)
    family = architecture("vapsr")
    config = VapSRConfig(2, 16, 2, 16)
    network = family.build(config).eval().requires_grad_(False)
    network.upsampler[2].weight.mul_(4)
    network.upsampler[2].bias.fill_(0.5)
    spec = describe(family, config, network, "test")
    model = trace(network, spec)
    run_passes(model)
    return model, spec
