"""Several devices: two processes on the CPU do what one does, and end as one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from srdeploy.errors import Interrupted, TrainingError
from srdeploy.models import architecture
from srdeploy.models.vapsr import VapSRConfig
from srdeploy.train.data import PatchSampler, find_pictures
from srdeploy.train.devices import Devices, on_devices, this_device
from srdeploy.train.log import Log
from srdeploy.train.loop import train
from srdeploy.train.recipe import Recipe

RECIPE = Recipe(steps=6, batch=4, patch=16, warmup=2, decay=3, validate_every=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    Image.fromarray(smooth).save(pictures / "a.png")
    return tmp_path


class Lines:
    """Takes lines into a file, whatever process they are from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


def work(devices: Devices, folder: Path, name: str, recipe: Recipe) -> dict[str, float]:
    torch.manual_seed(0)
    network = architecture("vapsr").build(VapSRConfig(2, 8, 1, 8))
    sampler = PatchSampler(find_pictures([folder / "pictures"]), 2, 16)
    run = folder / name
    return train(
        network,
        sampler,
        recipe,
        run / "c.pth",
        [("a", *sampler.pairs[0])],
        Lines(folder / f"{name}.txt"),
        devices=devices,
        log=Log(run / "log.csv"),
    )


def overflowing(devices: Devices, folder: Path, name: str, recipe: Recipe) -> dict[str, float]:
    """The second process alone gets a picture that is no number."""
    original = PatchSampler.batch

    def batch(self, step, size):
        low, high = original(self, step, size)
        if step == 4:
            high[3] = float("inf")
        return low, high

    PatchSampler.batch = batch
    try:
        return work(devices, folder, name, recipe)
    finally:
        PatchSampler.batch = original


def asked_to_end(devices: Devices, folder: Path, name: str, recipe: Recipe) -> dict[str, float]:
    """The process above is asked to end while this one trains."""
    original = PatchSampler.batch

    def batch(self, step, size):
        if step == 4 and devices.first:  # made ahead, a step or two before it is taken
            os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.05)
        return original(self, step, size)

    PatchSampler.batch = batch
    return work(devices, folder, name, recipe)


def test_two_processes_end_in_the_weights_of_one(folder: Path) -> None:
    on_devices(work, folder, "one", RECIPE, accelerator="cpu")
    scores = on_devices(work, folder, "two", RECIPE, count=2, accelerator="cpu")
    one, two = (torch.load(folder / n / "c.pth", weights_only=True) for n in ("one", "two"))
    for part in ("params", "params_ema"):
        for name, tensor in one[part].items():
            assert torch.allclose(tensor, two[part][name], rtol=1e-4, atol=2e-6), name
    assert set(scores) == {"a", "mean"}
    rows = [Log(folder / name / "log.csv").rows() for name in ("one", "two")]
    assert [r.step for r in rows[0]] == [r.step for r in rows[1]] == [1, 2, 3, 4, 5, 6]
    losses = [[r.loss for r in each] for each in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    lines = (folder / "two.txt").read_text().splitlines()
    assert len(lines) == 2, "the first process alone reports"


def test_what_is_wrong_in_one_process_is_said_once(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 5 gave no finite loss.* HR patches held 0 NaN"):
        on_devices(overflowing, folder, "bad", RECIPE, count=2, accelerator="cpu")
    assert torch.load(folder / "bad" / "c.pth", weights_only=True)["step"] == 3


def test_a_batch_is_split_evenly(folder: Path) -> None:
    devices = this_device(accelerator="cpu")
    devices.count = 2
    odd = Recipe(**{**vars(RECIPE), "batch": 3})
    with pytest.raises(TrainingError, match="batch of 3 cannot be split over 2 devices"):
        work(devices, folder, "odd", odd)
    parts = []
    for rank in range(2):
        devices.rank = rank
        parts += list(range(4))[devices.part(4)]
    assert parts == [0, 1, 2, 3]


@pytest.mark.slow  # as one process does, which test_runs has in the default run
def test_asked_to_end_both_processes_save_and_end(folder: Path) -> None:
    recipe = Recipe(**{**vars(RECIPE), "steps": 1_000_000, "validate_every": 500_000})
    with pytest.raises(Interrupted, match=r"interrupted after step [0-9]+") as caught:
        on_devices(asked_to_end, folder, "cut", recipe, count=2, accelerator="cpu")
    assert torch.load(folder / "cut" / "c.pth", weights_only=True)["step"] >= 1
    assert "goes on from there" in caught.value.hint


def test_devices_that_are_not_here() -> None:
    with pytest.raises(TrainingError, match=r"2 device.s. cannot train here"):
        on_devices(work, count=2, accelerator="cuda")
