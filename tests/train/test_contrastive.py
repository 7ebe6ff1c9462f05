"""ENLCN's contrastive loss: the equation, what it moves, when it acts, which projection counts."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from srdeploy.errors import TrainingError
from srdeploy.models import architecture
from srdeploy.models.enlcn import ENLCNConfig
from srdeploy.models.networks.enlcn import ENLCN, NonLocalBlock
from srdeploy.models.networks.vapsr import VapSR
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.models.weights.checkpoint import load_network
from srdeploy.train.contrastive import ContrastiveLoss, attentions, gaps
from srdeploy.train.loop import train
from srdeploy.train.recipe import Contrastive, Recipe
from srdeploy.train.validation import evaluate
from torch import Tensor
from torch.nn import functional as F

SETTINGS = Contrastive(warmup=0, redraw_every=4, weight=0.5)
RECIPE = Recipe(steps=12, batch=2, patch=8, rate=1e-3, warmup=0, decay=1, ema=0.9)


@pytest.fixture
def network() -> ENLCN:
    return _network()


def _network() -> ENLCN:
    torch.manual_seed(0)
    config = ENLCNConfig(2, n_resblocks=8, n_feats=8, embedded=4, random_features=16)
    return ENLCN(config).train()


class Noise:
    """Patches that are a pure function of the step, as the real sampler's."""

    scale = 2

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(step)
        high = torch.rand(size, 3, 16, 16, generator=g)
        return F.avg_pool2d(high, 2), high


def _l1(upscaled: Tensor, high: Tensor) -> float:
    return float(F.l1_loss(upscaled.detach(), high))


def _equation(q: np.ndarray, k: np.ndarray, best: float, worst: float) -> np.ndarray:
    """The quotient's logarithm, term by term, in float64."""
    b, c, h, w = q.shape
    n = h * w
    found = np.empty((b, n))
    for picture in range(b):
        for i in range(n):
            products = [
                sum(
                    float(q[picture, d, i // w, i % w]) * float(k[picture, d, j // w, j % w])
                    for d in range(c)
                )
                for j in range(n)
            ]
            ranked = sorted(products, reverse=True)
            few = max(1, int(best * n))
            start = max(few, int(worst * n))
            related = sum(np.exp(t) for t in ranked[:few])
            unrelated = sum(np.exp(t) for t in ranked[start : start + few])
            found[picture, i] = np.log(related / unrelated)
    return found


@settings(max_examples=25)
@given(
    b=st.integers(1, 2),
    c=st.integers(1, 4),
    h=st.integers(1, 6),
    w=st.integers(2, 6),
    best=st.floats(0.01, 0.5),
    share=st.floats(0, 1),
    last=st.booleans(),
)
def test_gaps_are_the_equation(b, c, h, w, best, share, last) -> None:
    worst = best + share * (1 - 2 * best)
    g = torch.Generator().manual_seed(h * 10 + w)
    q, k = (6**0.5 * F.normalize(torch.randn(b, c, h, w, generator=g), dim=1) for _ in range(2))
    layout = torch.channels_last if last else torch.contiguous_format
    got = gaps(*(t.contiguous(memory_format=layout) for t in (q, k)), best, worst)
    assert got.shape == (b, h * w)
    assert np.allclose(got.numpy(), _equation(q.numpy(), k.numpy(), best, worst), atol=1e-5)
    assert float(got.min()) >= 0


def test_the_papers_shares_of_a_patch() -> None:
    """28×28: 15 related keys, and the 15 from rank 62 on, not the 15 last ones."""
    n = 28 * 28
    q = torch.ones(1, 1, 28, 28)
    k = -torch.arange(n, dtype=torch.float32).reshape(1, 1, 28, 28) / 100
    expected = torch.logsumexp(k.flatten()[:15], 0) - torch.logsumexp(k.flatten()[62:77], 0)
    assert torch.allclose(gaps(q, k, 0.02, 0.08), expected.expand(1, n))


def test_a_single_pixel_is_refused() -> None:
    with pytest.raises(TrainingError, match="one pixel"):
        gaps(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1), 0.02, 0.08)


def test_loss_is_l1_and_the_mean_over_attentions(network: ENLCN) -> None:
    compared = []
    for attention in attentions(network):
        attention.register_forward_pre_hook(lambda _, inputs: compared.append(inputs[:2]))
    objective = ContrastiveLoss(network, SETTINGS, 0)
    objective.begin_step(0)
    low, high = Noise().batch(0, 2)
    upscaled = network(low)
    loss = objective(upscaled, low, high)
    assert len(compared) == len(attentions(network)) == 2
    contrasts = [
        np.maximum(0, 1 - _equation(q.detach().numpy(), k.detach().numpy(), 0.02, 0.08)).mean()
        for q, k in compared
    ]
    assert float(loss.detach()) == pytest.approx(
        _l1(upscaled, high) + 0.5 * np.mean(contrasts), abs=1e-5
    )


def test_gradient_reaches_what_makes_the_embeddings_and_nothing_after(network: ENLCN) -> None:
    objective = ContrastiveLoss(network, SETTINGS, 0)
    objective.begin_step(0)
    low, _ = Noise().batch(0, 2)
    upscaled = network(low)
    objective(upscaled, low, upscaled.detach()).backward()  # no L1: only the contrast is left
    moved = {
        n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    blocks = [n for n, m in network.named_modules() if isinstance(m, NonLocalBlock)]
    for block in blocks:
        assert {f"{block}.conv_match{i}.0.weight" for i in (1, 2)} <= moved
    assert f"{blocks[-1]}.conv_assembly.0.weight" not in moved
    assert not any(n.startswith("tail") for n in moved)
    assert "head.0.weight" in moved
    assert not any(p.requires_grad for p in network.buffers())


def test_no_loss_where_every_gap_is_the_margin(network: ENLCN) -> None:
    low, high = Noise().batch(0, 2)
    objective = ContrastiveLoss(network, replace(SETTINGS, margin=0.0), 0)  # gaps are above 0
    objective.begin_step(0)
    upscaled = network(low)
    assert float(objective(upscaled, low, high).detach()) == _l1(upscaled, high)


@pytest.mark.parametrize(("weight", "step"), [(0.5, 6), (0.0, 7)])
def test_l1_alone_in_the_warmup_and_without_weight(network: ENLCN, weight, step) -> None:
    objective = ContrastiveLoss(network, replace(SETTINGS, warmup=7, weight=weight), 0)
    low, high = Noise().batch(0, 2)
    objective.begin_step(step)
    upscaled = network(low)
    assert float(objective(upscaled, low, high).detach()) == _l1(upscaled, high)
    assert not _hooked(network)


def test_the_contrast_starts_after_the_warmup(network: ENLCN) -> None:
    objective = ContrastiveLoss(network, replace(SETTINGS, warmup=7), 0)
    low, high = Noise().batch(0, 2)
    objective.begin_step(7)
    upscaled = network(low)
    assert float(objective(upscaled, low, high).detach()) > _l1(upscaled, high)


def _hooked(network: torch.nn.Module) -> bool:
    return any(a._forward_pre_hooks for a in attentions(network))


def test_it_listens_only_within_a_step(network: ENLCN) -> None:
    objective = ContrastiveLoss(network, SETTINGS, 0)
    low, high = Noise().batch(0, 2)
    assert not _hooked(network)
    objective.begin_step(0)  # a step that is given up
    network(low)
    objective.begin_step(0)
    with pytest.raises(TrainingError, match="compared nothing"):
        objective(high, low, high)
    objective.begin_step(0)
    objective(network(low), low, high).backward()
    assert not _hooked(network)
    copy.deepcopy(network)


def test_autocast_compares_in_float32(network: ENLCN) -> None:
    losses = []
    for bf16 in (False, True):
        objective = ContrastiveLoss(network, SETTINGS, 0)
        objective.begin_step(0)
        low, high = Noise().batch(0, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = objective(network(low).float(), low, high)
        assert loss.dtype == torch.float32
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [{"related": 0.0}, {"unrelated_from": 0.01}, {"unrelated_from": 0.99}, {"redraw_every": 0}],
)
def test_settings_that_contradict_are_refused(network: ENLCN, wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        ContrastiveLoss(network, replace(SETTINGS, **wrong), 0)


def test_other_networks_are_refused() -> None:
    family = architecture("vapsr")
    config = next(v.config for v in family.variants if v.tiny)
    assert isinstance(config, VapSRConfig)
    network = family.build(config)
    assert isinstance(network, VapSR)
    with pytest.raises(TrainingError, match="non-local"):
        ContrastiveLoss(network, SETTINGS, 0)


@settings(max_examples=15)
@given(steps=st.lists(st.integers(0, 40), min_size=1, max_size=6), seed=st.integers(0, 2**40))
def test_projection_follows_from_seed_and_epoch(steps: list[int], seed: int) -> None:
    """Whatever steps came before, in whatever process: the last one decides."""
    one, other = _network(), _network()
    torch.manual_seed(seed % 1000)  # the state of PyTorch's own generator has no part in it
    first, second = (ContrastiveLoss(n, SETTINGS, seed) for n in (one, other))
    for step in steps:
        first.begin_step(step)
    second.begin_step(steps[-1] // 4 * 4)
    for a, b in zip(attentions(one), attentions(other), strict=True):
        assert torch.equal(a.projection_matrix, b.projection_matrix)


def test_projections_differ_by_epoch_seed_and_attention(network: ENLCN) -> None:
    drawn = []
    for seed, step in ((0, 0), (0, 3), (0, 4), (1, 0)):
        ContrastiveLoss(network, SETTINGS, seed).begin_step(step)
        drawn.append([a.projection_matrix.clone() for a in attentions(network)])
    assert torch.equal(drawn[0][0], drawn[1][0])  # one epoch
    different = [drawn[0][0], drawn[0][1], drawn[2][0], drawn[3][0]]
    for i, a in enumerate(different):
        assert not any(torch.equal(a, b) for b in different[:i])
    rows = drawn[0][0][:4]  # orthogonal, as those of the model
    products = rows @ rows.T
    assert (products - products.diag().diag()).abs().max() < 1e-4 * products.diag().max()


def _run(checkpoint: Path, steps: int) -> ENLCN:
    """The averaged network of a run, which goes on from the checkpoint."""
    network = _network()
    objective = ContrastiveLoss(network, replace(SETTINGS, warmup=2), 3)
    recipe = replace(RECIPE, steps=steps)
    train(network, Noise(), recipe, checkpoint, [], lambda _: None, objective)
    return network


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_resumed_run_is_exact(tmp_path: Path, cut: int) -> None:
    _run(tmp_path / "whole.pth", 9)
    _run(tmp_path / "cut.pth", cut)
    _run(tmp_path / "cut.pth", 9)
    whole, resumed = (
        torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("whole", "cut")
    )
    for part in ("params", "params_ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), name


def test_the_frozen_checkpoint_is_what_was_validated(tmp_path: Path) -> None:
    before = [a.projection_matrix.clone() for a in attentions(_network())]
    average = _run(tmp_path / "run.pth", 6)
    last = torch.load(tmp_path / "run.pth", weights_only=True)["params"]
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    pairs = [("noise", pixels[::2, ::2], pixels)]
    validated = evaluate(average, pairs, 2)["mean"]
    save_file(
        {n: t.contiguous() for n, t in average.state_dict().items()}, tmp_path / "n.safetensors"
    )
    frozen, _ = load_network(tmp_path / "n.safetensors", "n")
    assert evaluate(frozen, pairs, 2)["mean"] == validated
    trained = [matrix for name, matrix in last.items() if name.endswith("projection_matrix")]
    for old, drawn, kept in zip(before, trained, attentions(frozen), strict=True):
        assert torch.equal(drawn, kept.projection_matrix)
        assert not torch.equal(old, kept.projection_matrix)
