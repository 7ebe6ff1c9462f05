"""``srdeploy train``: pictures become a checkpoint and its PSNR."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data
from ..errors import TrainingError
from ..files import write_bytes
from ..models import candidates
from ..report.training import Summary, summary_page
from ..train.checkpoint import check
from ..train.depthwise import speed_up
from ..train.devices import Devices, on_devices
from ..train.log import Log
from ..train.loop import train
from ..train.objectives import objective_of
from ..train.recipe import DEFAULT, Recipe, read_recipe
from ..train.validation import Pair, score
from ..train.weights import load_teacher, start_from, store, untrained
from ..validate.datasets import find_datasets
from ..validate.resize import modcrop, resize, shrink
from . import Say
from .training_data import degrade, open_sampler, world_of

TEACHER_SHARE = 0.5
"""Of the loss, where there is a teacher and neither the recipe nor an option says."""


@dataclass(frozen=True)
class Job:
    """What every process of a training does; see :func:`train_model`."""

    model: str
    scale: int
    folders: tuple[Path, ...]
    validation: Path | None
    folder: Path | None
    weights: Path | None
    teacher: Path | None
    recipe: Recipe


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
    recipe: str = DEFAULT,
    teacher: Path | None = None,
    devices: int = 1,
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
        weights: Checkpoint to start from, in part where it is of another network; None to start
            from scratch.
        say: Takes progress.
        recipe: Name or file of a recipe.
        teacher: Checkpoint of a network of the same scale to learn from besides.
        devices: GPUs, or processes on a CPU; ``say`` must be picklable for several.
        recipe_options: Fields of :class:`~srdeploy.train.recipe.Recipe`; None leaves the recipe's.

    Returns:
        ``variant``, ``weights`` (path of the averaged weights), ``checkpoint``, ``log``,
        ``page``, and ``psnr`` and ``bicubic`` by picture.

    Raises:
        TrainingError: The recipe, a checkpoint or the teacher does not fit, or the run failed.
        DatasetError: There is no picture to train on.
        OutputError: A file cannot be written.
    """
    chosen = read_recipe(recipe, quick, recipe_options)
    if teacher is None and chosen.teacher_share:
        raise TrainingError(
            f"the teacher's share of the loss is {chosen.teacher_share:g}, and there is no teacher",
            "name its checkpoint: --teacher FILE",
        )
    if teacher is not None and recipe_options.get("teacher_share") is None:
        share = chosen.teacher_share or TEACHER_SHARE
        chosen = dataclasses.replace(chosen, teacher_share=share)
    job = Job(model, scale, tuple(folders), validation, folder, weights, teacher, chosen)
    return on_devices(
        _train_here, job, say, count=devices, precision=chosen.precision, threads=threads
    )


def _train_here(devices: Devices, job: Job, say: Say) -> dict[str, Any]:
    """What one process does; the first one writes and returns."""
    recipe, first = job.recipe, devices.first
    family, variant = candidates(job.model, job.scale)[0]
    run = job.folder or Path("runs") / variant.name
    checkpoint = run / "checkpoint.pth"
    world = world_of(recipe.degradation)
    told = say if first else _silent
    # what can be refused comes before the pictures, which may take minutes to decode
    network = untrained(family, variant, recipe.seed)
    lines, teacher = [], None
    if checkpoint.exists():
        check(checkpoint, network, recipe)
    if job.teacher is not None:
        teacher, name = load_teacher(job.teacher, job.scale)
        speed_up(teacher.to(devices.device))
        lines.append(f"learns from {name}, {recipe.teacher_share:.0%} of the loss")
    if job.weights is not None and not checkpoint.exists():
        lines.append(f"starts from {job.weights}: {start_from(job.weights, network, family)}")
    speed_up(network.to(devices.device))
    objective = objective_of(recipe, network, teacher)
    pairs = validation_pairs(job.validation, job.scale)
    sampler = open_sampler(job.folders, job.scale, recipe.patch, world, told, recipe.seed)
    told(f"{variant.name}: {len(sampler.pairs)} pictures, {len(sampler.skipped)} left out")
    lines = [*(f"left out: {line}" for line in sampler.skipped[:5]), *lines]
    if world is not None:
        pairs = degrade(pairs, job.scale, world)
    for line in lines:
        told(line)
    log = Log(run / "log.csv")
    scores = train(
        network,
        sampler,
        recipe,
        checkpoint,
        pairs,
        say,
        objective=objective,
        devices=devices,
        log=log,
    )
    if not first:
        return {}
    written, page = run / f"{variant.name}.safetensors", run / "training.html"
    store(written, network, family, half=variant.tiny)
    bicubic = score(
        lambda low: resize(low, low.shape[0] * job.scale, low.shape[1] * job.scale),
        pairs,
        job.scale,
    )
    summary = Summary(variant.name, recipe, log.rows(), scores, bicubic)
    write_bytes(page, summary_page(summary).encode())
    return {
        "variant": variant.name,
        "weights": str(written),
        "checkpoint": str(checkpoint),
        "log": str(log.path),
        "page": str(page),
        "psnr": scores,
        "bicubic": bicubic,
    }


def _silent(_: str) -> None:
    """What processes other than the first say."""


def validation_pairs(folder: Path | None, scale: int) -> list[Pair]:
    """Name, LR and HR of every validation picture; of the bundled proof set without a folder."""
    if folder is not None:
        sets = find_datasets(folder, scale)
        several = len(sets) > 1
        return [
            (f"{d.name}/{p.name}" if several else p.name, *p.read()) for d in sets for p in d.pairs
        ]
    pairs: list[Pair] = []
    for picture in data.pictures("proof"):
        hr = modcrop(picture.read(), scale)
        pairs.append((picture.name, shrink(hr, scale), hr))
    return pairs
