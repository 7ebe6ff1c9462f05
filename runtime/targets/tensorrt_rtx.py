"""TensorRT-RTX: ahead-of-time engines for RTX GPUs, built on any machine without a GPU.

The parser and builder run in a process of their own, because TensorRT aborts the whole
process on some graphs: there that is an error message.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import onnx
import tensorrt_rtx as trt

from ...errors import BuildError, TargetUnavailable
from ...plugins import NAMESPACE
from ...plugins.onnx_functions import inline_functions
from ...spec import BuildConfig, Manifest, Precision, ShapeRange
from ..session import Session
from . import BuiltEngine, Target

# First compute capability that has the type's arithmetic; found by asking the builder.
_AMPERE = (8, 0)
_FIRST_CAPABILITY = {Precision.BF16: _AMPERE, Precision.FP8: (8, 9)}
# A build takes seconds; what takes longer than this hangs.
TIMEOUT_SECONDS = 900


def known_capabilities() -> tuple[str, ...]:
    """Compute capabilities that this TensorRT-RTX builds for, ``7.5`` first."""
    names = (n for n in dir(trt.ComputeCapability) if n.startswith("SM"))
    numbers = sorted(int(name.removeprefix("SM")) for name in names)
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def choose_capabilities(
    config: BuildConfig, graph: bytes
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Capabilities to build for, and a note on each one left out.

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
    if operation := _not_for_turing(graph):
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
    model = inline_functions(onnx.load_model_from_string(graph))
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


class _Log(trt.ILogger):  # type: ignore[misc]
    """Keeps the builder's warnings and errors for the message."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Take one message of the library."""
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def _build(graph: bytes, capabilities: tuple[str, ...], shapes: ShapeRange) -> bytes:
    """Parse and build in this process; raises RuntimeError with the library's words."""
    log = _Log()
    _refuse_plugins()
    builder = trt.Builder(log)
    network = builder.create_network(0)  # TensorRT-RTX is strongly typed always
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        causes = (parser.get_error(i) for i in range(parser.num_errors))
        raise RuntimeError("; ".join(f"{e.node_name()}: {e.desc()}" for e in causes))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape(
        network.get_input(0).name,
        *((1, *size, 3) for size in (shapes.minimum, shapes.optimum, shapes.maximum)),
    )
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("; ".join(log.errors) or "the builder gave no reason")
    return bytes(engine)


def _refuse_plugins() -> None:
    """Its parser aborts the process on a node for which a plugin is registered."""
    creators = trt.get_plugin_registry().all_creators_recursive
    if ours := [c.name for c in creators if c.plugin_namespace == NAMESPACE]:
        raise RuntimeError(f"plugins are registered with it, which it cannot use: {ours}")


def _child(
    pipe: Connection, graph: bytes, capabilities: tuple[str, ...], shapes: ShapeRange
) -> None:
    """Build and send (engine, "") or (b"", reason)."""
    try:
        pipe.send((_build(graph, capabilities, shapes), ""))
    except Exception as exc:  # whatever it is, the parent says it
        pipe.send((b"", f"{exc}" or type(exc).__name__))
    finally:
        pipe.close()


class TensorRtRtxTarget(Target):
    """Builds for RTX GPUs anywhere; running needs such a GPU."""

    name = "tensorrt-rtx"
    suffix = ".rtx.engine"
    uses_profiles = True
    precisions = frozenset({Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8})

    def version(self) -> str:
        return str(trt.__version__)

    def runs_here(self) -> str | None:
        return (
            "this version of srdeploy builds TensorRT-RTX engines ahead of time"
            " and does not run them yet"
        )

    def rest_precision(self) -> Precision:
        return Precision.FP16

    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        capabilities, left_out = choose_capabilities(config, graph)
        engine = self._build_apart(graph, capabilities, config)
        return BuiltEngine(engine, f"compute capability {', '.join(capabilities)}", left_out)

    def _build_apart(
        self, graph: bytes, capabilities: tuple[str, ...], config: BuildConfig
    ) -> bytes:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(
            target=_child, args=(theirs, graph, capabilities, config.shapes), daemon=True
        )
        child.start()
        theirs.close()
        try:
            if not ours.poll(TIMEOUT_SECONDS):
                raise BuildError(f"TensorRT-RTX did not finish in {TIMEOUT_SECONDS} s")
            engine, reason = ours.recv()
        except EOFError as exc:
            child.join()
            raise BuildError(
                f"TensorRT-RTX crashed while it built the {config.precision} graph"
                f" (exit code {child.exitcode})",
                "try another precision; what it printed stands above",
            ) from exc
        finally:
            ours.close()
            child.kill()
            child.join()
        if reason:
            raise BuildError(
                f"TensorRT-RTX refuses the {config.precision} graph: {reason}",
                "try another precision or target",
            )
        return bytes(engine)

    def _open(self, content: bytes, manifest: Manifest, parallel: int, device: int) -> Session:
        raise TargetUnavailable(
            f"{manifest.engine_file} cannot be run here: {self.runs_here()}",
            "--target auto builds an engine that this machine can run",
        )


TARGET = TensorRtRtxTarget()
