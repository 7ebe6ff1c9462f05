"""The training loop: steps on one device or several, averaged weights, validation, exact resume."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import Interrupted, TrainingError
from ..interruption import handling_signals, is_new_wish
from .ahead import WORKERS, Ahead, Patches
from .checkpoint import Progress, resume, save
from .devices import Devices, Prepared, this_device
from .diagnosis import first_fault, listed
from .log import Log, Row
from .objectives import AgainstTruth, Objective
from .recipe import Recipe
from .soap import Soap
from .validation import Pair, evaluate

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "soap": Soap,
}
ROWS = 10
"""Of the log between two validations."""

# Seconds without a checkpoint after which one is written between two validations.
_SAVE_AFTER = 600.0


@dataclass(frozen=True)
class RateShare:
    """Parameters that learn at a rate of their own: ``share`` times the recipe's."""

    parameters: Sequence[nn.Parameter]
    share: float


def train(
    network: nn.Module,
    sampler: Patches,
    recipe: Recipe,
    checkpoint: Path,
    validation: list[Pair],
    report: Callable[[str], None],
    objective: Objective | None = None,
    apart: RateShare | None = None,
    devices: Devices | None = None,
    log: Log | None = None,
) -> dict[str, float]:
    """Train ``network`` and keep ``checkpoint`` up to date; goes on from it if it exists.

    Everything random is a pure function of the recipe's seed and the step, so that a run that
    was cut off ends as one that was not, on a CPU bit for bit.

    Args:
        network: Untrained or pre-trained; it ends with the weights that the run is judged by.
        sampler: Training patches.
        recipe: Length, rates and sizes.
        checkpoint: File to write, replaced atomically.
        validation: Name, LR and HR of each validation picture, H×W×3 uint8.
        report: Takes a line of progress.
        objective: What is made small; the mean absolute difference from HR without one.
        apart: Those of the network's parameters that learn at another rate.
        devices: Where; the one device that is here without them.
        log: Takes a row now and then.

    Returns:
        Validation PSNR by picture, and their ``mean``, in dB: of the averaged weights at the
        end, or with the recipe's ``patience`` at the best validation. Empty in all processes
        but the first.

    Raises:
        TrainingError: The loss or a gradient is not finite (the last checkpoint is kept), the
            batch cannot be split evenly, or the checkpoint cannot be read or written.
        OutputError: The log cannot be written.
        Interrupted: The process was asked to end; the checkpoint is of the last step.
    """
    devices = devices or this_device(recipe.precision)
    report = report if devices.first else _silent
    objective = objective or AgainstTruth()
    if recipe.batch % devices.count:
        raise TrainingError(
            f"a batch of {recipe.batch} cannot be split over {devices.count} devices",
            "choose a --batch that the number of devices divides",
        )
    channels_last(network.train())
    average = copy.deepcopy(network).eval().requires_grad_(False).to(devices.device)
    make = OPTIMISERS[recipe.optimiser]
    optimiser = make(_groups(network, apart), lr=recipe.rate, betas=recipe.betas)
    run = devices.prepare(network, optimiser, recipe.compile)
    progress = Progress()
    if checkpoint.exists():
        progress, changes = resume(checkpoint, network, average, optimiser, recipe)
        report(f"going on after step {progress.step}")
        for change in changes:
            report(change)
    keeper = _Keeper(run, average, sampler, recipe, checkpoint, validation, report, log, progress)
    workers = 1 if devices.device.type == "cpu" else WORKERS
    with _stoppable() as asked, Ahead(sampler, workers, recipe.steps) as ahead:
        while not keeper.ended():
            loss = take_step(run, ahead, recipe, progress.step, objective)
            if devices.first:
                mean = min(recipe.ema, (progress.step + 1) / (progress.step + 10))
                average_weights(average, network, mean)
            keeper.after_step(loss)
            if devices.any(bool(asked)):
                keeper.keep()
                raise Interrupted(
                    f"interrupted after step {progress.step}, which is kept in {checkpoint}",
                    "the same command goes on from there",
                )
    network.load_state_dict(progress.kept or average.state_dict())
    if keeper.scores is None and devices.first:  # the run was at its end before
        keeper.scores = evaluate(network.eval(), validation, sampler.scale)
    return keeper.scores or {}


def _silent(_: str) -> None:
    """What processes other than the first report."""


class _Keeper:
    """What happens beside the steps: the log, validation, checkpoints, and the end.

    Attributes:
        scores: PSNR of the weights that the run is judged by, once it validated.
    """

    def __init__(
        self,
        run: Prepared,
        average: nn.Module,
        sampler: Patches,
        recipe: Recipe,
        checkpoint: Path,
        validation: list[Pair],
        report: Callable[[str], None],
        log: Log | None,
        progress: Progress,
    ) -> None:
        self._run, self._average, self._sampler, self._recipe = run, average, sampler, recipe
        self._checkpoint, self._validation, self._report = checkpoint, validation, report
        self._log, self._progress = log, progress
        self.scores: dict[str, float] | None = None
        self._clock = self._saved = time.monotonic()
        if log and run.devices.first:
            log.go_on_from(progress.step)

    def ended(self) -> bool:
        """Whether the run is at its end, or no longer gets better; the same in all processes."""
        done = self._progress.step >= self._recipe.steps
        patience = self._recipe.patience
        return done or bool(patience and self._progress.stale >= patience)

    def after_step(self, loss: float) -> None:
        """Count a step; write and validate where it is time to."""
        progress, recipe = self._progress, self._recipe
        now = time.monotonic()
        progress.seconds += now - self._clock
        self._clock = now
        progress.step += 1
        progress.losses.append(loss)
        every = recipe.validate_every
        validating = progress.step % every == 0 or progress.step == recipe.steps
        if validating:
            self._validate()
        elif progress.step % every % max(every // ROWS, 1) == 0 and self._run.devices.first:
            self._row(None)
        if validating or time.monotonic() - self._saved > _SAVE_AFTER:
            self.keep()
        self._clock = time.monotonic()  # validation and saving are no training

    def _validate(self) -> None:
        """PSNR of the averaged weights in the first process; all learn whether it is better."""
        progress, devices = self._progress, self._run.devices
        better = False
        if devices.first:
            scores = evaluate(self._average, self._validation, self._sampler.scale)
            mean = scores["mean"]
            row = self._row(mean)
            self._report(
                f"step {row.step}: loss {np.mean(progress.losses):.5f}, PSNR {mean:.3f} dB,"
                f" {row.speed:.1f} patches/s"
            )
            better = mean > progress.best
            progress.best = max(mean, progress.best)
            if better or not self._recipe.patience:
                self.scores = scores
        progress.losses, progress.rowed = [], 0
        if not self._recipe.patience:
            return
        better = devices.any(better)
        progress.stale = 0 if better else progress.stale + 1
        if better and devices.first:
            state = self._average.state_dict()
            progress.kept = {name: tensor.detach().clone() for name, tensor in state.items()}
        if self.ended() and progress.step < self._recipe.steps and devices.first:
            self._report(
                f"no better than {progress.best:.3f} dB for {progress.stale} validations: it ends"
                " here, with the weights of the best"
            )

    def _row(self, mean: float | None) -> Row:
        """Sum up the steps since the last row, and log them."""
        progress, recipe = self._progress, self._recipe
        losses, took = progress.losses[progress.rowed :], progress.seconds - progress.logged
        row = Row(
            progress.step,
            float(np.mean(losses)),
            recipe.rate_at(progress.step - 1),
            mean,
            len(losses) * recipe.batch / max(took, 1e-9),
            progress.seconds,
        )
        progress.rowed, progress.logged = len(progress.losses), progress.seconds
        if self._log:
            self._log.add(row)
        return row

    def keep(self) -> None:
        """Save, in the first process."""
        run = self._run
        if run.devices.first:
            save(
                self._checkpoint,
                run.network,
                self._average,
                run.optimiser,
                self._progress,
                self._recipe,
            )
        self._saved = time.monotonic()


@contextmanager
def _stoppable() -> Iterator[list[float]]:
    """Times at which the process was asked to end; asked again a while later, it does at once."""
    asked: list[float] = []

    def take(_number: int, _frame: object) -> None:
        if is_new_wish(asked) and len(asked) > 1:
            raise KeyboardInterrupt

    with handling_signals(take):
        yield asked


def _groups(network: nn.Module, apart: RateShare | None) -> list[dict[str, Any]]:
    """The optimiser's groups of parameters, each with its ``share`` of the rate."""
    others = {id(p) for p in apart.parameters} if apart else set()
    groups = [{"params": [p for p in network.parameters() if id(p) not in others], "share": 1.0}]
    if apart:
        groups.append({"params": list(apart.parameters), "share": apart.share})
    return groups


def take_step(
    run: Prepared, sampler: Patches, recipe: Recipe, step: int, objective: Objective
) -> float:
    """One step of the optimiser at the recipe's rate; returns the loss, over all devices.

    Raises:
        TrainingError: The loss or the gradient is not finite; the weights are as before.
    """
    devices = run.devices
    torch.manual_seed(recipe.seed * 1_000_003 + step * devices.count + devices.rank)
    for group in run.optimiser.param_groups:
        # a checkpoint of before there were shares has none
        group["lr"] = recipe.rate_at(step) * group.get("share", 1.0)
    part = devices.part(recipe.batch)
    low, high = (devices.placed(t[part]) for t in sampler.batch(step, recipe.batch))
    objective.begin_step(step)
    upscaled = run.called(low.contiguous(memory_format=torch.channels_last))
    loss = objective(upscaled.float(), low, high)
    run.optimiser.zero_grad(set_to_none=True)
    run.backward(loss)
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip or math.inf)
    found, reached = devices.mean(torch.stack([loss.detach(), norm]))
    if not math.isfinite(found + reached):
        raise _not_finite(run, sampler, recipe, step, objective)
    run.update()
    return found


def _not_finite(
    run: Prepared, sampler: Patches, recipe: Recipe, step: int, objective: Objective
) -> TrainingError:
    low, high = (run.devices.placed(t) for t in sampler.batch(step, recipe.batch))
    low = low.contiguous(memory_format=torch.channels_last)
    where = first_fault(run.network, low, high, objective, step, run.devices.autocast())
    pictures = listed(sampler.names_of(step, recipe.batch))
    return TrainingError(
        f"step {step + 1} gave no finite loss or gradient: {where}; its patches were of {pictures}",
        "the last checkpoint is kept, and the same command goes on from it: try a lower --rate, or"
        " clip in the recipe",
    )


def channels_last(network: nn.Module) -> None:
    """Lay 2-D convolutions out as CPUs like them; a HAN has a 3-D one, which stays."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def average_weights(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average towards the network's weights; buffers are copied."""
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)
