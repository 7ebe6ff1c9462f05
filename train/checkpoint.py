"""The checkpoint of a run: written whole or not at all, and read to go on exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .recipe import Recipe

# What may be another when a run goes on: it changes what comes, not the meaning of what was.
FREE = (
    "steps",
    "rate",
    "warmup",
    "schedule",
    "decay",
    "floor",
    "milestones",
    "factor",
    "validate_every",
    "patience",
    "compile",
)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: Steps done.
        seconds: Spent on them, over all its parts.
        losses: Of the steps since the last validation.
        rowed: How many of them are in the log.
        logged: Seconds at the log's last row.
        best: The best mean PSNR of a validation, dB.
        stale: Validations since then.
        kept: Averaged weights at the best validation, where the run has patience.
    """

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    rowed: int = 0
    logged: float = 0.0
    best: float = float("-inf")
    stale: int = 0
    kept: dict[str, Tensor] | None = None


def save(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    recipe: Recipe,
) -> None:
    """Write a checkpoint that :func:`resume` goes on from; the old one stays until the end.

    Raises:
        TrainingError: It could not be written; what was there is untouched.
    """
    partial = path.with_name(path.name + ".partial")
    state: dict[str, Any] = {
        "params": network.state_dict(),
        "params_ema": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "recipe": asdict(recipe),
        **{f.name: getattr(progress, f.name) for f in dataclasses.fields(progress)},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name with old bytes
        partial.replace(path)
    except (OSError, RuntimeError) as exc:  # torch's zip writer raises the latter
        with contextlib.suppress(OSError):  # where the folder itself is missing
            partial.unlink(missing_ok=True)
        raise TrainingError(
            f"{path} could not be written: {exc}",
            f"is the disk full? {_left(path)}; the same command goes on from it",
        ) from exc


def _left(path: Path) -> str:
    return "the checkpoint before it is untouched" if path.exists() else "there is none before it"


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        TrainingError: It is missing, damaged or not one of a training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = [state[key] for key in ("params", "params_ema", "optimiser", "step", "recipe")]
        return state
    except Exception as exc:  # torch.load raises many kinds for a damaged file
        raise _foreign(path, exc) from exc


def check(path: Path, network: nn.Module, recipe: Recipe) -> None:
    """Refuse a checkpoint that :func:`resume` would refuse, before any work is done for the run.

    Raises:
        TrainingError: It is damaged, of another network, or of a recipe that differs in what
            cannot change within a run.
    """
    state = read(path)
    _changes(path, state["recipe"], recipe)
    try:
        theirs = {name: tensor.shape for name, tensor in state["params"].items()}
    except AttributeError as exc:  # damaged inside
        raise _foreign(path, exc) from exc
    if theirs != {name: tensor.shape for name, tensor in network.state_dict().items()}:
        raise _foreign(path, ValueError("its tensors are those of another network"))


def resume(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
) -> tuple[Progress, list[str]]:
    """Take a run up where :func:`save` left it.

    Returns:
        How far it is, and what of the recipe is another now, one sentence each.

    Raises:
        TrainingError: The file is damaged or another run's, or the recipe differs in what
            cannot change within a run.
    """
    state = read(path)
    changes = _changes(path, state["recipe"], recipe)
    try:
        network.load_state_dict(state["params"])
        average.load_state_dict(state["params_ema"])
        optimiser.load_state_dict(state["optimiser"])
        _check_moments(optimiser)
        names = [f.name for f in dataclasses.fields(Progress)]
        # a checkpoint from before there was a log has the step alone
        progress = Progress(**{name: state[name] for name in names if name in state})
        if type(progress.step) is not int:
            raise ValueError(f"its step is {progress.step!r}")
        return progress, changes
    except Exception as exc:  # of another network, or damaged inside
        raise _foreign(path, exc) from exc


def _check_moments(optimiser: torch.optim.Optimizer) -> None:
    """Find what PyTorch loads as it is and stumbles over in the first step."""
    if not isinstance(optimiser, torch.optim.Adam):
        return
    for parameter, moments in optimiser.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if getattr(moments.get(name), "shape", None) != parameter.shape:
                raise ValueError(f"its moments '{name}' are missing or of another shape")


def _foreign(path: Path, exc: Exception) -> TrainingError:
    return TrainingError(
        f"{path} is not a checkpoint of this training: {exc}",
        "move it away to start anew, or name another --output",
    )


def _changes(path: Path, before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What of the recipe is another now than in the checkpoint."""
    old = {**asdict(Recipe()), **before}  # fields that are new do what was done without them
    if old.pop("bf16", False):  # the name of before
        old["precision"] = "bf16"
    new = asdict(recipe)
    changed = {key: (old[key], new[key]) for key in new if _plain(old[key]) != _plain(new[key])}
    for key, (was, now) in changed.items():
        if key not in FREE:
            raise TrainingError(
                f"the run of {path} has {key} {was}, and now it is {now}",
                f"go on with {was}, or start another run: --output FOLDER --weights {path}",
            )
    return [f"{key} is {now} from here on, it was {was}" for key, (was, now) in changed.items()]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
