"""A PyTorch network that computes as its int8 graph will, so that training sees the rounding.

The arithmetic is that of Q/DQ nodes with zero point 0: an activation is divided by the step of
its tensor, rounded to even, clamped to ±127 codes and multiplied back; a weight likewise with
one step per output channel, which follows from its largest magnitude. Gradients pass straight
through the rounding; those of the activations' steps make the grids learnable.

Sources: Bengio et al., arXiv:1308.3432 (straight-through gradients); Esser et al., "Learned
Step Size Quantization", arXiv:1902.08153, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import TrainingError

LEVELS = 127
"""Codes on each side of zero, as in the exported graph."""

# Scales keep 8 bits, as in the exported graph, and are no smaller than this.
_SCALE_STEPS = 256
_LEAST_SCALE = 2.0**-60

_GRID = "int8_grid"
_INPUT_SCALE = "int8_input_scale"
_QUANTISABLE = (nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class FakeQuant:
    """One layer in int8.

    Attributes:
        activation: Name of the tensor that it reads; layers that read one tensor share its grid.
        step: Distance of two codes of that tensor.
    """

    activation: str
    step: float


class ActivationGrid(nn.Module):
    """The codes of one activation tensor; its step is a parameter.

    Args:
        step: To start from, above 0.
    """

    def __init__(self, step: float) -> None:
        super().__init__()
        # A logarithm keeps the step positive and makes a learning rate a relative one.
        self.log_step = nn.Parameter(torch.tensor(step, dtype=torch.float32).log())

    def step(self) -> Tensor:
        """The step as the graph will hold it, in 8 bits; a scalar with a gradient."""
        step = self.log_step.exp()
        return step + (_held(step.detach()) - step).detach()

    def forward(self, x: Tensor) -> Tensor:
        """Round ``x``, of any shape."""
        rounded: Tensor = _Rounded.apply(x, self.step())  # type: ignore[no-untyped-call]
        return rounded

    def bounds(self) -> tuple[float, float]:
        """The range, (low, high), from which the graph's writer makes this very step."""
        reach = LEVELS * float(self.step().detach())
        return -reach, reach


class _Rounded(torch.autograd.Function):
    """y = clamp(round(x / s), ±127) · s; for x straight through inside, for s that of LSQ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(x, step)
        return (x / step).round_().clamp_(-LEVELS, LEVELS).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        x, step = ctx.saved_tensors
        (grad,) = grads
        scaled = x / step
        inside = (scaled.abs() <= LEVELS).to(grad.dtype)
        grad_step = None
        if ctx.needs_input_grad[1]:
            codes = scaled.round().clamp_(-LEVELS, LEVELS)
            grad_step = codes.addcmul_(scaled, inside, value=-1).mul_(grad).sum()
        return grad * inside, grad_step


class _WeightGrid(nn.Module):
    """Rounds a weight, its output channels along the first axis; gradients pass straight."""

    def forward(self, weight: Tensor) -> Tensor:
        values = weight.detach()
        largest = values.abs().flatten(1).amax(1)
        reached = torch.where(largest == 0, torch.ones_like(largest), largest)
        scales = _held(reached.double() / LEVELS).reshape(-1, *[1] * (weight.ndim - 1))
        rounded = (values / scales).round_().clamp_(-LEVELS, LEVELS).mul_(scales)
        return weight + (rounded - values)


def _held(scales: Tensor) -> Tensor:
    """Scales as the graph holds them: rounded up to 8 bits, float32."""
    fraction, exponent = torch.frexp(scales.double().clamp(min=_LEAST_SCALE))
    return torch.ldexp((fraction * _SCALE_STEPS).ceil() / _SCALE_STEPS, exponent).float()


def scale_inputs(network: nn.Module, scales: Mapping[str, NDArray[np.floating]]) -> None:
    """Multiply what the named layers read, in place: nodes that an equalised graph has besides.

    Args:
        network: Rebuilt from the graph.
        scales: Module name to a constant that broadcasts with the layer's input.

    Raises:
        TrainingError: A name is no Conv2d, Conv3d or Linear.
    """
    for name, scale in scales.items():
        module = _layer(network, name)
        constant = torch.from_numpy(np.array(scale, np.float32))
        module.register_buffer(_INPUT_SCALE, constant, persistent=False)
        module.register_forward_pre_hook(_scale_input)


def quantise_network(
    network: nn.Module, layers: Mapping[str, FakeQuant]
) -> dict[str, ActivationGrid]:
    """Make the named layers of ``network`` compute in int8, in place.

    Args:
        network: Its weights are those of the graph with equalised channels; what
            :func:`scale_inputs` and ``depthwise.speed_up`` change comes before.
        layers: Module name to its grid.

    Returns:
        The grid of each activation tensor.

    Raises:
        TrainingError: A name is no Conv2d, Conv3d or Linear, or a step is not above 0.
    """
    grids: dict[str, ActivationGrid] = {}
    for name, layer in layers.items():
        module = _layer(network, name)
        if not 0 < layer.step < float("inf"):
            raise TrainingError(
                f"the step of '{layer.activation}' is {layer.step}", "calibrate again"
            )
        grid = grids.setdefault(layer.activation, ActivationGrid(layer.step))
        module.register_module(_GRID, grid)
        module.register_forward_pre_hook(_round_input)
        parametrize.register_parametrization(module, "weight", _WeightGrid())
    return grids


def _layer(network: nn.Module, name: str) -> nn.Module:
    module = dict(network.named_modules()).get(name)
    if not isinstance(module, _QUANTISABLE):
        raise TrainingError(
            f"the network has no convolution or linear layer '{name}'",
            "the graph must be the exported one of this network",
        )
    return module


# Hooks look up what they need in the module, so that a copy of the network uses its own.
def _scale_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0] * module.get_buffer(_INPUT_SCALE), *inputs[1:])


def _round_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.get_submodule(_GRID)(inputs[0]), *inputs[1:])


def grid_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The steps that a quantised network learns, each once."""
    return [m.log_step for m in network.modules() if isinstance(m, ActivationGrid)]


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a quantised network under the names of the network that it was made of."""
    return {
        name.replace(".parametrizations.weight.original", ".weight"): tensor
        for name, tensor in state.items()
        if f".{_GRID}." not in name
    }
