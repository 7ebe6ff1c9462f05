"""SOAP against what its definition promises, and against Adam."""

from __future__ import annotations

import copy

import pytest
import torch
from srdeploy.train.soap import Soap
from torch import Tensor, nn


def descend(weight: Tensor, left: Tensor, right: Tensor, steps: int = 60) -> list[float]:
    """Losses of fitting left·W·right to a fixed matrix with SOAP."""
    parameter = nn.Parameter(weight.clone())
    target = torch.arange(float(len(left) * right.shape[1])).reshape(len(left), -1).sin().double()
    optimiser = Soap([parameter], lr=0.02, every=5)
    losses = []
    for _ in range(steps):
        loss = (left @ parameter @ right - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def test_turned_weights_learn_alike() -> None:
    """The basis is that of the gradients, so that the axes of the weights do not matter.

    Up to directions that no gradient had yet, whose basis is arbitrary.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, left, right = random(6, 9), random(11, 6), random(9, 13)
    u, v = (torch.linalg.qr(random(n, n))[0] for n in (6, 9))
    plain = descend(weight, left, right)
    turned = descend(u.T @ weight @ v.T, left @ u, v @ right)
    assert plain[-1] < 0.5 * plain[0]
    assert turned == pytest.approx(plain, rel=1e-3)


def test_a_vector_moves_as_with_adam() -> None:
    start = torch.linspace(-1, 1, 7)
    found = []
    for kind in (Soap, torch.optim.Adam):
        parameter = nn.Parameter(start.clone())
        optimiser = kind([parameter], lr=0.1, betas=(0.9, 0.95))
        for step in range(20):
            optimiser.zero_grad()
            (parameter.square().sum() * (1 + step % 3)).backward()
            optimiser.step()
        found.append(parameter.detach())
    assert torch.allclose(*found, atol=1e-6)


def test_an_ill_conditioned_layer_is_learned_sooner_than_with_adam() -> None:
    """Inputs that are nearly one direction, as the channels of a network are."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.eye(16) * 0.05 + torch.randn(16, 1, generator=generator)
    x = torch.randn(256, 16, generator=generator) @ mix.T
    x = x + torch.randn(256, 16, generator=generator) * 0.05
    wanted = x @ torch.randn(16, 4, generator=generator)
    torch.manual_seed(0)
    first = nn.Linear(16, 4)
    losses = {}
    for kind in (Soap, torch.optim.Adam):
        layer = copy.deepcopy(first)
        optimiser = kind(layer.parameters(), lr=0.02)
        for _ in range(150):
            loss = (layer(x) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses[kind.__name__] = float(loss.detach())
    assert losses["Soap"] < 0.3 * losses["Adam"]


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    picture = torch.rand(2, 3, 8, 8)

    def steps(net: nn.Module, optimiser: Soap, count: int) -> None:
        for _ in range(count):
            optimiser.zero_grad()
            net(picture).square().mean().backward()
            optimiser.step()

    whole, cut = copy.deepcopy(network), copy.deepcopy(network)
    steps(whole, Soap(whole.parameters(), every=4), 14)
    optimiser = Soap(cut.parameters(), every=4)
    steps(cut, optimiser, 9)
    resumed = Soap(cut.parameters(), every=4)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    steps(cut, resumed, 5)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, other)


def test_long_sides_keep_their_axes() -> None:
    parameter = nn.Parameter(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimiser = Soap([parameter], largest=20)
    for _ in range(12):
        optimiser.zero_grad()
        parameter.square().sum().backward()
        optimiser.step()
    state = optimiser.state[parameter]
    assert state["rows_basis"].shape == (4, 4)
    assert "columns" not in state
    assert torch.isfinite(parameter).all()
