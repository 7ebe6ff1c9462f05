"""Engines against float tensors: what the published code gave, and PyTorch in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..spec import Precision, ShapeRange
from .built import Backend
from .float_digits import from_digits, to_digits, with_digits
from .subject import Subject, golden_files, read_golden

GOLDEN_TOLERANCE = 2e-5
"""Largest difference from golden tensors over their range, in float32."""

FIXED_SIZE = (64, 64)
"""Height and width of the input that engines and PyTorch both get."""

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def errors(
    subject: Subject, pairs: Iterable[Pair], backend: Backend, precision: Precision
) -> list[float]:
    """Largest difference of an engine from each expected output, over that output's range.

    The engine reads and writes floats as digits (:mod:`.float_digits`), in its session.

    Args:
        subject: The network.
        pairs: Inputs N×3×H×W on [0, 1], and what should come out.
        backend: One that runs here.
        precision: Of the engine.

    Raises:
        SrDeployError: The engine cannot be built or run.
    """
    pairs = list(pairs)
    low, span = _span([wanted for _, wanted in pairs])
    lowered, rest = subject.lowered(backend.target, precision)
    graph = with_digits(lowered, low, low + span)
    sizes = dict.fromkeys((2 * x.shape[2], 2 * x.shape[3], x.shape[0]) for x, _ in pairs)
    profiles = [ShapeRange.static(*size) for size in sizes]
    engine = backend.build(graph, subject.spec, precision, rest, profiles)
    found = []
    with engine.open() as session:
        for given, wanted in pairs:
            got = from_digits(session.upscale(to_digits(given)), low, low + span)
            found.append(float(np.abs(got - wanted).max() / (wanted.max() - wanted.min())))
    return found


def _span(outputs: list[NDArray[np.float32]]) -> tuple[float, float]:
    """Where outputs lie, with room for what is wrong; the width is a power of two and exact."""
    low, high = (float(pick([pick(o) for o in outputs])) for pick in (np.min, np.max))
    span = 2.0 ** math.ceil(math.log2(1.5 * (high - low)))
    return float(np.float32((low + high - span) / 2)), span


def golden(backend: Backend, folder: Path | None) -> list[dict[str, Any]]:
    """Float32 engines of the tiny networks against the published code's tensors."""
    rows = []
    for path in golden_files(folder):
        tensors = read_golden(path)
        pairs = [(x.numpy(), y.numpy()) for x, y in tensors.pairs]
        found = max(errors(tensors.subject, pairs, backend, Precision.FP32))
        rows.append({"network": tensors.name, "error": found, "within": found < GOLDEN_TOLERANCE})
    return rows


def against_torch(subject: Subject, backend: Backend) -> dict[str, Any]:
    """The float32 engine against PyTorch in float32 on the CPU, on one fixed input."""
    given = np.random.default_rng(0).random((1, 3, *FIXED_SIZE), dtype=np.float32)
    with torch.inference_mode():
        wanted = subject.network(torch.from_numpy(given)).numpy()
    (found,) = errors(subject, [(given, wanted)], backend, Precision.FP32)
    return {"size": list(FIXED_SIZE), "max_relative_error": found}
