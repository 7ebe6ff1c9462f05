"""The reference that drift is measured against: a PyTorch network as a session.

The only file of validate/ that imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import EngineError
from ..runtime.session import Frames, Session
from ..spec import ModelSpec

Span = tuple[int, int]


class TorchSession(Session):
    """A float32 network, run where its parameters are, frame by frame.

    uint8 becomes [0, 1] by 1/255; the output is clamped, times 255, and rounded half to
    even, as ONNX ``Round`` does in the engines.

    Args:
        network: N×3×H×W in [0, 1] to N×3×(sH)×(sW), float32; put into evaluation mode.
        spec: Its description.
        tile: Edge in LR pixels of the tiles into which larger frames are cut, so that memory
            stays bounded; each is computed with ``spec.receptive_radius`` pixels of its
            surroundings, so the result is that of the whole frame up to float rounding.

    Raises:
        EngineError: The parameters are not float32, or ``tile`` is given for a network
            that sees the whole picture, whose result tiling would change.
    """

    target = "torch"

    def __init__(self, network: nn.Module, spec: ModelSpec, *, tile: int | None = None) -> None:
        others = {str(p.dtype) for p in network.parameters()} - {"torch.float32"}
        if others:
            raise EngineError(
                f"the reference must compute in float32, the network has {', '.join(others)}"
            )
        if tile is not None and (tile < 1 or spec.global_operation):
            sees = "all" if spec.global_operation else spec.receptive_radius
            raise EngineError(
                f"{spec.variant} cannot run in tiles of {tile}: it sees {sees} pixels around each",
                "leave out the tile; the whole frame must fit into memory",
            )
        self.scale, self.minimum_size = spec.scale, spec.minimum_size
        self._network = network.eval()
        self._device = next((p.device for p in network.parameters()), torch.device("cpu"))
        multiple = spec.size_multiple
        self._tile = tile and _round_up(tile, multiple)
        self._halo = _round_up(spec.receptive_radius, multiple)

    def _upscale(self, frames: Frames) -> Frames:
        try:
            # TF32 is PyTorch's default for convolutions on a GPU and keeps 10 bits only.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                return np.stack([self._frame(frame) for frame in frames])
        except (RuntimeError, MemoryError) as exc:  # out of memory is a RuntimeError too
            raise EngineError(
                f"PyTorch could not upscale a {frames.shape[2]}×{frames.shape[1]} frame: {exc}",
                "if memory ran out, take smaller pictures",
            ) from exc

    def _frame(self, frame: Frames) -> Frames:
        """Upscale H×W×3."""
        height, width, _ = frame.shape
        s = self.scale
        upscaled = np.empty((height * s, width * s, 3), np.uint8)
        for top, bottom in self._cores(height):
            for left, right in self._cores(width):
                # The surroundings end where the frame does: there the network pads itself.
                y, x = max(top - self._halo, 0), max(left - self._halo, 0)
                around = frame[y : bottom + self._halo, x : right + self._halo]
                pixels = self._pixels(around)
                upscaled[top * s : bottom * s, left * s : right * s] = pixels[
                    (top - y) * s : (bottom - y) * s, (left - x) * s : (right - x) * s
                ]
        return upscaled

    def _cores(self, length: int) -> Iterator[Span]:
        step = self._tile or length
        return ((first, min(first + step, length)) for first in range(0, length, step))

    @torch.inference_mode()
    def _pixels(self, frame: Frames) -> Frames:
        """Run the network on h×w×3 pixels."""
        x = torch.tensor(frame, device=self._device)  # a copy: frames may be read-only
        y: Tensor = self._network(x.permute(2, 0, 1)[None].float() / 255.0)
        expected = (1, 3, frame.shape[0] * self.scale, frame.shape[1] * self.scale)
        if y.shape != expected:
            raise EngineError(f"the network returned {tuple(y.shape)}, expected {expected}")
        rounded = y[0].clamp(0, 1).mul(255).round().to(torch.uint8)
        pixels: Frames = rounded.permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
