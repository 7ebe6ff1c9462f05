"""Compares an exported ONNX with the network it came from, on the CPU, at many sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from torch import nn

from ..errors import ExportError
from ..runtime.targets.onnxruntime import FloatRunner, float_runner
from ..spec import ModelSpec

TOLERANCE = 1e-4
"""Largest absolute difference on the [0, 1] range."""

FP16_TOLERANCE = 2e-2
"""The same for an fp16 graph, whose rounding alone reaches some code values of 255."""


def default_sizes(spec: ModelSpec) -> tuple[tuple[int, int, int], ...]:
    """(N, H, W) to check: odd, prime and even ones, a strip each way, a batch of three."""
    m = spec.minimum_size
    return (
        (1, m, m + 16),
        (1, m + 18, m),
        (1, m + 12, m + 30),
        (3, m + 22, m + 16),
        (1, m + 31, m + 29),
        (2, m + 46, m + 40),
        (1, m + 64, m + 63),
    )


def verify(
    model: onnx.ModelProto,
    network: nn.Module,
    sizes: Sequence[tuple[int, int, int]],
    tolerance: float = TOLERANCE,
    run: FloatRunner | None = None,
) -> dict[tuple[int, int, int], float]:
    """Largest difference between the ONNX in ONNX Runtime and ``network`` at each size.

    Args:
        model: Float32 N×3×H×W in and out.
        network: The source of truth.
        sizes: (N, H, W) of the inputs.
        tolerance: Largest absolute difference that passes.
        run: What executes the model; None for :func:`float_runner`.

    Raises:
        ExportError: A difference is larger, or an output is not finite.
    """
    run = run or float_runner(model)
    generator = np.random.default_rng(0)
    errors: dict[tuple[int, int, int], float] = {}
    for n, h, w in sizes:
        frames = generator.random((n, 3, h, w), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(frames)).numpy()
        got = run(frames)
        if got.shape != expected.shape:
            raise ExportError(
                f"at {w}×{h} the ONNX gives {got.shape}, PyTorch {expected.shape}",
                "a size was frozen into the graph; please report this network",
            )
        if not np.isfinite(got).all():
            raise ExportError(
                f"at {w}×{h} the ONNX gives NaN or infinity where PyTorch in float32 does not",
                "in fp16 a value has left its range; build-engine --bf16 has the range of fp32",
            )
        error = float(np.abs(got - expected).max())
        errors[n, h, w] = error
        if not error <= tolerance:
            raise ExportError(
                f"at {w}×{h} the ONNX differs from PyTorch by {error:.3g},"
                f" allowed are {tolerance:.3g}",
                "please report this network; --no-pass NAME switches single graph passes off",
            )
    return errors
