"""The training benchmark runs, and both of its loops take the same steps."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from srdeploy.bench.training import Clocked, measure, ours, plain
from srdeploy.models import candidates
from srdeploy.train.data import find_pictures
from srdeploy.train.recipe import Recipe

RECIPE = Recipe(batch=2, patch=16, warmup=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


def test_figures(folder: Path) -> None:
    found = measure("vapsr-tiny", 4, [folder], RECIPE, steps=1, rounds=2)
    assert found["variant"] == "vapsr-tiny-x4"
    assert all(len(s) == 2 and min(s) > 0 for s in found["patches_per_second"].values())
    assert found["ratio"]["median"] > 0
    assert 0 < found["loader_share"] < 1


def test_both_loops_take_the_same_steps(folder: Path) -> None:
    family, variant = candidates("vapsr-tiny", 4)[0]
    torch.manual_seed(0)
    one = family.build(variant.config).train()
    other, start = copy.deepcopy(one), copy.deepcopy(one)
    sampler = Clocked(find_pictures([folder]), 4, RECIPE.patch)
    for loop, network in ((ours, one), (plain, other)):
        step = loop(network, sampler, RECIPE)
        for index in range(3):
            step(index)
    assert sampler.seconds > 0
    for (name, ours_now), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        moved = (theirs - start.get_parameter(name)).abs().max()
        assert moved > 0
        assert (ours_now - theirs).abs().max() < 0.2 * moved, name
