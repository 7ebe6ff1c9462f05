"""TensorRT-RTX: ahead-of-time engines for RTX GPUs, built on any machine without a GPU.

The parser and builder run in a process of their own, because TensorRT aborts the whole
process on some graphs: there that is an error message.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import tensorrt_rtx as trt

from ...errors import BuildError, EngineError, StaleEngine
from ...plugins.onnx_functions import inline_functions
from ...spec import BuildConfig, Manifest, Precision
from .. import gpu_facts
from ..model_file import parse_graph
from ..nvinfer.build import BuildJob
from ..nvinfer.execution import OpenedEngine
from ..nvinfer.library import library_of
from ..nvinfer.log import Log
from ..nvinfer.target import NvinferTarget
from ..store import EngineStore
from . import BuiltEngine

LIBRARY = library_of(trt)

# First compute capability that has the type's arithmetic; found by asking the builder. For 7.5 it
# takes an int8 graph and builds it in fp16, and then for all capabilities of the engine.
_AMPERE = (8, 0)
_FIRST_CAPABILITY = {Precision.INT8: _AMPERE, Precision.BF16: _AMPERE}
_DIAGNOSES = {
    "VERSION_MISMATCH": "it was built by another version of TensorRT-RTX",
    "UNSUPPORTED_CC": "it was not built for the compute capability of this GPU",
    "OLD_CUDA_DRIVER": "the driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "it is no engine of TensorRT-RTX, or is damaged",
    "CUDA_ERROR": "CUDA fails",
}


def known_capabilities() -> tuple[str, ...]:
    """Compute capabilities that this TensorRT-RTX builds for, ``7.5`` first."""
    names = (n for n in dir(trt.ComputeCapability) if n.startswith("SM"))
    numbers = sorted(int(name.removeprefix("SM")) for name in names)
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def choose_capabilities(
    config: BuildConfig, graph: bytes = b""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Capabilities to build for, and a note on each one left out.

    Args:
        config: What is asked for.
        graph: Serialised ONNX; nothing to judge by the precision alone.

    Raises:
        BuildError: One was asked for that the library, the precision or the graph's
            operations do not have.
    """
    known = known_capabilities()
    strange = [c for c in config.capabilities if c not in known]
    if strange:
        raise BuildError(
            f"TensorRT-RTX {trt.__version__} does not build for {', '.join(strange)}",
            f"it builds for {', '.join(known)}; others need the full TensorRT",
        )
    types = {_FIRST_CAPABILITY.get(p, (0, 0)): str(p) for p in (config.precision, config.rest)}
    if graph and (operation := _not_for_turing(graph)):
        types[_AMPERE] = operation
    needed = max(types)
    wanted = config.capabilities or known
    chosen = tuple(c for c in wanted if _numbers(c) >= needed)
    left_out = tuple(
        f"compute capability {c} left out: {types[needed]} needs {needed[0]}.{needed[1]}"
        for c in wanted
        if c not in chosen
    )
    if left_out and (config.capabilities or not chosen):
        raise BuildError(left_out[0], "choose another precision or leave it out of --cc")
    return chosen, left_out


def _not_for_turing(graph: bytes) -> str:
    """The first operation that TensorRT-RTX has no kernel for on capability 7.5, or nothing.

    Found by asking the builder: "FP32 GEMM is not supported", "FP32 3D convolution is not
    supported". Both come with attention, and with what is kept in float32 of it.
    """
    model = inline_functions(parse_graph(graph))
    inferred = onnx.shape_inference.infer_shapes(model).graph
    floats = {
        value.name
        for value in (*inferred.value_info, *inferred.input)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.input[0] in floats:
            return f"the float32 matrix product {node.name}"
        if node.op_type == "Conv" and ranks.get(node.input[1]) == 5 and node.input[0] in floats:
            return f"the float32 3-D convolution {node.name}"
    return ""


def _numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def check_header(content: bytes) -> None:
    """Let the library look at an engine's header, before anything of it is believed.

    Raises:
        EngineError: It is no engine, or is damaged.
        StaleEngine: It is one for another version, GPU or driver.
    """
    log = Log(trt)
    runtime = trt.Runtime(log.sink)
    validity, diagnostics = runtime.get_engine_validity(content[: runtime.engine_header_size])
    if validity != trt.EngineValidity.INVALID:
        return
    found = [
        reason
        for name, reason in _DIAGNOSES.items()
        if int(diagnostics) & int(getattr(trt.EngineInvalidityDiagnostics, name))
    ]
    if not found:
        return  # no GPU to judge by: what the header says of itself is sound
    kind = EngineError if int(diagnostics) & int(_MALFORMED) else StaleEngine
    raise kind(f"TensorRT-RTX {trt.__version__} refuses the engine: {'; '.join(found)}")


_MALFORMED = trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE


class TensorRtRtxTarget(NvinferTarget):
    """Builds for RTX GPUs anywhere; running needs such a GPU."""

    name = "tensorrt-rtx"
    suffix = ".rtx.engine"
    library = LIBRARY
    module = __name__

    def runs_here(self) -> str | None:
        if reason := super().runs_here():
            return reason
        here = gpu_facts.gpus()
        if any(gpu.capability in known_capabilities() for gpu in here):
            return None
        return f"it has no kernels for {here[0]}"

    def check(self, config: BuildConfig) -> None:
        super().check(config)
        choose_capabilities(config)

    def settle(self, config: BuildConfig, graph: bytes) -> BuildConfig:
        self.check(config)
        return config

    def mismatch(self, build: BuildConfig, device: int = 0) -> str | None:
        if reason := super().mismatch(build):
            return reason
        here = gpu_facts.gpus()
        if device >= len(here):
            return f"was asked to run on GPU {device}, there are {len(here)}"
        wanted = build.capabilities or known_capabilities()
        if here[device].capability in wanted:
            return None
        return f"was built for compute capability {', '.join(wanted)}, here is {here[device]}"

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        self.check(config)
        capabilities, left_out = choose_capabilities(config, graph)
        workspace = config.tensorrt.workspace_mib << 20
        job = BuildJob(graph, config, capabilities, workspace)
        return self._built(job, f"compute capability {', '.join(capabilities)}", left_out)

    def _opened(self, content: bytes, manifest: Manifest, device: int) -> OpenedEngine:
        check_header(content)
        cache = EngineStore().read_timing_cache(_cache_key(manifest, device)) or b""
        return OpenedEngine(self.library, content, runtime_cache=cache)

    def _closer(self, opened: OpenedEngine, manifest: Manifest, device: int) -> Callable[[], None]:
        def close() -> None:
            try:
                compiled = opened.runtime_cache()
            finally:
                opened.close()
            if compiled:
                EngineStore().write_timing_cache(_cache_key(manifest, device), compiled)

        return close


def _cache_key(manifest: Manifest, device: int) -> str:
    """Of the kernels that were compiled for an engine on a GPU."""
    return f"kernels of {manifest.engine_sha256} on {gpu_facts.gpus()[device]}"


TARGET = TensorRtRtxTarget()
