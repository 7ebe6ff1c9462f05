"""What every engine looks like once it is open: uint8 frames in, uint8 frames out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError

Frames = NDArray[np.uint8]
"""N×H×W×3 RGB, 0…255."""


class Session(ABC):
    """An open engine.

    ``upscale`` may be called from several threads at once; ``parallel`` says how many calls
    in flight this engine turns into speed.

    Attributes:
        scale: Upscaling factor.
        target: Id of the target that executes, such as ``openvino``.
        parallel: Useful number of concurrent calls, at least 1.
        minimum_size: Least H and W of a frame, pixels.
    """

    scale: int
    target: str
    parallel: int = 1
    minimum_size: int = 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of the frames so far, one sentence each."""
        return ()

    def upscale(self, frames: Frames) -> Frames:
        """Upscale N×H×W×3 uint8 RGB to N×(sH)×(sW)×3.

        Raises:
            EngineError: The frames are of another type or shape, or the engine failed.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise EngineError(f"frames must be uint8 N×H×W×3, got {frames.dtype} {frames.shape}")
        if 0 in frames.shape:
            raise EngineError(f"frames must not be empty, got {frames.shape}")
        if min(frames.shape[1:3]) < self.minimum_size:
            raise EngineError(
                f"frames of {frames.shape[2]}×{frames.shape[1]} pixels are too small: the network"
                f" needs at least {self.minimum_size} in each direction",
                "enlarge or pad them first",
            )
        upscaled = self._upscale(np.ascontiguousarray(frames))
        n, h, w, _ = frames.shape
        expected = (n, h * self.scale, w * self.scale, 3)
        if upscaled.shape != expected or upscaled.dtype != np.uint8:
            raise EngineError(
                f"the engine returned {upscaled.dtype} {upscaled.shape}, expected uint8 {expected}"
            )
        return upscaled

    @abstractmethod
    def _upscale(self, frames: Frames) -> Frames:
        """Upscale contiguous, checked frames."""

    def close(self) -> None:  # noqa: B027  most sessions hold memory only
        """Give back what the engine holds; using the session afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
