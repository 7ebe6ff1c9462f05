"""Ranges of activations, observed while the float32 graph runs on calibration pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import DatasetError
from ..validate.datasets import Picture
from .observers import Observer
from .parts import MOST_BYTES, run_parts, split
from .pictures import as_input

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


_OBSERVED = 1 << 22
"""Values at a time: an observer takes several times their memory."""


class Watcher(Protocol):
    """What looks at activations while the float32 graph runs.

    Attributes:
        tensors: Names of float32 activations or of the input.
    """

    @property
    def tensors(self) -> Collection[str]:
        """What it looks at."""

    def see(self, name: str, values: NDArray[np.float32]) -> None:
        """Take in one of the tensors for one picture."""


@dataclass(frozen=True)
class Ranges:
    """Calibrated ranges.

    Attributes:
        bounds: Tensor name to (low, high).
    """

    bounds: dict[str, tuple[float, float]]


class RangeWatcher:
    """Observes the range of each tensor.

    Args:
        tensors: Names of float32 activations or of the input.
        observer: Makes the observer of one tensor.
    """

    def __init__(self, tensors: Sequence[str], observer: Callable[[], Observer]) -> None:
        self.tensors = tuple(tensors)
        self._observers = {name: observer() for name in tensors}

    def see(self, name: str, values: NDArray[np.float32]) -> None:
        """Take in a tensor."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _OBSERVED):
            self._observers[name].observe(flat[start : start + _OBSERVED])

    def ranges(self) -> Ranges:
        """What was observed."""
        return Ranges({name: watching.bounds() for name, watching in self._observers.items()})


def collect_ranges(
    model: onnx.ModelProto,
    pictures: Iterable[Picture],
    tensors: Sequence[str],
    observer: Callable[[], Observer],
    progress: Progress | None = None,
    batch: int = 1,
) -> Ranges:
    """Run ``model`` on ``pictures`` and observe ``tensors``.

    The ranges depend neither on the order of the pictures nor on ``batch``.

    Args:
        model: Float32 N×3×H×W in.
        pictures: Crops and whole frames, each H×W×3 uint8; N×H×W×3 is N of them.
        tensors: Names of float32 activations or of the input.
        observer: Makes the observer of one tensor.
        progress: Told the pictures that are done.
        batch: See :func:`watch`.

    Raises:
        DatasetError: There are no pictures, or a tensor is not finite on them.
        ExportError: The graph has no such tensor.
    """
    watcher = RangeWatcher(tensors, observer)
    watch(model, pictures, [watcher], "calibrating", progress, batch)
    return watcher.ranges()


class Behind:
    """Calls of a function, made one after the other in a thread of their own.

    What waits holds up to :data:`~.parts.MOST_BYTES`. The error of a call is raised by a later one,
    or at the end.
    """

    def __init__(self, function: Callable[[str, NDArray[np.float32]], None]) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def __call__(self, name: str, values: NDArray[np.float32]) -> None:
        """Call the function, soon."""
        while self._waiting and self._bytes + values.nbytes > MOST_BYTES:
            self._wait()
        self._waiting.append((self._thread.submit(self._function, name, values), values.nbytes))
        self._bytes += values.nbytes

    def _wait(self) -> None:
        call, size = self._waiting.popleft()
        self._bytes -= size
        call.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            while self._waiting:
                self._wait()


def watch(
    model: onnx.ModelProto,
    pictures: Iterable[Picture],
    watchers: Sequence[Watcher],
    step: str,
    progress: Progress | None = None,
    batch: int = 1,
) -> None:
    """Run ``model`` on each picture once and show all ``watchers`` their tensors.

    Args:
        model: Float32 N×3×H×W in.
        pictures: Of any sizes, each H×W×3 uint8.
        watchers: What look at the activations.
        step: What ``progress`` is told is being done.
        progress: Told the pictures that are done.
        batch: How many pictures run at the same time, each alone; each holds up to
            :data:`~.parts.MOST_BYTES` of activations.

    Raises:
        DatasetError: There are no pictures.
        ExportError: The graph has no such tensor.
    """
    by_size: dict[tuple[int, int], list[Picture]] = {}
    for picture in pictures:
        by_size.setdefault((picture.shape[0], picture.shape[1]), []).append(picture)
    total = sum(map(len, by_size.values()))
    if not total:
        raise DatasetError("the calibration set is empty", "give at least one picture")
    source = model.graph.input[0].name
    interested: dict[str, list[Watcher]] = {}
    for watcher in watchers:
        for name in watcher.tensors:
            interested.setdefault(name, []).append(watcher)
    made = [name for name in interested if name != source]

    def see(name: str, values: NDArray[np.float32]) -> None:
        for watcher in interested.get(name, ()):
            watcher.see(name, values)

    done = 0
    # ONNX Runtime does not use all of the cores all of the time: what it made is looked at
    # meanwhile, by one thread and in order.
    with Behind(see) as behind:
        for size, alike in by_size.items():
            parts = split(model, made, *size)
            for start in range(0, len(alike), batch):
                inputs = [{source: as_input(p[None])} for p in alike[start : start + batch]]
                for values in inputs:
                    behind(source, values[source])
                run_parts(parts, inputs, behind)
                done += len(inputs)
                if progress:
                    progress(step, done, total)
