"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321.
Of a weight, the gradient G is seen as a matrix, one row per output channel. The averages of GGᵀ
and GᵀG have slowly changing eigenvectors Q_L and Q_R; Adam's second moment is kept of Q_LᵀGQ_R,
where the entries are nearly uncorrelated. A super-resolution network of convolutions is small
and ill-conditioned, so that the products cost a few per cent of a step and save most of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Soap(torch.optim.Optimizer):
    """Adam in a rotated space for weights of two and more dimensions, plain Adam for the others.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; about three times that of Adam does well.
        betas: Averaging of the gradient, and of its square and products.
        every: Steps between two refreshes of the eigenvectors.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        every: int = 10,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "every": every, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("SOAP takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _move(parameter, parameter.grad, self.state[parameter], group)


def _move(parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """One step of one parameter."""
    slow, fast = group["betas"]
    g = grad.reshape(len(grad), -1) if grad.ndim > 1 else grad
    if not state:
        state.update(step=0, mean=torch.zeros_like(g), square=torch.zeros_like(g))
        if g.ndim == 2:
            state.update(left=g @ g.T, right=g.T @ g)
            state.update(rows=_eigenvectors(state["left"]), columns=_eigenvectors(state["right"]))
    elif g.ndim == 2:
        state["left"].lerp_(g @ g.T, 1 - fast)
        state["right"].lerp_(g.T @ g, 1 - fast)
    state["step"] += 1
    state["mean"].lerp_(g, 1 - slow)
    rotated = state["rows"].T @ g @ state["columns"] if g.ndim == 2 else g
    state["square"].lerp_(rotated.square(), 1 - fast)
    mean = state["mean"] / (1 - slow ** state["step"])
    spread = (state["square"] / (1 - fast ** state["step"])).sqrt_().add_(group["eps"])
    if g.ndim == 2:
        move = state["rows"] @ (state["rows"].T @ mean @ state["columns"] / spread)
        move = move @ state["columns"].T
    else:
        move = mean / spread
    parameter.sub_(move.reshape(parameter.shape), alpha=group["lr"])
    if g.ndim == 2 and state["step"] % group["every"] == 0:
        # one step of subspace iteration follows eigenvectors that turn slowly
        state["rows"] = torch.linalg.qr(state["left"] @ state["rows"])[0]
        state["columns"] = torch.linalg.qr(state["right"] @ state["columns"])[0]


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """As columns, that of the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1].flip(1)
    return vectors
