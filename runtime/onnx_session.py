"""Sessions of ONNX Runtime: on the CPU, or on a GPU and nowhere else."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from ..errors import BuildError, DeviceLost, EngineError, OutOfDeviceMemory, TargetUnavailable
from ..spec import BuildConfig
from .execution_providers import PROVIDERS, OnnxRuntime, require
from .provider_options import engine_cache, options_of
from .session import Frames, Session
from .shared_libraries import needed

# after these errors of CUDA the process can use the GPU no more
_LOST = frozenset({4, 46, 100, 101, 214, 219, 220, 700, *range(702, 722), 802, 999})
_NO_MEMORY = re.compile(
    r"Failed to allocate memory|out of memory|CUDA failure 2\b|ALLOC_FAILED|OutOfMemory", re.I
)


def translate(exc: Exception, what: str) -> EngineError:
    """The error of a GPU session as one of ours; ``what`` says at what it failed."""
    text = str(exc)
    if _NO_MEMORY.search(text):
        return OutOfDeviceMemory(f"the GPU's memory is too small for {what}: {text}")
    code = re.search(r"CUDA (?:failure|error) (\d+)", text)
    if code and int(code[1]) in _LOST:
        return DeviceLost(f"the GPU failed at {what}: {text}")
    return EngineError(f"ONNX Runtime failed on {what}: {text}")


# where a network spends its arithmetic; shapes are computed on the CPU by design
_HEAVY = re.compile(r"Conv|MatMul|Gemm|Attention|Resize|LayerNorm")


def check_placement(provider: str, on_cpu: Mapping[str, int]) -> tuple[str, ...]:
    """Judge the nodes of a GPU session that ONNX Runtime gave to the CPU.

    The session option that forbids all of them is of no use here: what is computed from the
    size of a frame runs on the CPU by ONNX Runtime's own choice.

    Args:
        provider: ``cuda`` or ``tensorrt``.
        on_cpu: Type of operation to number of nodes.

    Returns:
        A note for the manifest, where there are any.

    Raises:
        BuildError: The network's arithmetic is among them.
    """
    heavy = {kind: count for kind, count in on_cpu.items() if _HEAVY.search(kind)}
    if heavy:
        raise BuildError(
            f"ONNX Runtime's {provider} provider leaves {_counted(heavy)} to the CPU",
            "try another precision, or srdeploy export --opset 20",
        )
    if not on_cpu:
        return ()
    return (f"ONNX Runtime runs these nodes on the CPU: {_counted(on_cpu)}",)


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def cpu_session(
    content: bytes, threads: int = 0, as_written: bool = False, keep_memory: bool = True
) -> ort.InferenceSession:
    """Open a graph on the CPU; ``as_written`` keeps Q/DQ pairs instead of int8 kernels."""
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = keep_memory
    options.log_severity_level = 3  # errors only: its warnings are about its own optimiser
    options.intra_op_num_threads = threads
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def installed() -> OnnxRuntime:
    """The ONNX Runtime of this process."""
    from onnxruntime.capi import build_and_package_info as info

    folder = Path(ort.__file__).parent / "capi"
    return OnnxRuntime(folder, str(ort.__version__), str(getattr(info, "cuda_version", "") or ""))


def gpu_session(content: bytes, config: BuildConfig, device: int) -> ort.InferenceSession:
    """Open a graph on a GPU, or not at all.

    Raises:
        TargetUnavailable: The provider cannot be used here.
        OutOfDeviceMemory: The GPU's memory is too small.
        DeviceLost: The GPU failed.
        Exception: What else ONNX Runtime says of the graph.
    """
    gpu = require(installed(), config.provider, device)
    cache = None
    if config.provider == "tensorrt":
        cache = engine_cache(config, gpu, _tensorrt_version())
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    wanted = options_of(config, device, cache)
    try:
        session = ort.InferenceSession(content, options, providers=wanted, enable_fallback=0)
    except Exception as exc:
        failure = translate(exc, "the network")
        if isinstance(failure, OutOfDeviceMemory | DeviceLost):
            raise failure from exc
        raise
    session.disable_fallback()  # nor later, when a run fails
    title = PROVIDERS[config.provider].title
    if title not in session.get_providers():
        raise TargetUnavailable(
            f"ONNX Runtime did not take its {config.provider} provider on {gpu}: it offers"
            f" {', '.join(session.get_providers())}",
            "what it printed stands above; srdeploy doctor shows what this machine can do",
        )
    return session


def _tensorrt_version() -> str:
    """Of the libnvinfer that the provider is linked to, which is loaded."""
    library = installed().folder / PROVIDERS["tensorrt"].library
    for soname in needed(library) if library.is_file() else ():
        if soname.startswith("libnvinfer.so"):
            with contextlib.suppress(OSError, AttributeError):
                return str(ctypes.CDLL(soname).getInferLibVersion())
    return ""


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """Provider to types of operation to numbers of nodes; empty where ONNX Runtime is too old.

    The session must record it.
    """
    found: dict[str, Counter[str]] = {}
    for part in getattr(session, "get_provider_graph_assignment_info", list)():
        kinds = (node.op_type for node in part.get_nodes())
        found.setdefault(part.ep_name, Counter()).update(kinds)
    return found


def placement_notes(provider: str, session: ort.InferenceSession) -> tuple[str, ...]:
    """:func:`check_placement` of an open session."""
    return check_placement(provider, nodes_by_provider(session).get("CPUExecutionProvider", {}))


class WrittenSession(Session):
    """The graph of an engine on the CPU, computed as it is written: Q/DQ pairs in float32.

    Args:
        graph: As a target gets it.
        scale: Upscaling factor.
    """

    target = "onnxruntime"

    def __init__(self, graph: bytes, scale: int) -> None:
        self.scale = scale
        self._session = cpu_session(graph, as_written=True)

    def _upscale(self, frames: Frames) -> Frames:
        upscaled: Frames = self._session.run(None, {self._session.get_inputs()[0].name: frames})[0]
        return upscaled


class OnnxRuntimeSession(Session):
    """An engine file, uint8 N×H×W×3 in and out, in ONNX Runtime.

    Args:
        content: The engine file.
        scale: Upscaling factor.
        config: What it was built as.
        device: Index of the GPU.
    """

    target = "onnxruntime"

    def __init__(self, content: bytes, scale: int, config: BuildConfig, device: int = 0) -> None:
        self.scale = scale
        self._on_gpu = config.provider in PROVIDERS
        self._profiles = config.profiles if config.provider == "tensorrt" else ()
        self._session = (
            gpu_session(content, config, device) if self._on_gpu else cpu_session(content)
        )

    def _upscale(self, frames: Frames) -> Frames:
        if self._profiles and not any(p.holds(*frames.shape[:3]) for p in self._profiles):
            raise EngineError(
                f"the engine takes {' or '.join(map(str, self._profiles))}, got"
                f" {len(frames)} frames of {frames.shape[2]}×{frames.shape[1]}",
                "build one with --shapes that hold them, or use --tile",
            )
        try:
            upscaled: Frames = self._session.run(None, {"frames": frames})[0]
        except Exception as exc:
            if self._on_gpu:
                raise translate(exc, f"frames of {frames.shape}") from exc
            raise EngineError(f"ONNX Runtime failed on {frames.shape}: {exc}") from exc
        return upscaled
