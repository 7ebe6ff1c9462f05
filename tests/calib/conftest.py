"""A small network, and pictures to calibrate it on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from srdeploy.calib.pictures import NamedPicture
from srdeploy.export.passes import run_passes
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    torch.manual_seed(5)
    made = architecture("vapsr").build(VapSRConfig(2, 8, 2, 16)).eval().requires_grad_(False)
    for name, tensor in made.named_parameters():
        if "pixel_norm.weight" in name:
            tensor.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="session")
def exported(network) -> onnx.ModelProto:
    model = trace(network, architecture("vapsr").describe(network.config))
    run_passes(model)
    return model


@pytest.fixture(scope="session")
def photographs() -> tuple[NamedPicture, ...]:
    """Smooth random pictures of different sizes, which look like nothing but have texture."""
    rng = np.random.default_rng(0)
    made = []
    for index, (height, width) in enumerate([(96, 140), (130, 120), (80, 120)]):
        steps = rng.normal(0, 6, (height, width, 3)).cumsum(axis=0)
        pixels = np.clip(128 + steps + 40 * np.sin(np.arange(width) / 7)[:, None], 0, 255)
        made.append(NamedPicture(f"p{index}", pixels.astype(np.uint8)))
    return tuple(made)


@pytest.fixture(scope="session")
def scenery() -> Callable[..., np.ndarray]:
    """Makes the picture of a number, H×W×3: large shapes and fine texture, in colour."""

    def make(number: int, height: int = 96, width: int = 140) -> np.ndarray:
        rng = np.random.default_rng(number)
        shapes = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        large = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), float)
        return np.clip(large + rng.normal(0, 8, large.shape), 0, 255).astype(np.uint8)

    return make
