"""Faster stride-1 depthwise convolutions on CPUs, forward and backward.

PyTorch's CPU backward of a depthwise convolution costs 10 to 60 times its forward, and a
dilated one 20 times the same without dilation, which makes them four fifths of a VapSR
training step. ``depthwise.cpp`` computes all three passes: the forward, the gradient of the
input, which is the depthwise convolution of the output's gradient with the kernel turned by
180°, and that of each weight, the inner product of the output's gradient with one shifted
window of the input. It is compiled for the machine when it is first needed, in a second or two.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LANES = 8
"""The number of channels must be a multiple of this."""

KERNELS = (3, 5, 7)
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_COMPILE = ("c++", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "dilation")
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The compiled passes; None without a C++ compiler that can build them."""
    if shutil.which(_COMPILE[0]) is None:
        return None
    source = Path(__file__).with_suffix(".cpp")
    # Compiled anew for each process: a file that is kept might meet another processor.
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "depthwise.so"
        command = [*_COMPILE, str(source), "-o", str(built)]
        if subprocess.run(command, capture_output=True, check=False).returncode:  # noqa: S603
            return None
        return ctypes.CDLL(str(built))


def _call(name: str, of: Tensor, kernel: int, dilation: int, *pointers: Tensor | None) -> None:
    """Run a pass over ``of``, N×C×H×W in channels_last; tensors are passed by their address."""
    n, c, h, w = of.shape
    library = _library()
    assert library is not None  # speed_up asked
    library[f"{name}_{kernel}_{_NAMES[of.dtype]}"](
        *(ctypes.c_void_p(None if each is None else each.data_ptr()) for each in pointers),
        ctypes.byref(_Shape(n, h, w, c, dilation)),
        torch.get_num_threads(),
    )


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Depthwise convolution that keeps H and W; ``x`` is N×C×H×W, ``weight`` C×1×k×k."""
    x = x.contiguous(memory_format=torch.channels_last)
    kernel = weight.shape[-1]
    shifts = weight.float().reshape(-1, kernel * kernel).T.contiguous()
    start = None if bias is None else bias.float().contiguous()
    y = torch.empty_like(x)
    _call("forward", x, kernel, dilation, x, shifts, start, y)
    return y


def _weight_gradient(x: Tensor, grad: Tensor, kernel: int, dilation: int) -> Tensor:
    """C×1×k×k inner products of ``grad`` and the windows of ``x``, both N×C×H×W; float32."""
    x, grad = (each.contiguous(memory_format=torch.channels_last) for each in (x, grad))
    products = x.new_empty((x.shape[0], kernel * kernel, x.shape[1]), dtype=torch.float32)
    _call("gradient", x, kernel, dilation, x, grad, products)
    return products.sum(0).T.reshape(-1, 1, kernel, kernel)


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
        (grad,) = grads
        grad_x = _convolved(grad, weight.flip(2, 3), None, ctx.dilation)
        grad_w = _weight_gradient(x, grad, weight.shape[-1], ctx.dilation).to(weight.dtype)
        grad_b = grad.sum((0, 2, 3), dtype=weight.dtype) if ctx.has_bias else None
        return grad_x, grad_w, grad_b, None


class FastDepthwise(nn.Conv2d):
    """A depthwise ``Conv2d`` with the cheap forms of its passes."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``, N×C×H×W."""
        if torch.is_autocast_enabled("cpu"):  # a Function is not autocast by itself
            x = x.to(torch.get_autocast_dtype("cpu"))
        if x.dtype not in _NAMES:
            return super().forward(x)
        y: Tensor = _Depthwise.apply(x, self.weight, self.bias, self.dilation[0])  # type: ignore[no-untyped-call]
        return y


def speed_up(network: nn.Module) -> int:
    """Give every eligible depthwise convolution of ``network`` the cheap passes, in place.

    Returns:
        How many were changed: 0 on a GPU, or where no C++ compiler can build them.
    """
    if next(network.parameters()).device.type != "cpu":
        return 0
    eligible = [m for m in network.modules() if type(m) is nn.Conv2d and _eligible(m)]
    if not eligible or _library() is None:
        return 0
    for module in eligible:
        module.__class__ = FastDepthwise
    return len(eligible)


def _eligible(conv: nn.Conv2d) -> bool:
    kernel, dilation = conv.kernel_size[0], conv.dilation[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.out_channels % LANES == 0
        and kernel in KERNELS
        and conv.kernel_size == (kernel, kernel)
        and conv.dilation == (dilation, dilation)
        and conv.stride == (1, 1)
        and conv.padding == (kernel // 2 * dilation, kernel // 2 * dilation)
        and conv.padding_mode == "zeros"
    )
