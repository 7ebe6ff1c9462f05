"""The training loop: Adam, EMA; warm-up, constant rate, linear decay; exact resume."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import TrainingError
from ..validate.metrics import cut_border, luma, psnr
from .data import PatchSampler


@dataclass(frozen=True)
class Recipe:
    """What a training run does.

    The learning rate rises over ``warmup`` steps, stays, and falls linearly to zero over the
    last ``decay`` steps. A run without an end (``steps`` far away) can therefore be cut off
    at any time by resuming it with a nearer end.

    Attributes:
        steps: Length of the run.
        batch: Patches a step.
        patch: Edge of an LR patch, pixels.
        rate: Learning rate between warm-up and decay.
        warmup: Steps of warm-up.
        decay: Steps of decay at the end.
        ema: Decay of the exponential moving average of the weights.
        clip: Largest norm of the gradient.
        validate_every: Steps between a validation, which also saves.
        bf16: Compute the network in bfloat16 where the machine has it.
    """

    steps: int = 100_000
    batch: int = 16
    patch: int = 48
    rate: float = 1e-3
    warmup: int = 200
    decay: int = 2_000
    ema: float = 0.999
    clip: float = 1.0
    validate_every: int = 500
    bf16: bool = False

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        rising = min(1.0, (step + 1) / max(self.warmup, 1))
        falling = min(1.0, (self.steps - step) / max(self.decay, 1))
        return self.rate * rising * max(falling, 0.0)


Pair = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes what the network made (N×3×sH×sW), LR and HR; gives the scalar to make small."""


def against_truth(upscaled: Tensor, _: Tensor, high: Tensor) -> Tensor:
    """Mean absolute difference from HR."""
    return F.l1_loss(upscaled, high)


@dataclass(frozen=True)
class RateShare:
    """Parameters that learn at a rate of their own: ``share`` times the recipe's."""

    parameters: Sequence[nn.Parameter]
    share: float


def train(
    network: nn.Module,
    sampler: PatchSampler,
    recipe: Recipe,
    checkpoint: Path,
    validation: list[Pair],
    report: Callable[[str], None],
    objective: Objective = against_truth,
    apart: RateShare | None = None,
) -> dict[str, float]:
    """Train ``network`` and keep ``checkpoint`` up to date; goes on from it if it exists.

    Args:
        network: Untrained or pre-trained; its EMA is what the checkpoint offers as
            ``params_ema``.
        sampler: Training patches.
        recipe: Length, rates and sizes.
        checkpoint: File to write, replaced atomically.
        validation: Name, LR and HR of each validation picture, H×W×3 uint8.
        report: Takes a line of progress.
        objective: What is made small.
        apart: Those of the network's parameters that learn at another rate.

    Returns:
        Validation PSNR of the EMA weights by picture, and their ``mean``, in dB.

    Raises:
        TrainingError: The loss is no longer finite; the last checkpoint is kept.
    """
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.Adam(_groups(network, apart), lr=recipe.rate, betas=(0.9, 0.99))
    first = _resume(checkpoint, network, average, optimiser) if checkpoint.exists() else 0
    channels_last(network.train())
    scores: dict[str, float] = {}
    losses: list[float] = []
    started = time.monotonic()
    for step in range(first, recipe.steps):
        losses.append(take_step(network, optimiser, sampler, recipe, step, objective))
        average_weights(average, network, min(recipe.ema, (step + 1) / (step + 10)))
        done = step + 1
        if done % recipe.validate_every == 0 or done == recipe.steps:
            if not math.isfinite(sum(losses)):
                raise TrainingError(
                    f"the loss is not finite between steps {done - len(losses)} and {done}",
                    f"{checkpoint} holds the last good weights; try a lower learning rate",
                )
            scores = evaluate(average, validation, sampler.scale)
            save(checkpoint, network, average, optimiser, done, recipe)
            speed = (done - first) * recipe.batch / (time.monotonic() - started)
            report(
                f"step {done}: loss {np.mean(losses):.5f}, PSNR {scores['mean']:.3f} dB,"
                f" {speed:.1f} patches/s"
            )
            losses = []
    return scores or evaluate(average, validation, sampler.scale)


def _groups(network: nn.Module, apart: RateShare | None) -> list[dict[str, Any]]:
    """The optimiser's groups of parameters, each with its ``share`` of the rate."""
    others = {id(p) for p in apart.parameters} if apart else set()
    groups = [{"params": [p for p in network.parameters() if id(p) not in others], "share": 1.0}]
    if apart:
        groups.append({"params": list(apart.parameters), "share": apart.share})
    return groups


def take_step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    sampler: PatchSampler,
    recipe: Recipe,
    step: int,
    objective: Objective = against_truth,
) -> float:
    """One step of the optimiser at the recipe's rate; returns the loss."""
    for group in optimiser.param_groups:
        # a checkpoint of before there were shares has none
        group["lr"] = recipe.rate_at(step) * group.get("share", 1.0)
    low, high = sampler.batch(step, recipe.batch)
    low = low.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
        upscaled = network(low)
    loss = objective(upscaled.float(), low, high)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
    optimiser.step()
    return float(loss.detach())


def channels_last(network: nn.Module) -> None:
    """Lay 2-D convolutions out as CPUs like them; a HAN has a 3-D one, which stays."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def average_weights(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average towards the network's weights."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), network.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def evaluate(network: nn.Module, validation: list[Pair], scale: int) -> dict[str, float]:
    """PSNR-Y by picture and their ``mean``, in dB, outputs rounded to 8 bits."""
    scores: dict[str, float] = {}
    with torch.inference_mode():
        for name, low, high in validation:
            x = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255.0
            y = network(x)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
            scores[name] = psnr(cut_border(luma(y), scale), cut_border(luma(high), scale))
    scores["mean"] = float(np.mean(list(scores.values()))) if scores else float("nan")
    return scores


def save(
    path: Path,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    recipe: Recipe,
) -> None:
    """Write a checkpoint that :func:`train` goes on from; the old one stays until the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    state: dict[str, Any] = {
        "params": network.state_dict(),
        "params_ema": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "recipe": asdict(recipe),
    }
    try:
        torch.save(state, partial)
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise TrainingError(f"{path} could not be written: {exc}", "is the disk full?") from exc


def _resume(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["params"])
        average.load_state_dict(state["params_ema"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])
    except Exception as exc:  # torch.load raises many kinds for a damaged file
        raise TrainingError(
            f"{path} is not a checkpoint of this training: {exc}",
            "move it away to start anew, or name another --output",
        ) from exc
