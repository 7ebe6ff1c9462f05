"""Training speed: patches a second against the plain PyTorch loop, and the loader's share of it.

    python -m srdeploy.bench.training --data DIR [--model vapsr-s] [--scale 4] [--batch 16]
        [--patch 48] [--steps 5] [--rounds 3] [--threads N] [--degradation bicubic|real]
        [--json FILE]

Both loops see the same patches and take the same steps: Adam on L1, clipped gradients, an average
of the weights. The plain one is the paper's recipe in PyTorch, without channels_last and without
the depthwise convolutions of :mod:`srdeploy.train.depthwise`. They alternate in one run.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..commands.training_data import VIDEOS, world_of
from ..models import candidates
from ..train.data import PatchSampler, find_pictures
from ..train.depthwise import speed_up
from ..train.devices import this_device
from ..train.loop import average_weights, channels_last, take_step
from ..train.objectives import AgainstTruth
from ..train.recipe import DEGRADATIONS, Recipe
from .recording import write

Step = Callable[[int], object]
"""Takes the number of a step."""


class Clocked(PatchSampler):
    """A sampler whose time is counted.

    Attributes:
        seconds: Spent on making batches so far.
    """

    seconds = 0.0

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """See :meth:`PatchSampler.batch`."""
        started = time.perf_counter()
        made = super().batch(step, size)
        self.seconds += time.perf_counter() - started
        return made


def ours(network: nn.Module, sampler: PatchSampler, recipe: Recipe) -> Step:
    """A step as ``srdeploy train`` takes it."""
    speed_up(network)
    channels_last(network)
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    run, objective = this_device().prepare(network, optimiser), AgainstTruth()

    def step(index: int) -> None:
        take_step(run, sampler, recipe, index, objective)
        average_weights(average, network, recipe.ema)

    return step


def plain(network: nn.Module, sampler: PatchSampler, recipe: Recipe) -> Step:
    """A step of the paper's recipe in plain PyTorch."""
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99))

    def step(index: int) -> None:
        low, high = sampler.batch(index, recipe.batch)
        loss = F.l1_loss(network(low), high)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimiser.step()
        average_weights(average, network, recipe.ema)

    return step


def measure(
    model: str,
    scale: int,
    folders: list[Path],
    recipe: Recipe,
    steps: int,
    rounds: int,
) -> dict[str, Any]:
    """Patches a second of both loops by round, their ratio, and the loader's share of ours."""
    family, variant = candidates(model, scale)[0]
    files = find_pictures(folders, VIDEOS)
    made: dict[str, Any] = {"videos": VIDEOS, "world": world_of(recipe.degradation)}
    torch.manual_seed(0)
    network = family.build(variant.config)
    sampler = Clocked(files, scale, recipe.patch, **made)
    loops = {
        "ours": ours(copy.deepcopy(network).train(), sampler, recipe),
        "plain": plain(network.train(), PatchSampler(files, scale, recipe.patch, **made), recipe),
    }
    for step in loops.values():
        step(0)  # compiles what compiles
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    shares = []
    for turn in range(rounds):
        for name, step in loops.items():
            loading, started = sampler.seconds, time.perf_counter()
            for index in range(steps):
                step(1 + turn * steps + index)
            seconds = time.perf_counter() - started
            speeds[name].append(steps * recipe.batch / seconds)
            if name == "ours":
                shares.append((sampler.seconds - loading) / seconds)
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True)]
    return {
        "variant": variant.name,
        "threads": torch.get_num_threads(),
        "batch": recipe.batch,
        "patch": recipe.patch,
        "degradation": recipe.degradation,
        "patches_per_second": speeds,
        "ratio": {"median": statistics.median(ratios), "rounds": ratios},
        "loader_share": statistics.median(shares),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--model", default="vapsr-s")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=5, help="a round and loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 for its own choice")
    parser.add_argument("--degradation", choices=DEGRADATIONS, default="bicubic")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    recipe = Recipe(batch=given.batch, patch=given.patch, degradation=given.degradation)
    found = measure(
        given.model,
        given.scale,
        given.data,
        recipe,
        given.steps,
        given.rounds,
    )
    for name, speeds in found["patches_per_second"].items():
        print(f"{name:<6} {statistics.median(speeds):7.2f} patches/s")
    print(f"ratio  {found['ratio']['median']:.2f}, the loader's share {found['loader_share']:.2%}")
    if given.json:
        write(given.json, found)


if __name__ == "__main__":
    main()
