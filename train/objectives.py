"""What a training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .recipe import Recipe

Measure = Callable[[Tensor, Tensor], Tensor]
"""Takes two batches of pictures, N×3×sH×sW; gives how far they are apart, a scalar."""


class Objective(Protocol):
    """What the loop makes small. All that it does is a pure function of the step."""

    def begin_step(self, step: int) -> None:
        """Get ready for the forward pass of ``step``, which counts from 0."""

    def __call__(self, upscaled: Tensor, low: Tensor, high: Tensor, /) -> Tensor:
        """The scalar loss of what the network made (N×3×sH×sW) of LR, which should be HR."""


class AgainstTruth:
    """The distance from HR.

    Args:
        measure: Of the distance.
    """

    def __init__(self, measure: Measure = F.l1_loss) -> None:
        self._measure = measure

    def begin_step(self, step: int) -> None:
        """Nothing changes from step to step."""

    def __call__(self, upscaled: Tensor, _: Tensor, high: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return self._measure(upscaled, high)


class Distillation:
    """The distance from what a teacher makes of the same LR, beside that from HR.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.

    Args:
        teacher: A network of the same scale, on the device of the student.
        share: Of the loss that is taken against it, 0 to 1.
        truth: The other part of the loss.
        measure: Of the distance from the teacher.
    """

    def __init__(
        self, teacher: nn.Module, share: float, truth: Objective, measure: Measure = F.l1_loss
    ) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._share, self._truth, self._measure = share, truth, measure

    def begin_step(self, step: int) -> None:
        """See :class:`Objective`."""
        self._truth.begin_step(step)

    def __call__(self, upscaled: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """See :class:`Objective`."""
        if not self._share:
            return self._truth(upscaled, low, high)
        with torch.no_grad():
            wanted = self._teacher(low)
        loss = self._share * self._measure(upscaled, wanted)
        if self._share == 1:
            return loss
        return (1 - self._share) * self._truth(upscaled, low, high) + loss


def _contrastive(network: nn.Module, recipe: Recipe) -> Objective:
    from .contrastive import ContrastiveLoss

    assert recipe.contrastive is not None  # as the recipe checks
    loss: Objective = ContrastiveLoss(network, recipe.contrastive, recipe.seed)
    return loss


LOSSES: dict[str, Callable[[nn.Module, Recipe], Objective]] = {
    "l1": lambda _network, _recipe: AgainstTruth(),
    "mse": lambda _network, _recipe: AgainstTruth(F.mse_loss),
    "contrastive": _contrastive,
}
"""``Recipe.loss`` to what makes it of a network and the recipe; ``recipe.LOSSES`` has the names."""


def objective_of(recipe: Recipe, network: nn.Module, teacher: nn.Module | None = None) -> Objective:
    """The objective of a recipe.

    Args:
        recipe: Names the loss.
        network: To be trained; a loss may listen to its layers.
        teacher: Network whose outputs are the target for ``recipe.teacher_share`` of the loss.
    """
    truth = LOSSES[recipe.loss](network, recipe)
    return truth if teacher is None else Distillation(teacher, recipe.teacher_share, truth)
