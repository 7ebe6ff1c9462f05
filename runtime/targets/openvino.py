"""OpenVINO: the fast CPU target.

An engine is the ONNX graph in the form that OpenVINO reads, local functions inlined. It is
compiled when a frame size is first seen, as static shapes run up to a third faster, and the
last few compiled sizes are kept.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnx
import openvino as ov
from onnx import helper

from ...errors import BuildError, EngineError
from ...plugins.onnx_functions import inline_functions
from ...spec import BuildConfig, Manifest, Precision
from .. import int8_sums
from ..model_file import parse_graph
from ..session import Frames, Session
from . import BuiltEngine, Target

DEVICE = "CPU"
KEPT_SHAPES = 4
# A stream of VapSR-S takes about 2.5 KB a pixel of its frame.
LARGEST_PARALLEL_PIXELS = 1280 * 720

# The first tensor of a process initialises OpenVINO's binding to numpy, behind a C++ lock
# and the interpreter's. Two threads that do it at once take them in opposite orders and
# hang, so it is done here, where the import lock admits one.
ov.Tensor(np.zeros(1, np.uint8), shared_memory=True)


def _properties(config: BuildConfig, streams: int = 1) -> dict[str, str]:
    """How a graph is compiled: in the types that it is written in, chosen by nobody else.

    The one exception is int8 with bf16: OpenVINO runs Q/DQ pairs of bfloat16 scales about
    ten times slower than those of float32, so that graph comes in float32 and OpenVINO
    lowers what is not int8 by its hint.
    """
    lowered = config.precision is Precision.INT8 and config.rest is Precision.BF16
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if lowered else "f32"}
    if streams > 1:
        return hint | {"NUM_STREAMS": str(streams)}
    return hint | {"PERFORMANCE_HINT": "LATENCY"}


class OpenVinoSession(Session):
    """An engine in OpenVINO on the CPU, compiled per frame size.

    Args:
        content: The engine file.
        manifest: Its manifest.
        parallel: Frames in flight. Two of them, each on half of the cores, are faster than
            one after the other on all, and steadier beside an encoder; each takes the memory
            of a frame's activations, so large frames go one by one.
    """

    target = "openvino"

    def __init__(self, content: bytes, manifest: Manifest, parallel: int) -> None:
        self.scale = manifest.model.scale
        self.parallel = min(parallel, os.cpu_count() or 1)
        self._build = manifest.build
        self._core = ov.Core()
        self._model = self._core.read_model(content)
        self._idle: OrderedDict[tuple[int, ...], SimpleQueue[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _upscale(self, frames: Frames) -> Frames:
        try:
            idle = self._requests(frames.shape)
            request = idle.get()
            try:
                result = request.infer([frames], share_inputs=True, share_outputs=True)[0]
                return np.array(result)  # the request reuses its output buffer
            finally:
                idle.put(request)
        except RuntimeError as exc:
            raise EngineError(f"OpenVINO failed on {frames.shape}: {exc}") from exc

    def _requests(self, shape: tuple[int, ...]) -> SimpleQueue[Any]:
        """The idle requests for a frame size, compiled when it is first seen."""
        with self._lock:
            if shape in self._idle:
                self._idle.move_to_end(shape)
                return self._idle[shape]
            streams = self.parallel if math.prod(shape[:3]) <= LARGEST_PARALLEL_PIXELS else 1
            static = self._model.clone()
            static.reshape(list(shape))
            properties = _properties(self._build, streams)
            compiled = self._core.compile_model(static, DEVICE, properties)
            idle: SimpleQueue[Any] = SimpleQueue()
            for _ in range(streams):
                idle.put(compiled.create_infer_request())
            self._idle[shape] = idle
            if len(self._idle) > KEPT_SHAPES:
                self._idle.popitem(last=False)
            return idle

    def close(self) -> None:
        self._idle.clear()


class PlainSession(Session):
    """An engine in OpenVINO with default options, compiled once for frames of any size."""

    target = "openvino"

    def __init__(self, content: bytes, manifest: Manifest) -> None:
        self.scale = manifest.model.scale
        core = ov.Core()
        self._compiled = core.compile_model(core.read_model(content), DEVICE)

    def _upscale(self, frames: Frames) -> Frames:
        return np.array(self._compiled(frames)[0])


def keep_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose convolutions keep their biases where frames may have any size.

    OpenVINO 2026.4 moves the bias of a convolution that is quantised next into the range of that
    FakeQuantize once a shape is read from the convolution too, which its own rewriting of shapes
    may bring about; compiled for any size, that FakeQuantize takes the first channel's range for
    all. A LeakyRelu of slope 1 between the two changes nothing, is fused, and prevents it.
    """
    if not any(node.op_type == "Shape" for node in model.graph.node):
        return model
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    biased = {n.output[0] for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 2}
    quantised = {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    del kept.graph.node[:]
    for node in model.graph.node:
        copied = kept.graph.node.add()
        copied.CopyFrom(node)
        if node.output[0] in biased & quantised:
            (name,) = node.output
            copied.output[0] = f"{name}/biased"
            same = helper.make_node("LeakyRelu", [copied.output[0]], [name], alpha=1.0)
            kept.graph.node.append(same)
    return kept


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

    def computes_fp16(self) -> bool:
        return False  # by the hint of its properties, also where the CPU has fp16

    def written_rest(self, config_rest: Precision) -> Precision:
        return Precision.FP32 if config_rest is Precision.BF16 else config_rest

    def pairs_saturate(self) -> bool:
        return int8_sums.pairs_saturate()

    def mismatch(self, build: BuildConfig, device: int = 0) -> str | None:
        return super().mismatch(build, device) or int8_sums.mismatch(build)

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        try:
            model = parse_graph(graph)
            content = keep_biases(inline_functions(model)).SerializeToString()
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
        return BuiltEngine(content, device, int8_sums.note_on(config))

    def open_plain(self, content: bytes, manifest: Manifest) -> Session:
        return PlainSession(content, manifest)

    def _open(self, content: bytes, manifest: Manifest, parallel: int, device: int) -> Session:
        try:
            return OpenVinoSession(content, manifest, parallel)
        except RuntimeError as exc:
            raise EngineError(
                f"{manifest.engine_file} cannot be opened: {exc}", "build it again"
            ) from exc


TARGET = OpenVinoTarget()
