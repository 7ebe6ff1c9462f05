"""What the runtime wants of a GPU; :mod:`srdeploy.runtime.cuda` has the real one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Pinned = NDArray[np.uint8]
"""Host memory that the GPU copies from and to by itself."""


class Memory(Protocol):
    """A block of device memory."""

    address: int
    size: int

    def free(self) -> None:
        """Give it back."""


class Stream(Protocol):
    """Work that the device does in order."""

    handle: int

    def wait(self) -> None:
        """Wait for all of it.

        Raises:
            DeviceLost: The device failed.
        """

    def close(self) -> None:
        """Give it back."""


class Graph(Protocol):
    """Work that was captured once and is launched as a whole."""

    def launch(self, stream: Any) -> None:
        """Put all of it into a stream."""

    def close(self) -> None:
        """Give it back."""


class Device(Protocol):
    """One GPU. Its methods are called inside :meth:`current`, with its own memory and streams.

    All but :meth:`close` raise DeviceLost where the device failed.
    """

    name: str

    def current(self) -> AbstractContextManager[None]:
        """Make the device the current one of this thread."""

    def allocate(self, size: int) -> Memory:
        """Device memory of ``size`` bytes.

        Raises:
            OutOfDeviceMemory: There is not so much.
        """

    def pinned(self, shape: tuple[int, ...]) -> Pinned:
        """Pinned host memory.

        Raises:
            OutOfDeviceMemory: There is not so much.
        """

    def unpin(self, pinned: Pinned) -> None:
        """Give pinned host memory back; nothing may use it afterwards."""

    def stream(self) -> Stream:
        """A new stream.

        Raises:
            OutOfDeviceMemory: There is no memory for it.
        """

    def upload(self, target: Any, source: Pinned, stream: Any) -> None:
        """Copy to the device, in order with the stream."""

    def download(self, target: Pinned, source: Any, stream: Any) -> None:
        """Copy from the device, in order with the stream."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Graph | None:
        """Record what ``work`` puts into the stream; None where it cannot be recorded.

        What ``work`` raises goes on, but for EngineErrors: they say that it cannot be recorded.
        """

    def close(self) -> None:
        """Give the device back, outside :meth:`current` and from any thread."""


class Execution(Protocol):
    """An execution context of an engine. Its methods are called inside the device's context."""

    def reshape(self, shape: tuple[int, ...], stream: Any) -> int:
        """Take frames of another shape, N×H×W×3; returns the bytes of scratch memory.

        Raises:
            EngineError: No profile holds the shape.
        """

    def bind(self, frames: int, upscaled: int, scratch: int, scratch_size: int) -> None:
        """Addresses of input, output and scratch memory."""

    def capturable(self, stream: Any) -> bool:
        """Whether what it puts into a stream at the present shape can be captured."""

    def enqueue(self, stream: Any) -> None:
        """Put the network into a stream.

        Raises:
            EngineError: The library refuses.
        """

    def close(self) -> None:
        """Give it back."""
