"""What a user would run instead of an engine: PyTorch, torch.compile, and plain ONNX Runtime.

Each takes and gives uint8 frames in host memory, as a session does, and gets what a careful user
would give it: half precision, channels last, pinned memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from ..runtime.session import Frames, Session
from ..spec import Precision
from .recording import NotRun


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


class OnnxRuntimeRival(Session):
    """An engine's own graph in plain ONNX Runtime.

    Args:
        graph: Uint8 N×H×W×3 in and out, serialised.
        scale: Upscaling factor.
        device: ``cuda`` or ``cpu``.

    Raises:
        NotRun: ONNX Runtime cannot use the GPU: it says so and would take the CPU.
    """

    target = "onnxruntime"

    def __init__(self, graph: bytes, scale: int, device: str) -> None:
        self.scale = scale
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise NotRun(f"ONNX Runtime {ort.__version__} here has no {provider}")
        if device == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA and cuDNN of the packages that came with PyTorch
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=[provider])
        if provider not in self._session.get_providers():
            raise NotRun(f"ONNX Runtime could not load the libraries of its {provider}")

    def _upscale(self, frames: Frames) -> Frames:
        upscaled: Frames = self._session.run(None, {"frames": frames})[0]
        return upscaled

    def close(self) -> None:
        """Give the device's memory back."""
        del self._session


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
    network: nn.Module, scale: int, graph: bytes, device: str, precision: Precision
) -> dict[str, Callable[[], Session]]:
    """What opens each rival of an engine, by name."""
    dtype = torch_type(device, precision)
    name = str(dtype).removeprefix("torch.")

    def torch_rival(compiled: bool) -> Session:
        check_torch(device)
        return TorchRival(network, scale, device, dtype, compiled)

    return {
        f"PyTorch {name} channels_last": lambda: torch_rival(False),
        f"torch.compile {name} channels_last": lambda: torch_rival(True),
        f"ONNX Runtime {device}, same graph": lambda: OnnxRuntimeRival(graph, scale, device),
    }
