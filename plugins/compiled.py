"""Compiled kernels: what a launch needs, their files in the cache, and who launches them.

Nothing here needs Triton or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import OutputError
from ..files import write_files


@dataclass(frozen=True)
class CompiledKernel:
    """Machine code with what a launch needs.

    Its arguments are the kernel's run-time arguments, no others.

    Attributes:
        name: Of the entry.
        capability: Compute capability, ``8.6``.
        threads: Of a block.
        shared_bytes: Dynamic shared memory of a block.
        ptx: Source for the driver's compiler.
        cubin: Machine code for this capability.
    """

    name: str
    capability: str
    threads: int
    shared_bytes: int
    ptx: str
    cubin: bytes


class Launcher(Protocol):
    """A GPU that runs compiled kernels on numpy arrays."""

    capability: str
    """Its compute capability, ``8.6``."""

    def run(
        self,
        kernel: CompiledKernel,
        grid: tuple[int, int],
        arguments: Sequence[NDArray[Any] | int],
        outputs: Sequence[NDArray[Any]],
    ) -> None:
        """Run a kernel and wait.

        Args:
            kernel: Compiled for this capability.
            grid: Programs along x and y.
            arguments: The kernel's, in order: arrays, and integers of 32 bits.
            outputs: Those of the arrays that the kernel fills.
        """


def read_kernel(folder: Path) -> CompiledKernel | None:
    """Read a kernel from its folder in the cache; None where it is missing or damaged."""
    try:
        facts = json.loads((folder / "kernel.json").read_text())
        ptx, cubin = (folder / "kernel.ptx").read_text(), (folder / "kernel.cubin").read_bytes()
        digest = facts.pop("sha256")
        kernel = CompiledKernel(**facts, ptx=ptx, cubin=cubin)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return kernel if _digest(kernel) == digest else None


def write_kernel(folder: Path, kernel: CompiledKernel) -> None:
    """Write a kernel to its folder in the cache, the file that vouches for the others last.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be made: {exc.strerror}") from exc
    facts = {**asdict(kernel), "sha256": _digest(kernel)}
    ptx, cubin = facts.pop("ptx"), facts.pop("cubin")
    write_files(
        {
            folder / "kernel.ptx": ptx.encode(),
            folder / "kernel.cubin": cubin,
            folder / "kernel.json": json.dumps(facts, indent=1).encode(),
        }
    )


def _digest(kernel: CompiledKernel) -> str:
    facts = asdict(kernel)
    cubin = facts.pop("cubin")
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + cubin).hexdigest()
