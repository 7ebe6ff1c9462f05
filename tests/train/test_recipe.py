"""Recipes: schedules, files, and what is wrong in them."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from srdeploy.errors import TrainingError
from srdeploy.train.recipe import (
    LOSSES,
    SCHEDULES,
    Contrastive,
    Recipe,
    read_recipe,
    recipe_names,
)

lengths = st.integers(1, 400)


@given(steps=lengths, warmup=st.integers(0, 60), decay=st.integers(0, 60), rate=st.floats(1e-6, 1))
def test_linear_rises_stays_and_falls(steps, warmup, decay, rate) -> None:
    recipe = Recipe(steps=steps, rate=rate, warmup=warmup, decay=decay)
    rates = [recipe.rate_at(step) for step in range(steps)]
    assert all(0 < r <= rate for r in rates)
    assert rates[warmup : steps - decay] == [rate] * max(steps - decay - warmup, 0)
    if warmup + decay <= steps:
        assert all(a < b for a, b in pairwise(rates[:warmup]))
        assert all(a > b for a, b in pairwise(rates[steps - decay :]))
    assert recipe.rate_at(steps) == 0 or not decay


@given(steps=lengths, share=st.floats(0, 1), rate=st.floats(1e-6, 1))
def test_cosine_falls_to_its_floor(steps, share, rate) -> None:
    floor = share * rate
    recipe = Recipe(steps=steps, rate=rate, warmup=0, schedule="cosine", floor=floor)
    rates = [recipe.rate_at(step) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(rate)
    assert rates[-1] == pytest.approx(floor, abs=1e-12)
    assert all(a >= b - 1e-15 for a, b in pairwise(rates))
    middle = recipe.rate_at(steps // 2) if steps % 2 == 0 else (rate + floor) / 2
    assert middle == pytest.approx((rate + floor) / 2)


@given(st.sets(st.integers(1, 99), max_size=5), st.floats(0.1, 1))
def test_steps_multiply_at_each_milestone(milestones, factor) -> None:
    marks = tuple(sorted(milestones))
    recipe = Recipe(
        steps=100, rate=1.0, warmup=0, schedule="steps", milestones=marks, factor=factor
    )
    for step in range(100):
        passed = len([m for m in marks if m <= step])
        assert recipe.rate_at(step) == pytest.approx(factor**passed)


@given(st.sampled_from(SCHEDULES), st.integers(1, 50))
def test_every_schedule_warms_up(schedule, warmup) -> None:
    recipe = Recipe(steps=100, schedule=schedule, warmup=warmup, rate=1.0, decay=0)
    cold = dataclasses.replace(recipe, warmup=0)
    for step in range(warmup):
        share = (step + 1) / warmup
        assert recipe.rate_at(step) == pytest.approx(share * cold.rate_at(step))


def test_the_recipes_of_the_five_papers_are_here() -> None:
    assert recipe_names() == [
        "adam",
        "attentionsr",
        "default",
        "enlcn",
        "han",
        "hat-finetune",
        "hat-pretrain",
        "vapsr",
    ]
    assert read_recipe("default").optimiser == "soap"
    assert read_recipe("adam") == Recipe(), "what a recipe file leaves out"
    vapsr = read_recipe("vapsr")
    assert (vapsr.steps, vapsr.loss, vapsr.rate, vapsr.ema) == (1_000_000, "l1", 1e-3, 0.999)
    assert read_recipe("hat-pretrain").rate > read_recipe("hat-finetune").rate == 1e-5
    assert read_recipe("attentionsr").loss == "mse"
    enlcn = read_recipe("enlcn")
    assert enlcn.contrastive == Contrastive(warmup=150_000, redraw_every=1_000)
    assert {read_recipe(name).loss for name in recipe_names()} == set(LOSSES)


@pytest.mark.parametrize("name", recipe_names())
def test_quick_is_short(name: str) -> None:
    quick, full = read_recipe(name, quick=True), read_recipe(name)
    assert quick.steps <= 100
    assert quick.batch * quick.patch**2 <= 4 * 32**2
    assert quick.steps % quick.validate_every == 0
    assert (quick.loss, quick.schedule) == (full.loss, full.schedule)
    if quick.contrastive:
        assert quick.contrastive.warmup < quick.steps
        assert quick.contrastive.weight == full.contrastive.weight


def test_options_take_the_place_of_the_files_values(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[recipe]\nsteps = 7\nrate = 1\nbetas = [0.9, 0.95]\nloss = "contrastive"\n'
        "[contrastive]\nwarmup = 3\nredraw_every = 2\n"
        "[quick]\nsteps = 3\n[quick.contrastive]\nwarmup = 1\n"
    )
    recipe = read_recipe(str(path))
    assert recipe == Recipe(
        steps=7,
        rate=1.0,
        betas=(0.9, 0.95),
        loss="contrastive",
        contrastive=Contrastive(warmup=3, redraw_every=2),
    )
    quick = read_recipe(str(path), True, {"rate": 0.5, "batch": None})
    assert (quick.steps, quick.rate, quick.batch) == (3, 0.5, 16)
    assert quick.contrastive == Contrastive(warmup=1, redraw_every=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[recipe]\nstep = 3", "unknown key 'recipe.step'"),
        ("[recipies]\nsteps = 3", "unknown key 'recipies'"),
        ("steps = 3", "unknown key 'steps'"),
        ("[quick]\nstepps = 3", "unknown key 'quick.stepps'"),
        ('[recipe]\nsteps = "many"', "'recipe.steps' is 'many', expected a whole number"),
        ("[recipe]\nsteps = 1.5", "'recipe.steps' is 1.5, expected a whole number"),
        ("[recipe]\nsteps = true", "'recipe.steps' is True, expected a whole number"),
        ("[recipe]\nrate = '1e-3'", "'recipe.rate' is '1e-3', expected a number"),
        ("[recipe]\ncompile = 1", "'recipe.compile' is 1, expected true or false"),
        ("[recipe]\nbetas = [0.9]", "'recipe.betas' is [0.9], expected a list of numbers"),
        ("[recipe]\nmilestones = [1.5]", "'recipe.milestones' is 1.5, expected a whole number"),
        ("[recipe]\nmilestones = 5", "'recipe.milestones' is 5, expected a list of numbers"),
        ("recipe = 3", "'recipe' is 3, expected a table"),
        ("[recipe]\ncontrastive = 3", "unknown key 'recipe.contrastive'"),
        ("contrastive = 3", "'contrastive' is 3, expected a table"),
        ("[quick]\ncontrastive = 3", "'contrastive' is 3, expected a table"),
        ('[recipe]\nloss = "l2"', "loss is l2, expected one of l1, mse, contrastive"),
        ('[recipe]\nloss = "contrastive"', "contrastive settings are missing"),
        ("[contrastive]\nwarmup = 1\nredraw_every = 1", "contrastive settings are given"),
        ("[contrastive]\nwarmup = 1", "incomplete: missing 1 required"),
        ("[recipe]\nsteps = 0", "steps is 0, expected at least 1"),
        ("[recipe]\nrate = 0", "rate is 0.0, expected more than 0"),
        ("[recipe]\nema = 1.5", "ema is 1.5, expected 0 to 1"),
        ("[recipe]\nrate = nan", "rate is nan"),
        ("[recipe]\nbetas = [0.9, 1]", "betas is (0.9, 1.0)"),
        ("[recipe]\nmilestones = [5, 3]", "milestones is (5, 3), expected ascending"),
        ("[recipe", "cannot be read as a recipe"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(TrainingError) as caught:
        read_recipe(str(path), quick=True)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no recipe is called 'vapr'") as caught:
        read_recipe("vapr")
    assert "hat-pretrain" in caught.value.hint
    with pytest.raises(TrainingError, match="No such file"):
        read_recipe(str(tmp_path / "absent.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    with pytest.raises(TrainingError, match="cannot be read as a recipe"):
        read_recipe(str(tmp_path / "binary.toml"))
