"""Frames in shared memory: the block that one process fills and another answers in."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .session import Frames

_FOLDER = Path("/dev/shm")  # noqa: S108  where Linux keeps shared memory


@dataclass(frozen=True)
class Block:
    """Where frames lie in shared memory, and where the upscaled ones go, behind them.

    Attributes:
        name: Of the memory.
        shape: N, H, W and 3 of the frames.
        scale: Upscaling factor.
    """

    name: str
    shape: tuple[int, ...]
    scale: int

    @property
    def upscaled_shape(self) -> tuple[int, ...]:
        """N, sH, sW and 3."""
        n, h, w, c = self.shape
        return n, h * self.scale, w * self.scale, c

    @property
    def size(self) -> int:
        """Bytes of both."""
        return math.prod(self.shape) + math.prod(self.upscaled_shape)

    def frames(self, memory: SharedMemory) -> NDArray[np.uint8]:
        """The frames; valid as long as the memory is open."""
        return np.ndarray(self.shape, np.uint8, memory.buf)

    def upscaled(self, memory: SharedMemory) -> NDArray[np.uint8]:
        """The upscaled frames; likewise."""
        return np.ndarray(self.upscaled_shape, np.uint8, memory.buf, math.prod(self.shape))


class SharedFrames:
    """Memory for one call at a time, which grows with what is put into it.

    The process that makes it removes it; :meth:`close` must be called.
    """

    def __init__(self) -> None:
        self._memory: SharedMemory | None = None

    def put(self, frames: Frames, scale: int) -> Block:
        """Copy frames into the memory.

        Raises:
            EngineError: There is not enough shared memory.
        """
        block = Block("", frames.shape, scale)
        if self._memory is None or self._memory.size < block.size:
            self.close()
            self._memory = _make(block.size)
        block.frames(self._memory)[...] = frames
        return Block(self._memory.name, frames.shape, scale)

    def take(self, block: Block) -> Frames:
        """A copy of the upscaled frames."""
        assert self._memory is not None
        assert self._memory.name == block.name
        return block.upscaled(self._memory).copy()

    def close(self) -> None:
        """Give the memory back."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
            with suppress(FileNotFoundError):
                memory.unlink()


def _make(size: int) -> SharedMemory:
    message = f"{size >> 20} MiB of shared memory are needed for a frame"
    hint = "in a container, raise its limit, for instance with docker run --shm-size=2g"
    # writing to a block that the system cannot back ends the process
    if _FOLDER.is_dir() and (free := shutil.disk_usage(_FOLDER).free) < size:
        raise EngineError(f"{message}, {_FOLDER} has {free >> 20} left", hint)
    try:
        return SharedMemory(create=True, size=size)
    except OSError as exc:
        raise EngineError(f"{message}: {exc.strerror or exc}", hint) from exc
