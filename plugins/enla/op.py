"""``torch.ops.srdeploy.enla``: reference, gradients and shapes; the kernels on CUDA tensors.

The reference goes over the pixels in parts, so that it never holds φ of all of them.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..torch_ops import accurate, check_tensors, in_full_precision
from .contract import EnlaShape, check

PIXELS_AT_ONCE = 1 << 14
"""Pixels whose features are held at a time."""


@torch.library.custom_op("srdeploy::enla", mutates_args=())
@in_full_precision
def enla(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float) -> Tensor:
    """Attention over all pixels in linear time: φ(q)·Σφ(k)vᵀ / φ(q)·Σφ(k).

    φ(x) = exp(Fx - |x|²/2) + ε are positive random features of exp(q·k); their factor 1/√m
    stands above and below the line and is left out. Source: arXiv:2201.03794, equations 5
    to 8; arXiv:2009.14794, lemma 1.

    Args:
        q: Queries, N×c×H×W.
        k: Keys, likewise.
        v: Values, N×C×H×W.
        projection: F, m×c.
        eps: ε.

    Returns:
        N×C×H×W of the type of ``q``; features and sums are float32, of float64 float64.

    Raises:
        PluginError: An argument is out of range; it is named.
    """
    shape = _check(q, k, v, projection, eps)
    if q.is_cuda and importlib.util.find_spec("triton"):
        from .launch import launch

        return launch(q, k, v, projection, eps, shape)
    f = accurate(projection)
    queries, keys, values = (t.flatten(2) for t in (q, k, v))
    context, total = _context(keys, values, f, eps)
    out = values.new_empty(values.shape)  # dense, as its fake says
    for part in _parts(shape.pixels):
        features = _features(f, queries[..., part], eps)
        out[..., part] = (context @ features / (total @ features)).to(out.dtype)
    return out.reshape(v.shape)


@enla.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float) -> Tensor:
    _check(q, k, v, projection, eps)
    return v.new_empty(v.shape)


@torch.library.custom_op("srdeploy::enla_backward", mutates_args=())
@in_full_precision
def enla_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of :func:`enla` for q, k, v and F; the features are computed again."""
    shape = _check(q, k, v, projection, eps)
    f = accurate(projection)
    queries, keys, values, above = (t.flatten(2) for t in (q, k, v, grad))
    context, total = _context(keys, values, f, eps)
    to_q, to_k, to_v = (t.new_empty(t.shape) for t in (queries, keys, values))
    to_context, to_total = torch.zeros_like(context), torch.zeros_like(total)
    to_f = f.new_zeros(f.shape)
    for part in _parts(shape.pixels):
        x = accurate(queries[..., part])
        features = _features(f, x, eps)
        normaliser = total @ features
        by_sum = accurate(above[..., part]) / normaliser
        by_normaliser = -(by_sum * (context @ features / normaliser)).sum(1, keepdim=True)
        to_context += by_sum @ features.transpose(1, 2)
        to_total += by_normaliser @ features.transpose(1, 2)
        by_feature = context.transpose(1, 2) @ by_sum + total.transpose(1, 2) @ by_normaliser
        to_q[..., part] = _through_features(f, x, features - eps, by_feature, to_f).to(q.dtype)
    for part in _parts(shape.pixels):
        x = accurate(keys[..., part])
        features = _features(f, x, eps)
        to_v[..., part] = (to_context @ features).to(v.dtype)
        by_feature = to_context.transpose(1, 2) @ accurate(values[..., part])
        by_feature += to_total.transpose(1, 2)
        to_k[..., part] = _through_features(f, x, features - eps, by_feature, to_f).to(k.dtype)
    return (
        to_q.reshape(q.shape),
        to_k.reshape(k.shape),
        to_v.reshape(v.shape),
        to_f.to(projection.dtype),
    )


@enla_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like_q, like_k, like_v = (t.new_empty(t.shape) for t in (q, k, v))
    return like_q, like_k, like_v, projection.new_empty(projection.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.eps = inputs[4]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*enla_backward(grad, *ctx.saved_tensors, ctx.eps), None)


enla.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.srdeploy.enla)
def _(q: Any, k: Any, v: Any, projection: Any, eps: float, **_: Any) -> int:
    return 2 * check(q, k, v, projection, eps).macs


def _check(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, eps: float) -> EnlaShape:
    tensors = {"q": q, "k": k, "v": v, "projection": projection}
    check_tensors("enla", tensors)
    return check(q.shape, k.shape, v.shape, projection.shape, eps)


def _parts(pixels: int) -> list[slice]:
    return [slice(i, i + PIXELS_AT_ONCE) for i in range(0, pixels, PIXELS_AT_ONCE)]


def _features(f: Tensor, x: Tensor, eps: float) -> Tensor:
    """φ without its constant factor, N×c×pixels to N×m×pixels."""
    x = accurate(x)
    return (f @ x - x.square().sum(1, keepdim=True) / 2).exp() + eps


def _context(keys: Tensor, values: Tensor, f: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Sums over all pixels: of v·φ(k)ᵀ, N×C×m, and of φ(k)ᵀ, N×1×m."""
    n, channels, pixels = values.shape
    context = f.new_zeros(n, channels, f.shape[0])
    total = f.new_zeros(n, 1, f.shape[0])
    for part in _parts(pixels):
        features = _features(f, keys[..., part], eps).transpose(1, 2)
        context += accurate(values[..., part]) @ features
        total += features.sum(1, keepdim=True)
    return context, total


def _through_features(
    f: Tensor, x: Tensor, exponentials: Tensor, by_feature: Tensor, to_f: Tensor
) -> Tensor:
    """Gradient for x, N×c×pixels, of what φ(x) has the gradient ``by_feature``; adds that of F."""
    by_exponent = by_feature * exponentials
    to_f += (by_exponent @ x.transpose(1, 2)).sum(0)
    return f.T @ by_exponent - x * by_exponent.sum(1, keepdim=True)
