"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", arXiv:2409.11321.
Of a weight, the gradient G is seen as a matrix, one row per output channel. The averages of GGᵀ
and GᵀG have slowly changing eigenvectors Q_L and Q_R; Adam's second moment is kept of Q_LᵀGQ_R,
where the entries are nearly uncorrelated. A super-resolution network of convolutions is small
and ill-conditioned, so that the products cost a few per cent of a step and save most of the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
        largest: A side of a weight that is longer than this keeps its own axes, as the cost of
            the eigenvectors grows with the cube.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        every: int = 10,
        largest: int = 1024,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "every": every, "largest": largest, "eps": eps}
        super().__init__(params, defaults)

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
    state["step"] += 1
    for side, product in _products(g, group["largest"]):
        if state["step"] == 1:
            state[side], state[f"{side}_basis"] = product, _eigenvectors(product)
        else:
            state[side].lerp_(product, 1 - fast)
    rows, columns = state.get("rows_basis"), state.get("columns_basis")
    state["mean"].lerp_(g, 1 - slow)
    state["square"].lerp_(_turned(g, rows, columns).square(), 1 - fast)
    mean = state["mean"] / (1 - slow ** state["step"])
    spread = (state["square"] / (1 - fast ** state["step"])).sqrt_().add_(group["eps"])
    move = _turned_back(_turned(mean, rows, columns) / spread, rows, columns)
    parameter.sub_(move.reshape(parameter.shape), alpha=group["lr"])
    if state["step"] % group["every"] == 0:
        for side in ("rows", "columns"):
            if side in state:  # one step of subspace iteration follows a basis that turns slowly
                basis = state[side] @ state[f"{side}_basis"]
                state[f"{side}_basis"] = torch.linalg.qr(basis)[0]


def _products(g: Tensor, largest: int) -> Iterator[tuple[str, Tensor]]:
    """GGᵀ and GᵀG of a matrix, those of its sides that are short enough."""
    if g.ndim == 2 and g.shape[0] <= largest:
        yield "rows", g @ g.T
    if g.ndim == 2 and g.shape[1] <= largest:
        yield "columns", g.T @ g


def _turned(g: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Q_LᵀGQ_R; a side without a basis keeps its axes."""
    g = g if rows is None else rows.T @ g
    return g if columns is None else g @ columns


def _turned_back(g: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    g = g if rows is None else rows @ g
    return g if columns is None else g @ columns.T


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """As columns, that of the largest eigenvalue first."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1].flip(1)
    return vectors
