"""Runs: exact resume of everything, early stop, full disks, interruption, changed recipes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from srdeploy.errors import Interrupted, TrainingError
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.train import loop
from srdeploy.train.data import PatchSampler, find_pictures
from srdeploy.train.log import Log
from srdeploy.train.loop import train
from srdeploy.train.objectives import AgainstTruth, Distillation, objective_of
from srdeploy.train.recipe import Recipe
from torch import nn

RECIPE = Recipe(steps=12, batch=2, patch=16, warmup=2, decay=3, validate_every=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    Image.fromarray(smooth).save(folder / "a.png")
    Image.fromarray(smooth[::-1]).save(folder / "b.png")
    return folder


@pytest.fixture
def sampler(folder: Path) -> PatchSampler:
    return PatchSampler(find_pictures([folder]), 2, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return architecture("vapsr").build(VapSRConfig(2, 8, 1, 8))


def pairs(sampler: PatchSampler) -> list:
    return [("a", *sampler.pairs[0])]


def run(sampler, folder: Path, recipe=RECIPE, lines=None, **options):
    folder.mkdir(exist_ok=True)
    report = (lines if lines is not None else []).append
    return train(
        network(),
        sampler,
        recipe,
        folder / "c.pth",
        pairs(sampler),
        report,
        log=Log(folder / "log.csv"),
        **options,
    )


def state(folder: Path) -> dict:
    return torch.load(folder / "c.pth", weights_only=True)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


CLOCKED = ("seconds", "logged")


def comparable(folder: Path) -> tuple[dict, list]:
    """A checkpoint and log without their clocks."""
    kept = {key: value for key, value in state(folder).items() if key not in CLOCKED}
    rows = [(r.step, r.loss, r.rate, r.psnr) for r in Log(folder / "log.csv").rows()]
    return kept, rows


def interrupt_in(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the process be asked to end while it takes a step."""
    original = loop.take_step

    def interrupted(run, samples, recipe, step, objective):
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(run, samples, recipe, step, objective)

    monkeypatch.setattr(loop, "take_step", interrupted)


def test_an_interrupted_run_saves_its_step_and_ends_as_an_uninterrupted_one(
    sampler, tmp_path: Path, monkeypatch
) -> None:
    recipe = dataclasses.replace(RECIPE, steps=40, validate_every=20, patience=5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(sampler, whole, recipe)
    with monkeypatch.context() as patch:
        interrupt_in(patch, 24)
        with pytest.raises(Interrupted, match="after step 25, which is kept in") as caught:
            run(sampler, parts, recipe)
    assert caught.value.hint == "the same command goes on from there"
    assert state(parts)["step"] == 25
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    torch.manual_seed(99)
    assert run(sampler, parts, recipe) == expected
    (a, rows), (b, again) = comparable(whole), comparable(parts)
    assert same(a, b)
    assert [row[0] for row in rows] == list(range(2, 41, 2))
    assert rows == again


def test_the_log_forgets_what_is_done_again(sampler, tmp_path: Path, monkeypatch) -> None:
    """Killed in step 11, it goes on after step 8; rows 9 and 10 are written anew."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(sampler, whole)

    class Killed(BaseException):
        pass

    original = loop.take_step

    def dying(run, samples, recipe, step, objective):
        if step == 10:
            raise Killed
        return original(run, samples, recipe, step, objective)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", dying)
        with pytest.raises(Killed):
            run(sampler, parts)
    assert [row.step for row in Log(parts / "log.csv").rows()] == list(range(1, 11))
    with (parts / "log.csv").open("a") as file:
        file.write("11,0.")  # cut off while it was written
    run(sampler, parts)
    assert comparable(parts)[1] == comparable(whole)[1]
    validated = [row.step for row in Log(parts / "log.csv").rows() if row.psnr is not None]
    assert validated == [4, 8, 12]


def test_without_progress_it_stops_early_with_the_best_weights(
    sampler, tmp_path: Path, monkeypatch
) -> None:
    """PSNR rises to the second validation and falls from then on."""
    recipe = dataclasses.replace(RECIPE, steps=100, validate_every=2, patience=3, ema=0.0)
    falling = iter([20.0, 25.0, 24.0, 23.0, 22.0, 30.0])
    seen = []

    def evaluated(net, validation, scale):
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        value = next(falling)
        return {"a": value, "mean": value}

    monkeypatch.setattr(loop, "evaluate", evaluated)
    folder, lines = tmp_path / "run", []
    folder.mkdir()
    net = network()
    scores = train(net, sampler, recipe, folder / "c.pth", pairs(sampler), lines.append)
    assert scores["mean"] == 25.0
    assert state(folder)["step"] == 10
    assert "no better than 25.000 dB for 3 validations" in lines[-1]
    assert same(dict(net.state_dict()), seen[1])
    # it has ended: the same command takes no further step
    again = network()
    train(again, sampler, recipe, folder / "c.pth", [], lines.append)
    assert state(folder)["step"] == 10
    assert same(dict(again.state_dict()), seen[1])


def test_what_changed_since_the_checkpoint_is_said_or_refused(sampler, tmp_path: Path) -> None:
    folder, lines = tmp_path / "run", []
    run(sampler, folder, dataclasses.replace(RECIPE, steps=4))
    before = (folder / "c.pth").read_bytes()
    for name, value in (("batch", 4), ("loss", "mse"), ("ema", 0.5), ("seed", 3)):
        with pytest.raises(TrainingError, match=f"has {name} .*now it is {value}") as caught:
            run(sampler, folder, dataclasses.replace(RECIPE, **{name: value}))
        assert "--weights" in caught.value.hint
    assert (folder / "c.pth").read_bytes() == before
    run(sampler, folder, dataclasses.replace(RECIPE, steps=8, rate=5e-4, decay=1), lines)
    assert lines[:4] == [
        "going on after step 4",
        "steps is 8 from here on, it was 4",
        "rate is 0.0005 from here on, it was 0.001",
        "decay is 1 from here on, it was 3",
    ]
    assert state(folder)["step"] == 8


def test_checkpoints_from_before_there_were_recipes_go_on(sampler, tmp_path: Path) -> None:
    """They have five keys and a recipe of ten fields."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    for place in (whole, folder):
        run(sampler, place, dataclasses.replace(RECIPE, steps=4))
    run(sampler, whole)
    kept = state(folder)
    old = {key: kept[key] for key in ("params", "params_ema", "optimiser", "step")}
    names = ["steps", "batch", "patch", "rate", "warmup", "decay", "ema", "clip", "validate_every"]
    old["recipe"] = {name: getattr(RECIPE, name) for name in names} | {"bf16": False}
    torch.save(old, folder / "c.pth")
    lines: list[str] = []
    run(sampler, folder, lines=lines)
    assert lines[0] == "going on after step 4"
    assert "from here on" not in lines[1]
    a, b = state(whole), state(folder)
    assert all(same(a[key], b[key]) for key in ("params", "params_ema", "optimiser"))
    old["recipe"]["bf16"] = True
    torch.save(old, folder / "c.pth")
    with pytest.raises(TrainingError, match="has precision bf16, and now it is 32"):
        run(sampler, folder)


@pytest.mark.parametrize("damage", ["cut", "other", "step", "inside", "moments"])
def test_damaged_checkpoints_are_refused_and_stay(sampler, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "run"
    run(sampler, folder, dataclasses.replace(RECIPE, steps=4))
    path = folder / "c.pth"
    kept = state(folder)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "other":
        torch.save({"params": kept["params"]}, path)
    elif damage == "step":
        torch.save(kept | {"step": "four"}, path)
    elif damage == "moments":
        kept["optimiser"]["state"][0]["exp_avg"] = torch.zeros(1)
        torch.save(kept, path)
    else:
        del kept["params"]["conv_first.weight"]
        torch.save(kept, path)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match="is not a checkpoint of this training") as caught:
        run(sampler, folder)
    assert "--output" in caught.value.hint
    assert path.read_bytes() == before


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_runs as here
from srdeploy.errors import TrainingError
from srdeploy.train.data import PatchSampler, find_pictures

folder = Path(sys.argv[2])
sampler = PatchSampler(find_pictures([folder / "pictures"]), 2, 16)
here.run(sampler, folder / "run", here.dataclasses.replace(here.RECIPE, steps=4))
before = (folder / "run" / "c.pth").read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
try:
    here.run(sampler, folder / "run")
except TrainingError as exc:
    print(exc.message, "|", exc.hint)
print((folder / "run" / "c.pth").read_bytes() == before)
print(sorted(p.name for p in (folder / "run").iterdir()))
"""


def test_a_full_disk_leaves_the_old_checkpoint(folder, tmp_path: Path, repository: Path) -> None:
    """The system refuses to let a file grow beyond half of the checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(repository / ".src")}
    command = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said, same_bytes, left = done.stdout.splitlines()[-3:]
    assert "c.pth could not be written" in said
    assert "is the disk full? the checkpoint before it is untouched" in said
    assert (same_bytes, left) == ("True", "['c.pth', 'log.csv']")


def test_between_validations_it_saves_by_the_clock(sampler, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_SAVE_AFTER", 0.0)
    interrupted = tmp_path / "run"

    def dying(run, samples, recipe, step, objective):
        if step == 3:
            raise MemoryError
        return original(run, samples, recipe, step, objective)

    original = loop.take_step
    monkeypatch.setattr(loop, "take_step", dying)
    with pytest.raises(MemoryError):
        run(sampler, interrupted)
    assert state(interrupted)["step"] == 3


class Doubled(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(x, scale_factor=2.0)


def test_a_teacher_is_part_of_the_loss() -> None:
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    upscaled = torch.rand(2, 3, 16, 16)
    teacher = Doubled()
    recipe = Recipe(teacher_share=0.25, loss="mse")
    objective = objective_of(recipe, network(), teacher)
    objective.begin_step(0)
    truth = (upscaled - high).square().mean()
    apart = (upscaled - teacher(low)).abs().mean()
    assert torch.allclose(objective(upscaled, low, high), 0.75 * truth + 0.25 * apart)
    only = Distillation(teacher, 1.0, AgainstTruth())
    assert only(teacher(low), low, high) == 0
    assert Distillation(teacher, 0.0, AgainstTruth())(high, low, high) == 0


def test_a_teacher_is_asked_for_the_step_too() -> None:
    begun = []

    class Listening(AgainstTruth):
        def begin_step(self, step: int) -> None:
            begun.append(step)

    Distillation(Doubled(), 0.5, Listening()).begin_step(7)
    assert begun == [7]


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "soap"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_optimisers_and_precisions_learn(sampler, tmp_path, optimiser, precision) -> None:
    recipe = dataclasses.replace(
        RECIPE, steps=40, ema=0.5, optimiser=optimiser, precision=precision, clip=0.0
    )
    folder, lines = tmp_path / "run", []
    first = run(sampler, folder, dataclasses.replace(recipe, steps=1), lines)["mean"]
    assert run(sampler, folder, recipe, lines)["mean"] > first + 3
    weights = state(folder)["params"].values()
    assert {tensor.dtype for tensor in weights} == {torch.float32}
