"""The input size of a graph: freed, so that a static export can be calibrated, and fixed again."""

from __future__ import annotations

from collections.abc import Sequence

import onnx


def static_size(model: onnx.ModelProto) -> tuple[int, int, int] | None:
    """Batch, height and width of a static export; None where height or width are free."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    batch, height, width = (dims[axis].dim_value for axis in (0, 2, 3))
    return (batch or 1, height, width) if height and width else None


def free_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose N, H and W are free; whether it then computes the same is not said.

    What was computed from the size while exporting stays a constant in it.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    for value, names in ((freed.graph.input[0], "NHW"), (freed.graph.output[0], ("N", "sH", "sW"))):
        for axis, name in zip((0, 2, 3), names, strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return freed


def fix_size(model: onnx.ModelProto, size: Sequence[int], scale: int) -> onnx.ModelProto:
    """A copy that takes frames of ``size`` (batch, height, width) alone.

    Args:
        model: N×3×H×W in, N×3×(sH)×(sW) out.
        size: Batch, height and width in pixels.
        scale: Upscaling factor.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    batch, height, width = size
    upscaled = (batch, height * scale, width * scale)
    for value, numbers in ((fixed.graph.input[0], size), (fixed.graph.output[0], upscaled)):
        for axis, number in zip((0, 2, 3), numbers, strict=True):
            value.type.tensor_type.shape.dim[axis].dim_value = number
    return fixed
