"""ENLCN-tiny trained with its contrastive loss and without it, on repetitive structures.

    python -m srdeploy.bench.contrastive --data DIR --test DIR [--seeds 3] [--steps 700]
        [--warmup 100] [--redraw 100] [--batch 16] [--patch 24] [--rate 5e-4] [--threads 1]
        [--json FILE]

Both go on from the bundled enlcn-tiny-x4, which L1 alone has trained, for the same steps on the
same patches, with the same projections drawn anew, and are judged by the average of their weights
with the last projection. Only the weight of the contrastive loss differs. A seed chooses patches
and projections. Training pictures that show what a test picture shows are left out, and nothing of
the drawn structures is trained on.

Printed are PSNR-Y in dB of the drawn structures, of the most repetitive test pictures, and of each
data set, what the attentions compare in the drawn ones, and the PSNR of these with the attentions
left out; then the gains by seed, and how much the PSNR of one network varies with its projection.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..calib.fingerprint import find_same, fingerprint
from ..models.networks.enlcn import FLOOR, LinearAttention, NonLocalBlock
from ..models.weights.resolve import load
from ..plugins.enla.op import enla
from ..train.contrastive import (
    ContrastiveLoss,
    attentions,
    draw_projection,
    gaps,
)
from ..train.data import PatchSampler, find_pictures
from ..train.devices import this_device
from ..train.loop import average_weights, channels_last, take_step
from ..train.recipe import Contrastive, Recipe
from ..train.validation import Pair, evaluate
from ..validate.datasets import find_datasets, read_picture
from ..validate.resize import shrink
from .machine import facts
from .recording import write
from .repetitive import FORMULAS, draw, repetition

MODEL, SCALE = "enlcn-tiny", 4
MOST_REPETITIVE = 12
"""Of the test pictures."""

PROJECTIONS = 5
"""Drawn for one trained network, to see how much they matter."""

CUT = 40
"""Edge in LR pixels of the part whose similarities are looked at."""

Scores = dict[str, float]


def trained(
    start: nn.Module, sampler: PatchSampler, recipe: Recipe, settings: Contrastive, seed: int
) -> nn.Module:
    """The averaged network of a run, with the projections of its last epoch."""
    network = copy.deepcopy(start).requires_grad_(True).train()
    average = copy.deepcopy(start).requires_grad_(False).eval()
    channels_last(network)
    objective = ContrastiveLoss(network, settings, seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    run = this_device().prepare(network, optimiser)
    for step in range(recipe.steps):
        take_step(run, sampler, recipe, step, objective)
        average_weights(average, network, min(recipe.ema, (step + 1) / (step + 10)))
    return average


def similarities(network: nn.Module, pairs: Sequence[Pair], settings: Contrastive) -> Scores:
    """What the attentions compare in the middle of each picture.

    Returns:
        ``gap``: mean of :func:`~srdeploy.train.contrastive.gaps`; ``below``: share of queries
        below the margin; ``weight``: share of the softmax that the related keys have; ``error``:
        of the attention by random features against the exact one, relative.
    """
    rows: list[list[float]] = []

    def look(attention: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        assert isinstance(attention, LinearAttention)
        q, k, v = inputs
        found = gaps(q, k, settings.related, settings.unrelated_from)
        products = q.flatten(2).transpose(1, 2) @ k.flatten(2)
        weights = products.softmax(2)
        few = max(1, int(settings.related * weights.shape[2]))
        related = weights.topk(few, dim=2).values.sum(2)
        exact = v.flatten(2) @ weights.transpose(1, 2)
        near = enla(q, k, v, attention.projection_matrix, FLOOR).flatten(2)
        rows.append(
            [
                float(found.mean()),
                float((found < settings.margin).float().mean()),
                float(related.mean()),
                float((near - exact).norm() / exact.norm()),
            ]
        )

    hooks = [a.register_forward_pre_hook(look) for a in attentions(network)]
    with torch.inference_mode():
        for _, low, _ in pairs:
            y, x = (max(0, (n - CUT) // 2) for n in low.shape[:2])
            cut = low[y : y + CUT, x : x + CUT].copy()
            network(torch.from_numpy(cut).permute(2, 0, 1)[None].float() / 255.0)
    for hook in hooks:
        hook.remove()
    means = np.mean(rows, axis=0)
    return dict(zip(("gap", "below", "weight", "error"), map(float, means), strict=True))


def judged(network: nn.Module, tests: dict[str, list[Pair]], settings: Contrastive) -> Scores:
    """Mean PSNR of each set of pictures, and the similarities in the drawn ones."""
    scores = {name: evaluate(network, pairs, SCALE)["mean"] for name, pairs in tests.items()}
    return scores | similarities(network, tests["drawn"], settings)


def varied(network: nn.Module, pairs: list[Pair], seed: int) -> list[float]:
    """Mean PSNR of one trained network under projections that it was not trained with."""
    other = copy.deepcopy(network)
    scores = []
    for turn in range(PROJECTIONS):
        for layer, attention in enumerate(attentions(other)):
            draw_projection(attention, seed, 10**6 + turn, layer)
        scores.append(evaluate(other, pairs, SCALE)["mean"])
    return scores


def without_attention(network: nn.Module, pairs: list[Pair]) -> float:
    """Mean PSNR where the attentions add nothing: how much there is to win with them."""
    silent = copy.deepcopy(network)
    for module in silent.modules():
        if isinstance(module, NonLocalBlock):
            module.res_scale = 0.0
    return evaluate(silent, pairs, SCALE)["mean"]


def judged_on(folders: Sequence[Path]) -> dict[str, list[Pair]]:
    """The drawn structures, the most repetitive of the test pictures, and all by data set."""
    drawn = [(name, draw(name)) for name in FORMULAS]
    datasets = {d.name: d for folder in folders for d in find_datasets(folder, SCALE)}
    sets: dict[str, list[Pair]] = {
        name: [(f"{name}/{pair.name}", *pair.read()) for pair in dataset.pairs]
        for name, dataset in datasets.items()
    }
    found = sorted(
        (pair for pairs in sets.values() for pair in pairs), key=lambda p: -repetition(p[2])
    )
    return {
        "drawn": [(name, shrink(hr, SCALE), hr) for name, hr in drawn],
        **({"repetitive": found[:MOST_REPETITIVE]} if found else {}),
        **sets,
    }


def unseen(folders: Sequence[Path], tests: dict[str, list[Pair]]) -> list[Path]:
    """The training pictures that show no test picture."""
    known = {name: fingerprint(hr) for pairs in tests.values() for name, _, hr in pairs}
    kept = []
    for path in find_pictures(folders):
        if same := find_same(fingerprint(read_picture(path)), known):
            print(f"{path.name} is {same}: left out")
        else:
            kept.append(path)
    return kept


def compare(
    folders: Sequence[Path],
    tests: dict[str, list[Pair]],
    recipe: Recipe,
    settings: Contrastive,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Scores of the start and of both losses by seed, and PSNR of the drawn by projection."""
    start, _ = load(MODEL, SCALE)
    files = unseen(folders, tests)
    runs: dict[str, Any] = {"start": judged(start, tests, settings), "seeds": {}}
    _tell("start", runs["start"])
    for seed in seeds:
        sampler = PatchSampler(files, SCALE, recipe.patch, seed)
        found: dict[str, Any] = {}
        for name, weight in (("L1", 0.0), ("L1 + Lcl", settings.weight)):
            network = trained(start, sampler, recipe, replace(settings, weight=weight), seed)
            found[name] = judged(network, tests, settings)
            found[name]["without attention"] = without_attention(network, tests["drawn"])
            found[name]["projections"] = varied(network, tests["drawn"], seed)
            _tell(f"seed {seed}, {name}", found[name])
        runs["seeds"][str(seed)] = found
    return runs


def gains(runs: dict[str, Any]) -> dict[str, list[float]]:
    """What the contrastive loss changed in each score, by seed."""
    both = [(found["L1"], found["L1 + Lcl"]) for found in runs["seeds"].values()]
    names = [n for n in both[0][0] if n != "projections"]
    return {name: [b[name] - a[name] for a, b in both] for name in names}


def _tell(title: str, scores: dict[str, Any]) -> None:
    values = "  ".join(f"{n} {v:.3f}" for n, v in scores.items() if n != "projections")
    print(f"{title:<18} {values}", flush=True)


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--test", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--warmup", type=int, default=100, help="steps of L1 alone")
    parser.add_argument("--redraw", type=int, default=100, help="steps of a projection")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--weight", type=float, default=1e-3, help="of the contrastive loss")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = Recipe(
        steps=given.steps,
        batch=given.batch,
        patch=given.patch,
        rate=given.rate,
        warmup=min(50, given.steps),
        decay=given.steps // 2,
        ema=0.99,
    )
    settings = Contrastive(warmup=given.warmup, redraw_every=given.redraw, weight=given.weight)
    tests = judged_on(given.test)
    for name in ("drawn", "repetitive"):
        print(f"{name}: {', '.join(pair[0] for pair in tests.get(name, []))}")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    runs = compare(given.data, tests, recipe, settings, seeds)
    for name, changes in gains(runs).items():
        spread = statistics.stdev(changes) if len(changes) > 1 else float("nan")
        by_seed = " ".join(f"{c:+z.3f}" for c in changes)
        print(f"gain {name:<12} {statistics.mean(changes):+z.3f} ± {spread:.3f}  ({by_seed})")
    projections = [
        statistics.stdev(scores["projections"])
        for found in runs["seeds"].values()
        for scores in found.values()
    ]
    print(f"drawn, by projection: ± {statistics.mean(projections):.3f} dB")
    if given.json:
        write(given.json, {"machine": facts(), "runs": runs, "gains": gains(runs)})


if __name__ == "__main__":
    main()
