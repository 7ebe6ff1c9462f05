"""``torch.ops.srdeploy.oca``: reference, gradients and shapes; the kernel on CUDA tensors.

The reference takes the windows straight from the maps, a few at a time, so that its memory
depends on neither the overlap nor the size of the picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..torch_ops import accurate, check_tensors, in_full_precision
from .contract import OcaShape, check

SCORES_AT_ONCE = 1 << 22
"""Scores that are held at a time, in float32 16 MiB; one window's at least."""


def relative_rows(window: int, key_window: int) -> Tensor:
    """Row of the bias table for every query and key, E²×K² int64, some of them negative.

    The published code counts from E - K + 1, which makes some rows negative; they mean rows
    from the table's end, and are part of the checkpoints. Source: arXiv:2205.04437 and the
    buffer ``relative_position_index_OCA`` of its checkpoints.
    """

    def pixels(edge: int) -> Tensor:  # edge²×2
        return torch.cartesian_prod(torch.arange(edge), torch.arange(edge))

    difference = pixels(key_window)[None] - pixels(window)[:, None] + window - key_window + 1
    return difference[..., 0] * (window + key_window - 1) + difference[..., 1]


@torch.library.custom_op("srdeploy::oca", mutates_args=())
@in_full_precision
def oca(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> Tensor:
    """softmax(qkᵀ/√d + bias)·v of each window of queries over the larger window around it.

    Pixels beyond the map are keys and values of zero, which take part in the softmax. A map
    that is not whole windows ends in windows of which a part lies beyond it.

    Args:
        q: Queries, N×H×W×C.
        k: Keys, likewise.
        v: Values, likewise.
        bias: Table of position biases, (E + K - 1)²×heads.
        window: Edge E of the windows of queries, pixels.
        overlap: K - E, by how much the windows of keys are larger, pixels.
        heads: Attention heads; they divide C.

    Returns:
        N×H×W×C of the type of ``q``; sums are in float32, of float64 in float64.

    Raises:
        PluginError: An argument is out of range; it is named.
    """
    shape = _check(q, k, v, bias, window, overlap, heads)
    if q.is_cuda and importlib.util.find_spec("triton"):
        from .launch import launch

        return launch(q, k, v, bias, shape)
    rows = relative_rows(window, shape.key_window).to(bias.device)
    dense = accurate(bias)[rows].permute(2, 0, 1)  # a negative row counts from the end
    q_map, k_map, v_map = (t.reshape(-1, shape.channels) for t in (q, k, v))
    out = torch.empty(q_map.shape, dtype=q.dtype, device=q.device)
    for part in _parts(shape, q.device):
        queries, keys, values = part.load(q_map, k_map, v_map, heads)
        weights = _weights(queries, keys, dense)
        part.queries.store(out, weights @ values)
    return out.reshape(q.shape)


@oca.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> Tensor:
    _check(q, k, v, bias, window, overlap, heads)
    return q.new_empty(q.shape)


@torch.library.custom_op("srdeploy::oca_backward", mutates_args=())
@in_full_precision
def oca_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    window: int,
    overlap: int,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`oca` for q, k, v and the table; the weights are computed again."""
    shape = _check(q, k, v, bias, window, overlap, heads)
    rows = relative_rows(window, shape.key_window).to(bias.device)
    dense = accurate(bias)[rows].permute(2, 0, 1)
    q_map, k_map, v_map, grad_map = (t.reshape(-1, shape.channels) for t in (q, k, v, grad))
    to_q, to_k, to_v = (accurate(t).new_zeros(t.shape) for t in (q_map, k_map, v_map))
    to_dense = torch.zeros_like(dense)
    scale = shape.head_dim**-0.5
    for part in _parts(shape, q.device):
        queries, keys, values = part.load(q_map, k_map, v_map, heads)
        weights = _weights(queries, keys, dense)
        above = part.queries.load(grad_map, heads)
        part.keys.add(to_v, weights.transpose(-2, -1) @ above)
        by_weight = above @ values.transpose(-2, -1)
        # the softmax's Jacobian: diag(p) - p·pᵀ
        mean = (by_weight * weights).sum(-1, keepdim=True)
        by_score = weights * (by_weight - mean)
        part.queries.add(to_q, by_score @ keys * scale)
        part.keys.add(to_k, by_score.transpose(-2, -1) @ queries * scale)
        to_dense += by_score.sum(0)
    to_bias = accurate(bias).new_zeros(bias.shape)
    wrapped = (rows % shape.table_rows).flatten()
    to_bias.index_add_(0, wrapped, to_dense.permute(1, 2, 0).reshape(-1, heads))
    to_q, to_k, to_v = (t.reshape(q.shape).to(q.dtype) for t in (to_q, to_k, to_v))
    return to_q, to_k, to_v, to_bias.to(bias.dtype)


@oca_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    window: int,
    overlap: int,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q_like, k_like, v_like = (q.new_empty(q.shape) for _ in range(3))
    return q_like, k_like, v_like, bias.new_empty(bias.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.sizes = inputs[4:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = oca_backward(grad, *ctx.saved_tensors, *ctx.sizes)
    return (*gradients, None, None, None)


oca.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.srdeploy.oca)
def _(q: Any, k: Any, v: Any, bias: Any, window: int, overlap: int, heads: int, **_: Any) -> int:
    return 2 * check({"q": q, "k": k, "v": v}, bias, window, overlap, heads).macs


def _check(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, window: int, overlap: int, heads: int
) -> OcaShape:
    tensors = {"q": q, "k": k, "v": v, "bias": bias}
    check_tensors("oca", tensors)
    maps = {name: t.shape for name, t in tensors.items() if name != "bias"}
    return check(maps, bias.shape, window, overlap, heads)


def _weights(queries: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Softmax over the keys, windows×heads×E²×K²."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    weights: Tensor = scores.add_(bias).softmax(-1)
    return weights


class _Pixels(NamedTuple):
    """Squares of pixels of a flat (N·H·W)×C map."""

    rows: Tensor
    """Row of the flat map, squares×pixels; of a pixel beyond the map, one that exists."""
    beyond: Tensor | None
    """Whether the pixel lies beyond the map; None where none does."""

    def load(self, flat: Tensor, heads: int) -> Tensor:
        """squares×heads×pixels×d, zeros beyond the map."""
        squares, pixels = self.rows.shape
        x = accurate(flat.index_select(0, self.rows.flatten()))
        if self.beyond is not None:
            x[self.beyond.flatten()] = 0
        return x.reshape(squares, pixels, heads, -1).transpose(1, 2)

    def store(self, flat: Tensor, x: Tensor) -> None:
        """Put squares×heads×pixels×d in its place, but for what lies beyond the map."""
        index, x = self._on_the_map(x)
        flat.index_copy_(0, index, x.to(flat.dtype))

    def add(self, flat: Tensor, x: Tensor) -> None:
        """Add it there."""
        index, x = self._on_the_map(x)
        flat.index_add_(0, index, x)

    def _on_the_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.transpose(1, 2).reshape(self.rows.numel(), -1)
        if self.beyond is None:
            return self.rows.flatten(), x
        inside = ~self.beyond.flatten()
        return self.rows.flatten()[inside], x[inside]


class _Part(NamedTuple):
    """Some windows and their surroundings."""

    queries: _Pixels
    keys: _Pixels

    def load(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, windows×heads×pixels×d, of flat (N·H·W)×C maps."""
        return self.queries.load(q, heads), self.keys.load(k, heads), self.keys.load(v, heads)


def _parts(shape: OcaShape, device: torch.device) -> Iterator[_Part]:
    """All windows, as many at a time as :data:`SCORES_AT_ONCE` allows."""
    scores = shape.heads * shape.window**2 * shape.key_window**2
    at_once = max(SCORES_AT_ONCE // scores, 1)
    total = shape.batch * shape.windows_down * shape.windows_across
    for first in range(0, total, at_once):
        windows = torch.arange(first, min(first + at_once, total), device=device)
        yield _Part(
            _squares(shape, windows, shape.window, 0),
            _squares(shape, windows, shape.key_window, shape.margin),
        )


def _squares(shape: OcaShape, windows: Tensor, edge: int, margin: int) -> _Pixels:
    """Pixels of squares of ``edge`` that begin ``margin`` above and left of the windows."""
    height, width = shape.height, shape.width
    frame, place = (
        windows // (shape.windows_down * shape.windows_across),
        windows % (shape.windows_down * shape.windows_across),
    )
    along = torch.arange(edge, device=windows.device) - margin
    y = (place // shape.windows_across * shape.window)[:, None] + along
    x = (place % shape.windows_across * shape.window)[:, None] + along
    beyond = ((y < 0) | (y >= height))[:, :, None] | ((x < 0) | (x >= width))[:, None, :]
    row = frame[:, None] * height + y.clamp(0, height - 1)
    index = row[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    return _Pixels(index.flatten(1), beyond.flatten(1) if bool(beyond.any()) else None)
