"""``srdeploy train``: pictures become a checkpoint and its PSNR."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .. import data
from ..errors import TrainingError
from ..files import write_bytes
from ..models import Architecture, Variant, candidates
from ..models.weights.checkpoint import load_network
from ..train.depthwise import speed_up
from ..train.loop import Pair, Recipe, train
from ..validate.datasets import find_datasets
from ..validate.resize import modcrop, shrink
from . import Say
from .training_data import degrade, open_sampler, world_of

QUICK = Recipe(steps=60, batch=4, patch=24, warmup=10, decay=20, validate_every=30)


def train_model(
    model: str,
    scale: int,
    folders: Sequence[Path],
    validation: Path | None,
    folder: Path | None,
    quick: bool,
    threads: int | None,
    weights: Path | None,
    say: Say,
    degradation: str = "bicubic",
    **recipe_options: Any,
) -> dict[str, Any]:
    """Train the best-named variant of ``model``, or go on where the same run stopped.

    Args:
        model: Such as ``vapsr-s``.
        scale: Upscaling factor.
        folders: Training pictures, videos and folders of them, used as HR.
        validation: Data sets for the PSNR; None for the bundled proof pictures.
        folder: Of the run; None for ``runs/VARIANT``.
        quick: A run of minutes.
        threads: CPU threads; None for all.
        weights: Checkpoint to start from; None to start from scratch.
        say: Takes progress.
        degradation: How LR is made of HR, in training and validation: one of
            :data:`~srdeploy.commands.training_data.DEGRADATIONS`.
        recipe_options: Fields of :class:`~srdeploy.train.loop.Recipe`; None leaves a default.

    Returns:
        ``variant``, ``weights`` (path of the EMA weights), ``checkpoint`` and ``psnr``.
    """
    if threads:
        torch.set_num_threads(threads)
    family, variant = candidates(model, scale)[0]
    given = {name: value for name, value in recipe_options.items() if value is not None}
    recipe = dataclasses.replace(QUICK if quick else Recipe(), **given)
    run = folder or Path("runs") / variant.name
    world = world_of(degradation)
    sampler = open_sampler(folders, scale, recipe.patch, world, say)
    say(f"{variant.name}: {len(sampler.pairs)} pictures, {len(sampler.skipped)} left out")
    for line in sampler.skipped[:5]:
        say(f"left out: {line}")
    torch.manual_seed(0)
    network = family.build(variant.config)
    if weights is not None:
        network.load_state_dict(_start(weights, variant))
    speed_up(network)
    checkpoint = run / "checkpoint.pth"
    pairs = validation_pairs(validation, scale)
    if world is not None:
        pairs = degrade(pairs, scale, world)
    scores = train(network, sampler, recipe, checkpoint, pairs, say)
    written = run / f"{variant.name}.safetensors"
    trained = torch.load(checkpoint, map_location="cpu", weights_only=True)["params_ema"]
    write_bytes(written, save(_stored(trained, family, half=variant.tiny)))
    return {
        "variant": variant.name,
        "weights": str(written),
        "checkpoint": str(checkpoint),
        "psnr": scores,
    }


def _start(weights: Path, variant: Variant) -> dict[str, Tensor]:
    """The tensors of a checkpoint of this very variant."""
    started, spec = load_network(weights, weights.name)
    if spec.variant != variant.name:
        raise TrainingError(
            f"{weights} holds {spec.variant}, the training is of {variant.name}",
            "choose --model and --scale as the checkpoint has them",
        )
    return started.state_dict()


def _stored(state: Mapping[str, Tensor], family: Architecture, half: bool) -> dict[str, Tensor]:
    """The tensors that a file needs: without those that follow from the shapes of others."""
    kept = {name: tensor for name, tensor in state.items() if not family.is_derived(name)}
    return {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in kept.items()
    }


def validation_pairs(folder: Path | None, scale: int) -> list[Pair]:
    """Name, LR and HR of every validation picture; of the bundled proof set without a folder."""
    if folder is not None:
        return [(p.name, *p.read()) for d in find_datasets(folder, scale) for p in d.pairs]
    pairs: list[Pair] = []
    for picture in data.pictures("proof"):
        hr = modcrop(picture.read(), scale)
        pairs.append((picture.name, shrink(hr, scale), hr))
    return pairs
