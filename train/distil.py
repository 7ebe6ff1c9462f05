"""Recovery of an int8 network: a short training towards what the float network gives.

The student computes as the int8 graph will; the float network is its teacher. Against the
teacher the noise of a picture's details falls out of the loss, so that a few hundred steps at a
low rate do. Source: Hinton et al., "Distilling the Knowledge in a Neural Network",
arXiv:1503.02531; for quantised networks Mishra and Marr, arXiv:1711.05852.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import TrainingError
from ..models.weights.checkpoint import network_from_arrays
from ..spec import ModelSpec
from .ahead import Patches
from .depthwise import speed_up
from .devices import this_device
from .loop import RateShare, train
from .objectives import AgainstTruth, Distillation
from .quantised import ActivationGrid, grid_parameters, plain_state, scale_inputs
from .recipe import Recipe
from .validation import Pair, evaluate

RECOVERY = Recipe(
    steps=200,
    batch=6,
    patch=40,
    rate=2e-5,
    warmup=10,
    decay=100,
    ema=0.98,
    validate_every=50,
)
"""Six minutes for VapSR-S on one CPU core. A repaired network loses by 400 steps at a rate of
1e-4 (−0.051 to −0.065 dB on tuning windows); at 5e-4 any student leaves its teacher."""

# VapSR-S with 99 % of its MACs in int8, 200 steps, drift on Set5 and Set14 against −0.153 and
# −0.105 before: 0 −0.096 −0.079, 0.1 −0.087 −0.074 dB.
TRUTH = 0.1
"""Share of the loss that is taken against HR."""

# Of the rate of the weights: steps are learned as logarithms.
_GRID_SHARE = 30.0

# Of [0, 1], between the networks of a graph before and after equalisation.
_SAME = 1e-3

# Quality is PSNR on Y, and the eye sees noise of luma first; colour must not drift either.
_LUMA = (65.481 / 219, 128.553 / 219, 24.966 / 219)
_COLOUR_SHARE = 0.1


def _squared_error(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared error of luma (ITU-R BT.601) and, a tenth of it, of RGB; N×3×H×W."""
    apart = one - other
    luma = (apart * apart.new_tensor(_LUMA).reshape(3, 1, 1)).sum(1)
    return luma.square().mean() + _COLOUR_SHARE * apart.square().mean()


@dataclass(frozen=True)
class Tuned:
    """What a recovery found.

    Attributes:
        tensors: Float weights of the student, averaged, by their names in the checkpoint.
        bounds: Range (low, high) of each activation tensor.
        psnr: Of the student by validation picture, and their ``mean``, dB.
    """

    tensors: dict[str, NDArray[np.float32]]
    bounds: dict[str, tuple[float, float]]
    psnr: dict[str, float]


def rebuild(
    spec: ModelSpec,
    equalised: Mapping[str, NDArray[np.float32]],
    original: Mapping[str, NDArray[np.float32]],
    scales: Mapping[str, NDArray[np.floating]],
) -> tuple[nn.Module, nn.Module]:
    """Student and teacher, still equal and both in float.

    Args:
        spec: Of the network.
        equalised: Tensors of the graph that will be quantised.
        original: Tensors of the graph as it was exported.
        scales: Module to the constant by which the equalised graph multiplies its input.

    Raises:
        CheckpointError: A graph does not hold the network's tensors.
        TrainingError: The two compute different things.
    """
    student, _ = network_from_arrays(spec, equalised)
    teacher, _ = network_from_arrays(spec, original)
    speed_up(student)
    speed_up(teacher)
    scale_inputs(student, scales)
    apart = _distance(student, teacher, spec.minimum_size + 16)
    if not apart <= _SAME:
        raise TrainingError(
            f"the calibrated graph of {spec.variant} differs by {apart:.3g} from its network",
            "fine-tuning follows equalisation into weights and into factors before layers only",
        )
    return student, teacher


@torch.no_grad()
def start_from(student: nn.Module, tensors: Mapping[str, NDArray[np.floating]]) -> None:
    """Give a student other weights, by their names in the checkpoint; others stay."""
    for name, tensor in plain_state(dict(student.named_parameters())).items():
        if name in tensors:
            tensor.copy_(torch.from_numpy(tensors[name].copy()).reshape(tensor.shape))


@torch.no_grad()
def _distance(one: nn.Module, other: nn.Module, size: int) -> float:
    """Largest absolute difference of two networks on a picture of noise, ``size`` pixels high."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, size, size + 8, generator=generator)
    return float((one(x) - other(x)).abs().max())


def fine_tune(
    student: nn.Module,
    teacher: nn.Module,
    grids: dict[str, ActivationGrid],
    sampler: Patches,
    recipe: Recipe,
    checkpoint: Path,
    validation: list[Pair],
    report: Callable[[str], None],
) -> Tuned:
    """Train ``student`` towards ``teacher``; goes on from ``checkpoint`` if it exists.

    Args:
        student: Quantised by :func:`~srdeploy.train.quantised.quantise_network`; it ends with
            the averaged weights.
        teacher: The float network, on the same device.
        grids: Activation tensor to the student's grid.
        sampler: Training patches.
        recipe: Length, rates and sizes.
        checkpoint: File to write, replaced atomically.
        validation: Name, LR and HR of each validation picture, H×W×3 uint8.
        report: Takes a line of progress.

    Raises:
        TrainingError: The loss is no longer finite; the last checkpoint is kept.
    """
    student.requires_grad_(True)
    truth_part = AgainstTruth(_squared_error)
    objective = Distillation(teacher, 1 - TRUTH, truth_part, _squared_error)
    start = [evaluate(network, validation, sampler.scale)["mean"] for network in (teacher, student)]
    report("PSNR in float {:.3f} dB, in int8 at the start {:.3f} dB".format(*start))
    learned = RateShare(grid_parameters(student), _GRID_SHARE)
    psnr = train(
        student,
        sampler,
        recipe,
        checkpoint,
        validation,
        report,
        objective=objective,
        apart=learned,
        devices=this_device(recipe.precision, "cpu"),  # the fast depthwise passes are a CPU's
    )
    tensors = {
        name: np.ascontiguousarray(tensor.numpy())
        for name, tensor in plain_state(student.state_dict()).items()
        if tensor.dtype == torch.float32
    }
    return Tuned(tensors, {name: grid.bounds() for name, grid in grids.items()}, psnr)
