"""Faster stride-1 depthwise convolutions on CPUs: the backward pass, and dilated ones throughout.

PyTorch's CPU backward of a depthwise convolution costs 10 to 60 times its forward, which
made it two thirds of a VapSR training step. Both gradients have cheap forms: that of the
input is the depthwise convolution of the output's gradient with the kernel turned by 180°,
and that of each weight is the inner product of the output's gradient with one shifted
window of the input, which a compiled loop over all k·k shifts reads once from the cache.

A dilated one costs PyTorch 20 times the same without dilation. Of dilation d it is d·d plain
ones: each pixel only meets those whose distance is a multiple of d in both directions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _weight_gradient(padded: Tensor, grad: Tensor, kernel: int, dilation: int) -> Tensor:
    """k·k×C inner products; ``padded`` is N×(H+2p)×(W+2p)×C, ``grad`` N×H×W×C."""
    height, width = grad.shape[1:3]
    shifts = [
        (padded[:, i : i + height, j : j + width] * grad).sum((0, 1, 2), dtype=torch.float32)
        for i in range(0, kernel * dilation, dilation)
        for j in range(0, kernel * dilation, dilation)
    ]
    return torch.stack(shifts)


@lru_cache(maxsize=1)
def _compiled() -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """The compiled form; made when first needed, as loading the compiler takes seconds."""
    compiled: Callable[[Tensor, Tensor, int, int], Tensor] = torch.compile(
        _weight_gradient, dynamic=False
    )
    return compiled


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Depthwise convolution that keeps H and W; ``x`` is N×C×H×W, ``weight`` C×1×k×k."""
    n, channels, height, width = x.shape
    padding = weight.shape[-1] // 2
    if dilation == 1:
        return F.conv2d(x, weight, bias, padding=padding, groups=channels)
    # More zeros below and on the right are what the padding puts there anyway.
    padded = F.pad(x, (0, -width % dilation, 0, -height % dilation))
    h, w = padded.shape[2] // dilation, padded.shape[3] // dilation
    phases = padded.reshape(n, channels, h, dilation, w, dilation).permute(0, 3, 5, 1, 2, 4)
    apart = phases.reshape(-1, channels, h, w).contiguous(memory_format=torch.channels_last)
    done = F.conv2d(apart, weight, bias, padding=padding, groups=channels)
    together = done.reshape(n, dilation, dilation, channels, h, w).permute(0, 3, 4, 1, 5, 2)
    y = together.reshape(n, channels, h * dilation, w * dilation)[..., :height, :width]
    return y.contiguous(memory_format=torch.channels_last)


class _Depthwise(torch.autograd.Function):
    """y = x ⋆ w per channel, padding (k-1)/2 · dilation, so that H and W stay."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.has_bias = dilation, bias is not None
        return _convolved(x, weight, bias, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        kernel, d = weight.shape[-1], ctx.dilation
        p = kernel // 2 * d
        turned = weight.flip(2, 3)
        grad_x = _convolved(grad, turned, None, d)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, p, p, p, p))
        products = _compiled()(padded, grad.permute(0, 2, 3, 1), kernel, d)
        grad_w = products.T.reshape(weight.shape).to(weight.dtype)
        grad_b = grad.sum((0, 2, 3)).to(weight.dtype) if ctx.has_bias else None
        return grad_x, grad_w, grad_b, None


class FastDepthwise(nn.Conv2d):
    """A depthwise ``Conv2d`` with the cheap forms of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, N×C×H×W."""
        if not torch.is_grad_enabled():
            return _convolved(x, self.weight, self.bias, self.dilation[0])
        if not x.requires_grad:
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):  # a Function is not autocast by itself
            kind = torch.get_autocast_dtype("cpu")
            x, weight = x.to(kind), weight.to(kind)
            bias = bias.to(kind) if bias is not None else None
        y: Tensor = _Depthwise.apply(x, weight, bias, self.dilation[0])  # type: ignore[no-untyped-call]
        return y


def speed_up(network: nn.Module) -> int:
    """Give every eligible depthwise convolution of ``network`` the cheap backward, in place.

    Returns:
        How many were changed: 0 on a GPU or where no C++ compiler is here, as the loop over
        the shifts is compiled when it first runs.
    """
    if shutil.which("c++") is None or next(network.parameters()).device.type != "cpu":
        return 0
    changed = 0
    for module in network.modules():
        if type(module) is nn.Conv2d and _eligible(module):
            module.__class__ = FastDepthwise
            changed += 1
    return changed


def _eligible(conv: nn.Conv2d) -> bool:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and conv.dilation == (dilation, dilation)
        and conv.stride == (1, 1)
        and conv.padding == (kernel // 2 * dilation, kernel // 2 * dilation)
        and conv.padding_mode == "zeros"
    )
