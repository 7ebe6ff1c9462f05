"""Hyper-parameters that stand in the names and shapes of tensors: counts and sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from .. import StateDict


def count_indices(state: StateDict, prefix: str, below: str = "", step: int = 1) -> int:
    """Number of tensors' indices ``prefix.0``, ``prefix.step``, … without a gap.

    Args:
        state: Tensor name to tensor.
        prefix: Name before the index, without its dot.
        below: Pattern that the name must go on with after the index.
        step: Difference between two indices.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.{below}")
    found = {int(match[1]) for match in map(pattern.match, state) if match}
    count = 0
    while count * step in found:
        count += 1
    return count


def size_of(state: StateDict, *where: tuple[str, int], valid: Callable[[int], bool] = bool) -> int:
    """The size that most tensors tell of which each should have it along one axis.

    Most, so that one misshapen tensor is found out instead of misleading the detection.

    Args:
        state: Tensor name to tensor.
        where: Pattern of tensor names, and the axis that has the size.
        valid: Sizes that can be, by default all but 0; others do not count.

    Raises:
        KeyError: No tensor tells; the error holds a readable form of the first pattern.
    """
    sizes = [
        tensor.shape[axis]
        for pattern, axis in where
        for name, tensor in state.items()
        if tensor.ndim > axis and re.fullmatch(pattern, name) and valid(tensor.shape[axis])
    ]
    if not sizes:
        raise _nothing_told(state, where)
    return Counter(sizes).most_common(1)[0][0]


def _nothing_told(state: StateDict, where: tuple[tuple[str, int], ...]) -> Exception:
    """The error for sizes that no tensor tells: none is there, or none can be."""
    for pattern, axis in where:
        for name, tensor in state.items():
            if re.fullmatch(pattern, name):
                return ValueError(
                    f"the tensor '{name}' has the shape {tuple(tensor.shape)}, of which axis"
                    f" {axis} cannot be"
                )
    readable = where[0][0].replace("(weight|bias)", "weight")
    return KeyError(re.sub(r"\\d\+?|\[[^]]*\]|\.\*", "N", readable).replace("\\", ""))
