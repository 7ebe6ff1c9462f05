"""OpenVINO: the fast CPU target.

An engine is the ONNX graph in the form that OpenVINO reads, local functions inlined. It is
compiled when a frame size is first seen, as static shapes run up to a third faster, and the
last few compiled sizes are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import openvino as ov

from ...errors import BuildError, EngineError
from ...spec import BuildConfig, Manifest, Precision
from ..session import Frames, Session
from . import BuiltEngine, Target

DEVICE = "CPU"
KEPT_SHAPES = 4


def _properties(config: BuildConfig) -> dict[str, str]:
    """How a graph is compiled: in the types that it is written in, chosen by nobody else.

    The one exception is int8 with bf16: OpenVINO runs Q/DQ pairs of bfloat16 scales about
    ten times slower than those of float32, so that graph comes in float32 and OpenVINO
    lowers what is not int8 by its hint.
    """
    lowered = config.precision is Precision.INT8 and config.rest is Precision.BF16
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if lowered else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }


class OpenVinoSession(Session):
    """An engine in OpenVINO on the CPU, compiled per frame size."""

    target = "openvino"

    def __init__(self, content: bytes, scale: int, properties: dict[str, str]) -> None:
        self.scale = scale
        self._properties = properties
        self._core = ov.Core()
        self._model = self._core.read_model(content)
        self._compiled: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()

    def _upscale(self, frames: Frames) -> Frames:
        # One inference uses all cores; a second one beside it would only slow both.
        with self._lock:
            try:
                request = self._request(frames.shape)
                result = request.infer([frames], share_inputs=True, share_outputs=True)[0]
            except RuntimeError as exc:
                raise EngineError(f"OpenVINO failed on {frames.shape}: {exc}") from exc
            return np.array(result)  # the request reuses its output buffer

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape in self._compiled:
            self._compiled.move_to_end(shape)
            return self._compiled[shape]
        static = self._model.clone()
        static.reshape(list(shape))
        compiled = self._core.compile_model(static, DEVICE, self._properties)
        request = compiled.create_infer_request()
        self._compiled[shape] = request
        if len(self._compiled) > KEPT_SHAPES:
            self._compiled.popitem(last=False)
        return request

    def close(self) -> None:
        self._compiled.clear()


class OpenVinoTarget(Target):
    """Builds for and runs on this machine's CPU."""

    name = "openvino"
    suffix = ".openvino.engine"
    precisions = frozenset({Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8})

    def version(self) -> str:
        return str(ov.get_version())

    def runs_here(self) -> str | None:
        if DEVICE not in ov.Core().available_devices:
            return "OpenVINO finds no CPU plugin"
        return None

    def rest_precision(self) -> Precision:
        capabilities = ov.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        return Precision.BF16 if "BF16" in capabilities else Precision.FP32

    def written_rest(self, config_rest: Precision) -> Precision:
        return Precision.FP32 if config_rest is Precision.BF16 else config_rest

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        try:
            model = onnx.load_model_from_string(graph)
            content = onnx.inliner.inline_local_functions(model).SerializeToString()
            core = ov.Core()
            static = core.read_model(content)
            static.reshape([1, *config.shapes.minimum, 3])
            core.compile_model(static, DEVICE, _properties(config))
            device = str(core.get_property(DEVICE, "FULL_DEVICE_NAME"))
        except RuntimeError as exc:
            raise BuildError(
                f"OpenVINO refuses the {config.precision} graph: {exc}",
                "try another precision, or --target onnxruntime",
            ) from exc
        return BuiltEngine(content, device)

    def open(self, content: bytes, manifest: Manifest) -> Session:
        try:
            properties = _properties(manifest.build)
            return OpenVinoSession(content, manifest.model.scale, properties)
        except RuntimeError as exc:
            raise EngineError(
                f"{manifest.engine_file} cannot be opened: {exc}", "build it again"
            ) from exc


TARGET = OpenVinoTarget()
