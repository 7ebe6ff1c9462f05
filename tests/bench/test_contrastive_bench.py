"""The contrastive benchmark: its pictures, and a comparison of a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from srdeploy.bench.contrastive import compare, gains, judged_on, unseen
from srdeploy.bench.repetitive import FORMULAS, draw, repetition
from srdeploy.train.recipe import Contrastive, Recipe
from srdeploy.validate.resize import shrink


@pytest.mark.parametrize("name", FORMULAS)
def test_every_structure_can_be_drawn(name: str) -> None:
    picture = draw(name, 96, 120)
    assert picture.shape == (96, 120, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10
    assert np.array_equal(picture, draw(name, 96, 120))


def test_repetition_tells_a_period_from_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert repetition(noise) < 0.1
    assert repetition(np.tile(noise[:12, :12], (8, 8, 1))) > 0.9
    assert repetition(np.full((64, 64, 3), 7, np.uint8)) < 1e-9


def test_the_most_repetitive_pictures_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srdeploy.bench.contrastive.FORMULAS", ["grid"])  # drawing takes time
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for i in range(13):
        Image.fromarray(np.roll(noise, i)).save(tmp_path / f"{i}.png")
    Image.fromarray(draw("weave", 64, 64)).save(tmp_path / "weave.png")
    sets = judged_on([tmp_path])
    assert [(name, hr.shape) for name, _, hr in sets["drawn"]] == [("grid", (400, 400, 3))]
    assert [len(sets[name]) for name in ("repetitive", tmp_path.name)] == [12, 14]
    assert sets["repetitive"][0][0] == f"{tmp_path.name}/weave"
    assert set(judged_on([])) == {"drawn"}


def test_both_losses_are_compared(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    drawn = [(n, shrink(p, 4), p) for n, p in ((n, draw(n, 64, 64)) for n in ("grid", "dots"))]
    Image.fromarray(drawn[0][2]).save(tmp_path / "grid.png")
    tests = {"drawn": drawn}
    assert [p.name for p in unseen([tmp_path], tests)] == ["noise.png"]
    recipe = Recipe(steps=3, batch=1, patch=12, warmup=0, decay=1, ema=0.5)
    settings = Contrastive(warmup=1, redraw_every=2, weight=1.0)
    runs = compare([tmp_path], tests, recipe, settings, [0, 1])
    assert set(runs["seeds"]) == {"0", "1"}
    for found in runs["seeds"].values():
        assert found["L1"]["gap"] != found["L1 + Lcl"]["gap"]
        assert len(found["L1"]["projections"]) == 5
        assert 0 < found["L1"]["weight"] < 1
    assert all(len(changes) == 2 for changes in gains(runs).values())
