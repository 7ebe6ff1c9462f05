"""What a user would run instead of an engine: PyTorch, torch.compile, and ONNX Runtime.

Each takes and gives uint8 frames in host memory, as a session does, and gets what a careful user
would give it: half precision, channels last, pinned memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime.session import Frames, Session
from ..spec import Precision
from .built import Backend, Engine
from .recording import NotRun

RIVALS = ("torch", "compile", "ort")


class _Pixels(nn.Module):
    """The network with its pixels: uint8 N×H×W×3 in and out, as an engine's graph has them."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, frames: Tensor) -> Tensor:
        unit = frames.permute(0, 3, 1, 2).to(self.dtype) / 255
        upscaled: Tensor = self.network(unit.contiguous(memory_format=torch.channels_last))
        codes = upscaled.float().clamp(0, 1).mul(255).round().to(torch.uint8)
        return codes.permute(0, 2, 3, 1).contiguous()


class TorchRival(Session):
    """A network in PyTorch, channels last, compiled or not.

    Args:
        network: Float32, on the CPU; it is not changed.
        scale: Upscaling factor.
        device: ``cuda`` or ``cpu``.
        dtype: To compute in.
        compiled: Whether by torch.compile for the shapes that come.
    """

    target = "torch"

    def __init__(
        self, network: nn.Module, scale: int, device: str, dtype: torch.dtype, compiled: bool
    ) -> None:
        self.scale, self._device = scale, device
        moved = copy.deepcopy(network).to(device, dtype)
        channels_last: nn.Module = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels = _Pixels(channels_last, dtype).eval()
        self._run: Callable[[Tensor], Tensor] = (
            torch.compile(pixels, dynamic=False) if compiled else pixels
        )
        self._pinned: dict[tuple[int, ...], Tensor] = {}

    @torch.inference_mode()
    def _upscale(self, frames: Frames) -> Frames:
        if self._device == "cpu":
            upscaled: Frames = self._run(torch.tensor(frames)).numpy()
            return upscaled
        source = self._staging(frames.shape)
        np.copyto(source.numpy(), frames)
        result = self._run(source.to(self._device, non_blocking=True))
        sink = self._staging(tuple(result.shape))
        sink.copy_(result, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        copied: Frames = sink.numpy().copy()
        return copied

    def _staging(self, shape: tuple[int, ...]) -> Tensor:
        """Pinned memory for frames of a shape."""
        if shape not in self._pinned:
            self._pinned[shape] = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._pinned[shape]

    def close(self) -> None:
        """Give the device's memory back to others."""
        self._run = _closed
        self._pinned.clear()
        if self._device == "cuda":
            torch.cuda.empty_cache()


def _closed(_frames: Tensor) -> Tensor:
    raise RuntimeError("the rival is closed")


def check_torch(device: str) -> None:
    """Refuse a device that this PyTorch does not have.

    Raises:
        NotRun: It has none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise NotRun(f"PyTorch {torch.__version__} sees no CUDA device")


def torch_type(device: str, precision: Precision) -> torch.dtype:
    """What PyTorch computes in beside an engine: float32 beside float32, fp16 beside the rest.

    On a CPU always float32: its half precision is no user's choice.
    """
    if device == "cpu" or precision is Precision.FP32:
        return torch.float32
    return torch.float16


def rivals(
    engine: Engine, network: nn.Module, backend: Backend, chosen: Collection[str]
) -> dict[str, Callable[[], Session]]:
    """What opens each rival of an engine, by name.

    Args:
        engine: Whose graph ONNX Runtime gets too.
        network: Float32, on the CPU.
        backend: What built the engine.
        chosen: Of :data:`RIVALS`.
    """
    device = backend.device
    build_of = engine.manifest.build
    dtype = torch_type(device, build_of.precision)
    name = str(dtype).removeprefix("torch.")

    def torch_rival(compiled: bool) -> Session:
        check_torch(device)
        return TorchRival(network, engine.manifest.model.scale, device, dtype, compiled)

    def onnx_rival() -> Session:
        plain = Backend.named(f"onnxruntime:{device}", backend.store)
        types = build_of.precision, build_of.rest
        spec = engine.manifest.model
        return plain.build(engine.graph, spec, *types, build_of.profiles).open()

    found = {
        "torch": (f"PyTorch {name} channels_last", lambda: torch_rival(False)),
        "compile": (f"torch.compile {name} channels_last", lambda: torch_rival(True)),
        "ort": (f"ONNX Runtime {device}, same graph", onnx_rival),
    }
    return dict(found[key] for key in RIVALS if key in chosen)
