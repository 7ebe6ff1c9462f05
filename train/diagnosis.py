"""Finds where a step that gave no finite number went wrong, by taking it once more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .objectives import Objective

MOST_NAMES = 8


def first_fault(
    network: nn.Module,
    low: Tensor,
    high: Tensor,
    objective: Objective,
    step: int,
    precision: AbstractContextManager[Any],
) -> str:
    """Take a step once more and name the first thing that is not finite.

    In this order: a weight, a patch, what a module gives, the loss, the gradient of what a
    module gives (from the last module backwards), the gradient of a weight.

    Args:
        network: As it was before the step; its gradients are thrown away.
        low: LR of the whole batch, N×3×H×W, on the network's device.
        high: HR of it.
        objective: What is made small.
        step: Its number.
        precision: The run's, such as autocast; an unused one.
    """
    for kind, tensors in (("weight", network.named_parameters()), ("buffer", _floats(network))):
        for name, tensor in tensors:
            if not _finite(tensor):
                return f"the {kind} {name} held {_amount(tensor)} already before the step"
    for name, patches in (("LR", low), ("HR", high)):
        if not _finite(patches):
            return f"the {name} patches held {_amount(patches)}"
    network.zero_grad(set_to_none=True)
    found: list[str] = []
    with _watched(network, found):
        objective.begin_step(step)
        with precision:
            upscaled = network(low)
        loss = objective(upscaled.float(), low, high)
        if not found and not _finite(loss):
            found.append(f"the loss was {float(loss.detach())} of a finite output")
        if not found:
            loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        if not found and parameter.grad is not None and not _finite(parameter.grad):
            found.append(f"the gradient of {name} held {_amount(parameter.grad)}")
    network.zero_grad(set_to_none=True)
    return found[0] if found else "it did not happen again when the step was taken once more"


def listed(names: list[str]) -> str:
    """The pictures of a batch, each once, with how many patches it gave."""
    counts = Counter(Path(name).name for name in names)
    shown = [name if n == 1 else f"{name} (×{n})" for name, n in counts.most_common(MOST_NAMES)]
    more = f" and {len(counts) - MOST_NAMES} more" if len(counts) > MOST_NAMES else ""
    return ", ".join(shown) + more


def _floats(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((n, b) for n, b in network.named_buffers() if b.is_floating_point())


@contextmanager
def _watched(network: nn.Module, found: list[str]) -> Iterator[None]:
    """Write down what modules give and get back that is not finite, in the order of computing."""
    names = {module: name or type(network).__name__ for name, module in network.named_modules()}

    def given(module: nn.Module, _: Any, output: Any) -> None:
        what = f"{names[module]} ({type(module).__name__})"
        for tensor in _tensors(output):
            if not _finite(tensor):
                found.append(f"{what} gave {_amount(tensor)} of {tensor.numel()} numbers")
            elif tensor.requires_grad:

                def back(grad: Tensor) -> None:
                    if not _finite(grad):
                        found.append(f"the gradient of what {what} gave held {_amount(grad)}")

                tensor.register_hook(back)  # type: ignore[no-untyped-call]

    hooks = [module.register_forward_hook(given) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(output: Any) -> list[Tensor]:
    members = output if isinstance(output, (tuple, list)) else [output]
    return [m for m in members if isinstance(m, Tensor) and m.is_floating_point()]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def _amount(tensor: Tensor) -> str:
    wrong = tensor.detach()[~torch.isfinite(tensor.detach())]
    nans = int(torch.isnan(wrong).sum())
    return f"{nans} NaN" if nans == wrong.numel() else f"{nans} NaN and {wrong.numel() - nans} inf"
