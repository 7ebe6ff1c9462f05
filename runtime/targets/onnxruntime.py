"""ONNX Runtime: the target that is always installed, and the reference for the others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ...errors import BuildError, EngineError, ModelFileError, SrDeployError, TargetUnavailable
from ...spec import BuildConfig, Gpu, Manifest, Precision
from .. import int8_sums
from ..execution_providers import CPU, PROVIDERS, require
from ..onnx_session import (
    OnnxRuntimeSession,
    cpu_session,
    gpu_session,
    installed,
    placement_notes,
)
from ..session import Frames, Session
from . import BuiltEngine, Target

FloatRunner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Runner = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""A graph as a function from its inputs to its outputs, by name."""


def graph_runner(model: onnx.ModelProto, keep_memory: bool = True) -> Runner:
    """Open any graph as a function from its inputs to all its outputs, by name.

    Q/DQ pairs are computed as written, in float: what comes out does not depend on the int8
    kernels of this machine. The function raises EngineError where ONNX Runtime fails.

    Args:
        model: Any graph.
        keep_memory: Whether what one run needed is kept for the next one, which is faster.

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
    """
    try:
        session = cpu_session(model.SerializeToString(), as_written=True, keep_memory=keep_memory)
    except Exception as exc:  # its exceptions have no common base but Exception
        raise ModelFileError(f"ONNX Runtime refuses the model: {exc}") from exc
    names = [value.name for value in session.get_outputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as exc:
            raise EngineError(f"ONNX Runtime failed: {exc}") from exc

    return run


def typed_runner(model: onnx.ModelProto) -> FloatRunner:
    """Open an exported model as :func:`float_runner` does, but store every tensor in its type.

    On a CPU ONNX Runtime computes fp16 in float32 and leaves out the roundings between two
    nodes, so that nothing overflows there which overflows elsewhere. Node by node, it has to
    round. Slow: for checks of small pictures.

    Raises:
        ModelFileError: ONNX Runtime refuses a node; at the first call.
    """
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    sessions: dict[int, ort.InferenceSession] = {}

    def session_of(index: int, feeds: dict[str, NDArray[Any]]) -> ort.InferenceSession:
        if index not in sessions:
            node = graph.node[index]
            single = helper.make_graph(
                [node],
                "node",
                [
                    helper.make_tensor_value_info(
                        name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
                    )
                    for name, value in feeds.items()
                ],
                [
                    helper.make_tensor_value_info(name, kinds.get(name, 0), None)
                    for name in node.output
                    if name
                ],
            )
            alone = helper.make_model(
                single, opset_imports=model.opset_import, functions=model.functions
            )
            alone.ir_version = model.ir_version
            try:
                # one thread: a pool for each of thousands of nodes is too many threads
                sessions[index] = cpu_session(alone.SerializeToString(), threads=1)
            except Exception as exc:  # its exceptions have no common base but Exception
                raise ModelFileError(f"ONNX Runtime refuses the node {node.name}: {exc}") from exc
        return sessions[index]

    def run(frames: NDArray[np.float32]) -> NDArray[np.float32]:
        values: dict[str, NDArray[Any]] = {**constants, graph.input[0].name: frames}
        for index, node in enumerate(graph.node):
            feeds = {name: values[name] for name in node.input if name}
            session = session_of(index, feeds)
            try:
                made = session.run(None, feeds)
            except Exception as exc:
                raise EngineError(f"ONNX Runtime failed at {node.name}: {exc}") from exc
            values.update(zip((name for name in node.output if name), made, strict=True))
            for name in feeds:
                if last_use[name] == index and name not in constants:
                    del values[name]
        upscaled: NDArray[np.float32] = values[graph.output[0].name]
        return upscaled

    return run


def float_runner(model: onnx.ModelProto) -> FloatRunner:
    """Open an exported model as a function float32 N×3×H×W to float32 N×3×(sH)×(sW).

    Raises:
        ModelFileError: ONNX Runtime refuses the model.
    """
    run = graph_runner(model)
    source, sink = model.graph.input[0].name, model.graph.output[0].name
    return lambda frames: run({source: frames})[sink]


class ReferenceSession(Session):
    """An exported float32 ONNX as a session: the reference where there is no torch.

    Pixels are converted outside the graph, independently of what engines do inside theirs.
    """

    target = "onnxruntime"

    def __init__(self, model: onnx.ModelProto, scale: int) -> None:
        self.scale = scale
        self._run = float_runner(model)

    def _upscale(self, frames: Frames) -> Frames:
        planar = frames.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        upscaled = np.clip(self._run(planar), 0, 1) * np.float32(255)
        interleaved: Frames = np.rint(upscaled).astype(np.uint8).transpose(0, 2, 3, 1)
        return interleaved


class OnnxRuntimeTarget(Target):
    """Engines are ONNX files that plain ONNX Runtime runs.

    Args:
        provider: Execution provider to build for.
    """

    name = "onnxruntime"
    suffix = ".onnxruntime.onnx"
    # bf16 convolutions have no kernel: not on the CPU, and on a GPU none was seen to run
    precisions = frozenset({Precision.FP32, Precision.FP16, Precision.INT8})

    def __init__(self, provider: str = CPU) -> None:
        self._provider = provider
        self.uses_profiles = provider == "tensorrt"

    def with_provider(self, provider: str) -> Target:
        if provider in PROVIDERS:
            require(installed(), provider)
        return OnnxRuntimeTarget(provider or CPU)

    def version(self) -> str:
        return str(ort.__version__)

    def runs_here(self) -> str | None:
        return None

    def rest_precision(self) -> Precision:
        if self._provider == CPU:
            return Precision.FP32  # on a CPU fp16 runs through casts, slower than fp32
        return Precision.FP16

    def computes_fp16(self) -> bool:
        return self._provider != CPU  # whose kernels cast to float32 and back

    def pairs_saturate(self) -> bool:
        return self._provider == CPU and int8_sums.pairs_saturate()

    def settle(self, config: BuildConfig, graph: bytes) -> BuildConfig:
        if config.provider not in PROVIDERS:
            return dataclasses.replace(config, provider=CPU)
        gpu = require(installed(), config.provider)
        return dataclasses.replace(config, gpu=gpu)

    def mismatch(self, build: BuildConfig, device: int = 0) -> str | None:
        if reason := super().mismatch(build, device):
            return reason
        if build.provider in PROVIDERS:
            try:
                require(installed(), build.provider, device)
            except TargetUnavailable as exc:
                return (
                    f"was built for ONNX Runtime's {build.provider} provider on {build.gpu}."
                    f" Here, {exc.message}. To get it: {exc.hint}"
                )
            return None
        return int8_sums.mismatch(build)

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        try:
            if config.provider not in PROVIDERS:
                cpu_session(graph, threads=1)
                device = f"CPU, {os.cpu_count()} threads"
                return BuiltEngine(graph, device, int8_sums.note_on(config))
            session = gpu_session(graph, config, 0)
        except SrDeployError:
            raise
        except Exception as exc:
            raise BuildError(
                f"ONNX Runtime refuses the {config.precision} graph: {exc}",
                "try another precision, or --target openvino",
            ) from exc
        notes = (*placement_notes(config.provider, session), *_rounding(config))
        return BuiltEngine(graph, str(config.gpu), notes)

    def _open(self, content: bytes, manifest: Manifest, parallel: int, device: int) -> Session:
        try:
            return OnnxRuntimeSession(content, manifest.model.scale, manifest.build, device)
        except SrDeployError:
            raise
        except Exception as exc:
            raise EngineError(
                f"{manifest.engine_file} cannot be opened: {exc}", "build it again"
            ) from exc


def _rounding(config: BuildConfig) -> tuple[str, ...]:
    """What a provider computes in another type than the graph says."""
    if config.provider == "cuda" and config.precision is Precision.INT8:
        return (
            "ONNX Runtime's cuda provider has no int8 convolutions: it computes them between"
            f" Q/DQ pairs in {config.rest}, no faster; the tensorrt provider computes in int8",
        )
    if config.provider == "tensorrt" and Precision.FP32 in (config.precision, config.rest):
        if not _has_tf32(config.gpu) or config.tensorrt.tf32:
            return ()
        return (
            "ONNX Runtime's tensorrt provider cannot be kept from rounding float32 products to"
            " TF32; the environment variable NVIDIA_TF32_OVERRIDE=0 does",
        )
    return ()


def _has_tf32(gpu: Gpu | None) -> bool:
    return gpu is not None and int(gpu.capability.partition(".")[0]) >= 8


TARGET = OnnxRuntimeTarget()
