"""The PyTorch reference: rounding, tiles, and the authors' own figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from srdeploy.errors import EngineError
from srdeploy.models.networks.vapsr import VapSR
from srdeploy.models.vapsr import VapSRConfig, describe, detect, rename_legacy
from srdeploy.spec import ModelSpec
from srdeploy.validate.datasets import find_datasets
from srdeploy.validate.drift import measure
from srdeploy.validate.reference_cache import ReferenceCache
from srdeploy.validate.torch_session import TorchSession
from torch import Tensor, nn

SPEC = ModelSpec("test", "test-x2", 2, receptive_radius=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine PyTorch's threads wait for each other longer than these networks run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Constant(nn.Module):
    """Gives one value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((x.shape[0], 3, x.shape[2] * 2, x.shape[3] * 2), self.value)


def frames(height: int, width: int, count: int = 1) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def small_vapsr() -> tuple[nn.Module, ModelSpec]:
    """A VapSR of two blocks whose output varies over the whole range of a byte."""
    config = VapSRConfig(2, num_feat=8, num_block=2, d_atten=8, upsampler_feat=8)
    torch.manual_seed(1)
    network = VapSR(config)
    with torch.no_grad():
        for block in network.body:
            block.pixel_norm.weight.fill_(1.0)
        for parameter in network.parameters():
            parameter.mul_(1.5)
        last = network.upsampler[2]
        last.weight.mul_(2.0)
        last.bias.fill_(0.5)
    return network, describe(config)


def test_values_survive_a_network_that_only_enlarges() -> None:
    every = np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 16, 8, 3)
    every.setflags(write=False)
    upscaled = TorchSession(nn.Upsample(scale_factor=2), SPEC).upscale(every)
    assert upscaled.dtype == np.uint8
    assert np.array_equal(upscaled, every.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("value", "expected"), [(-3.0, 0), (1.7, 255), (0.0, 0), (1.0, 255)])
def test_the_output_is_clamped(value: float, expected: int) -> None:
    assert (TorchSession(Constant(value), SPEC).upscale(frames(4, 4)) == expected).all()


def test_halves_are_rounded_to_even() -> None:
    """As ONNX Round does; only those halves count that float32 can hold."""
    tried = 0
    for lower in range(255):
        value = float(np.float32(lower + 0.5) / np.float32(255))
        if np.float32(value) * np.float32(255) != lower + 0.5:
            continue
        upscaled = TorchSession(Constant(value), SPEC).upscale(frames(2, 2))
        assert (upscaled == lower + lower % 2).all()
        tried += 1
    assert tried > 100


def test_the_session_names_itself() -> None:
    session = TorchSession(nn.Upsample(scale_factor=2).train(), SPEC)
    assert (session.target, session.scale, session.parallel) == ("torch", 2, 1)


def test_the_network_is_put_into_evaluation_mode() -> None:
    network = nn.Sequential(nn.Upsample(scale_factor=2), nn.Dropout(0.9))
    x = frames(6, 6)
    upscaled = TorchSession(network.train(), SPEC).upscale(x)
    assert np.array_equal(upscaled, x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("size", [(60, 70), (16, 16), (17, 90), (5, 5)])
def test_tiles_change_nothing(size: tuple[int, int]) -> None:
    network, spec = small_vapsr()
    x = frames(*size, count=2)
    whole = TorchSession(network, spec).upscale(x)
    tiled = TorchSession(network, spec, tile=16).upscale(x)
    apart = np.abs(whole.astype(int) - tiled.astype(int))
    assert whole.std() > 20
    assert apart.max() <= 1  # float sums of another order, now and then across a half
    assert (apart > 0).mean() < 1e-3


def test_tiles_with_too_little_around_them_would_show() -> None:
    """Shows that the test above could fail."""
    network, spec = small_vapsr()
    x = frames(60, 70)
    whole = TorchSession(network, spec).upscale(x)
    tiled = TorchSession(network, replace(spec, receptive_radius=2), tile=16).upscale(x)
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() > 1


def test_tiles_start_at_multiples_of_the_window() -> None:
    network = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=8))
    spec = ModelSpec("test", "test-x2", 2, receptive_radius=3, size_multiple=4)
    x = frames(20, 28)
    whole = TorchSession(network, spec).upscale(x)
    assert np.array_equal(TorchSession(network, spec, tile=6).upscale(x), whole)


@pytest.mark.parametrize(("whole", "tile"), [(True, 64), (False, 0), (False, -1)])
def test_tiles_that_cannot_be_are_refused(whole: bool, tile: int) -> None:
    spec = replace(SPEC, receptive_radius=3, global_operation=whole)
    with pytest.raises(EngineError, match=f"test-x2 cannot run in tiles of {tile}"):
        TorchSession(nn.Upsample(scale_factor=2), spec, tile=tile)


def test_the_reference_is_float32() -> None:
    with pytest.raises(EngineError, match=r"float32, the network has torch\.float16"):
        TorchSession(small_vapsr()[0].half(), SPEC)


def test_an_error_of_pytorch_is_translated() -> None:
    with pytest.raises(EngineError, match="PyTorch could not upscale a 5×4 frame") as caught:
        TorchSession(nn.Conv2d(4, 4, 3), SPEC).upscale(frames(4, 5))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_network_of_another_scale_is_found_out() -> None:
    with pytest.raises(EngineError, match=r"returned \(1, 3, 12, 15\), expected \(1, 3, 8, 10\)"):
        TorchSession(nn.Upsample(scale_factor=3), SPEC).upscale(frames(4, 5))


@pytest.mark.shared
def test_vapsr_s_has_the_quality_that_its_authors_state(shared: Path) -> None:
    loaded = torch.load(shared / "weights/vapsr/VapSR-S.pth", weights_only=True)["params_ema"]
    state = {rename_legacy(name): tensor for name, tensor in loaded.items()}
    config = detect(state)
    assert config is not None
    network = VapSR(config)
    network.load_state_dict(state)
    with ReferenceCache(TorchSession(network, describe(config))) as session:
        (found,) = measure(session, session, find_datasets(shared / "data/Set5", 4), 4)
    assert found.mean("psnr_engine") == pytest.approx(32.168, abs=0.01)
    assert found.mean("ssim_engine") == pytest.approx(0.8947, abs=0.001)
    assert found.drift == 0
