"""The roofline of a network on this device: ceilings measured in the same run, and the least time.

Source: Williams et al., "Roofline", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import onnx
import torch

from ..export.macs import macs, shapes_at
from ..plugins.onnx_functions import inline_functions
from ..runtime.layers import asked_precisions
from .recording import NotRun

# Bytes of a value, and the ceiling of products, by the precision of a layer's operands.
_BYTES = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
_CEILING = {"int8": "int8_ops", "fp16": "fp16_flops", "bf16": "fp16_flops", "fp32": "fp32_flops"}


def milliseconds(device: str, run: Callable[[], object], repeats: int) -> float:
    """Time of one call: on a GPU of calls back to back, on a CPU of one alone."""
    if device == "cpu":
        started = time.perf_counter()
        run()
        return (time.perf_counter() - started) * 1e3
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / repeats


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def ceilings(device: str) -> dict[str, float]:
    """Bytes/s of a device copy and operations/s of large products, a multiply-add being two.

    A CPU is measured with small ones: that is a dry run. A type that has no product here has
    no ceiling.
    """
    size, edge = (1 << 20, 256) if device == "cpu" else (1 << 30, 8192)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(run: Callable[[], object]) -> float:
        run()
        return min(milliseconds(device, run, 10) for _ in range(5)) / 1e3

    found = {"bytes_per_s": 2 * size / best(lambda: target.copy_(source))}
    for name, dtype, rounded in (
        ("fp16_flops", torch.float16, False),
        ("tf32_flops", torch.float32, True),
        ("fp32_flops", torch.float32, False),
    ):
        a, b = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
        with tf32(rounded):
            found[name] = 2 * edge**3 / best(lambda: a @ b)  # noqa: B023
    whole = torch.ones(edge, edge, dtype=torch.int8, device=device)
    with suppress(RuntimeError):  # there may be no such product on this device
        # the second operand lies in columns, as the GPU's int8 kernels want it
        found["int8_ops"] = 2 * edge**3 / best(lambda: torch._int_mm(whole, whole.t()))
    return found


def floor(
    graph: onnx.ModelProto, height: int, width: int, limits: Mapping[str, float]
) -> dict[str, float]:
    """The least time of one frame, convolution by convolution and product by product.

    Each reads its operands once, writes its result once, and is bound by the slower of memory
    and arithmetic in the precision that the graph asks for; what stands between them costs
    nothing. An engine that keeps results of a layer in the GPU's caches can be faster.

    Args:
        graph: As the target gets it, uint8 N×H×W×3 in.
        height: Of the frame, pixels.
        width: Likewise.
        limits: Of :func:`ceilings`.

    Returns:
        ``macs``, ``bytes``, ``floor_ms``, and ``memory_bound``, the share of that time in layers
        that memory binds.

    Raises:
        NotRun: A precision has no measured ceiling.
        ExportError: The shape of a tensor cannot be inferred.
    """
    plain = inline_functions(graph)
    counts, shapes = macs(plain, height, width), shapes_at(plain, height, width)
    asked = asked_precisions(plain)
    moved = bound = seconds = 0.0
    for node in plain.graph.node:
        if node.name not in counts:
            continue
        precision = asked[node.name] if asked[node.name] in _BYTES else "fp16"
        if _CEILING[precision] not in limits:
            raise NotRun(f"no {_CEILING[precision]} was measured on this device")
        # what an int8 layer gives is float
        result = max(_BYTES[precision], 2) * math.prod(shapes[node.output[0]])
        read = sum(math.prod(shapes[name]) for name in node.input[:2])
        carried = result + _BYTES[precision] * read
        memory = carried / limits["bytes_per_s"]
        arithmetic = 2 * counts[node.name] / limits[_CEILING[precision]]
        moved += carried
        seconds += max(memory, arithmetic)
        bound += memory if memory > arithmetic else 0.0
    return {
        "macs": float(sum(counts.values())),
        "bytes": moved,
        "floor_ms": seconds * 1e3,
        "memory_bound": bound / seconds if seconds else 0.0,
    }
