"""A static ONNX for int8: calibration and search run on crops and windows of their own sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from ..errors import BuildError, SrDeployError
from ..export.sizes import free_size
from ..runtime.session import Session
from ..runtime.targets.onnxruntime import ReferenceSession
from ..spec import ModelSpec

# Code values between the freed graph and the reference: float32 rounds otherwise in each.
_ROUNDING = 1


def freed_of_size(
    model: onnx.ModelProto,
    spec: ModelSpec,
    size: tuple[int, int, int],
    reference: Session,
    source: Path,
) -> onnx.ModelProto:
    """The graph with free sizes, shown to compute what the network does at another size.

    Args:
        model: A static export.
        spec: Its description.
        size: Batch, height and width that it takes.
        reference: The network, for any size.
        source: The file, for messages.

    Raises:
        BuildError: Its size stands in constants of the graph.
    """
    freed = free_size(model)
    # neither is the graph's own, nor a multiple of a window
    height, width = (edge + spec.minimum_size + 13 for edge in size[1:])
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    try:
        upscaled = ReferenceSession(freed, spec.scale).upscale(frame)
    except SrDeployError as exc:
        raise _refused(source, size) from exc
    expected = reference.upscale(frame)
    if np.abs(upscaled.astype(int) - expected).max() > _ROUNDING:
        raise _refused(source, size)
    return freed


def _refused(source: Path, size: tuple[int, int, int]) -> BuildError:
    _, height, width = size
    return BuildError(
        f"{source} cannot be calibrated for int8: its size of {width}×{height} stands in the"
        " graph's constants, and calibration runs it at other sizes",
        f"export it without --static and build with --int8 --shapes {height}x{width}",
    )
