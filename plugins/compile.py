"""Compiles the kernels ahead of time, for any GPU, on any machine, into the cache directory."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from ..errors import PluginError
from ..files import cache_folder
from .compiled import CompiledKernel, read_kernel, write_kernel

TRITON_TYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}

FORMAT = 1
"""Of the files in the cache."""


@dataclass(frozen=True)
class KernelSource:
    """A Triton kernel with all that its machine code depends on.

    Attributes:
        function: The kernel.
        arguments: Name to Triton's type of each run-time argument, in the kernel's order.
        constants: Its compile-time arguments.
        warps: Of 32 threads each.
        stages: Of software pipelining.
    """

    function: Any
    arguments: Mapping[str, str]
    constants: Mapping[str, int | float]
    warps: int
    stages: int


def compile_kernel(source: KernelSource, capability: str) -> CompiledKernel:
    """Compile a kernel, or take it from the cache.

    Args:
        source: The kernel.
        capability: Compute capability of the GPU, ``8.6``; none needs to be here.

    Raises:
        PluginError: Triton does not compile for it, or is in its interpreting mode.
        OutputError: The cache cannot be written.
    """
    if triton.knobs.runtime.interpret:
        raise PluginError(
            "the kernels cannot be compiled where Triton interprets",
            "unset TRITON_INTERPRET",
        )
    folder = cache_folder() / "kernels" / _key(source, capability)
    if kept := read_kernel(folder):
        return kept
    kernel = _compile(source, capability)
    write_kernel(folder, kernel)
    return kernel


def _key(source: KernelSource, capability: str) -> str:
    """Digest of the source text of the kernel and all it calls, and of all options."""
    content = [
        FORMAT,
        triton.__version__,
        source.function.cache_key,
        list(source.arguments.items()),
        sorted(source.constants.items()),
        source.warps,
        source.stages,
        capability,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _compile(source: KernelSource, capability: str) -> CompiledKernel:
    number = int(capability.replace(".", ""))
    signature = {
        name: "constexpr" if name in source.constants else source.arguments[name]
        for name in source.function.arg_names
    }
    syntax_tree = ASTSource(source.function, signature, dict(source.constants))
    options = {"num_warps": source.warps, "num_stages": source.stages, "enable_fp_fusion": True}
    try:
        with triton.knobs.compilation.scope():
            triton.knobs.compilation.disable_line_info = True  # no paths in the engine
            built = triton.compile(
                syntax_tree, target=GPUTarget("cuda", number, 32), options=options
            )
    except Exception as exc:  # the compiler raises many kinds
        raise PluginError(
            f"Triton {triton.__version__} does not compile {source.function.__name__} for"
            f" compute capability {capability}: {exc}",
            "there the op's body of standard operators is used",
        ) from exc
    ptx = without_hidden_arguments(built.asm["ptx"], len(source.arguments))
    return CompiledKernel(
        name=built.metadata.name,
        capability=capability,
        threads=built.metadata.num_warps * 32,
        shared_bytes=built.metadata.shared,
        ptx=ptx,
        cubin=_assemble(ptx, number),
    )


def without_hidden_arguments(ptx: str, arguments: int) -> str:
    """Drop the arguments that Triton adds behind the kernel's own.

    They point to scratch memory that these kernels do not use. Who launches a kernel by its
    run-time arguments alone, as TensorRT does, passes none.

    Args:
        ptx: Of one kernel.
        arguments: Number of its own.

    Raises:
        PluginError: The kernel uses one of the others, or has fewer.
    """
    entry = re.search(r"\.visible \.entry (\w+)\((.*?)\n\)", ptx, re.DOTALL)
    if entry is None:
        raise PluginError("the compiled kernel has no entry")
    own = entry.group(2).split(",")
    hidden = [parameter.split()[-1] for parameter in own[arguments:]]
    if len(own) < arguments or any(f"[{name}" in ptx for name in hidden):
        raise PluginError(f"the kernel {entry.group(1)} takes more than its {arguments} arguments")
    return ptx[: entry.start(2)] + ",".join(own[:arguments]) + ptx[entry.end(2) :]


def _assemble(ptx: str, capability: int) -> bytes:
    """Machine code of PTX."""
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [get_ptxas(capability).path, f"--gpu-name={target.group(1)}", "-o", made, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PluginError(f"ptxas refuses the kernel: {done.stderr.strip()}")
        return made.read_bytes()
