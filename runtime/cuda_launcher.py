"""Launches of compiled kernels on numpy arrays, through pycuda."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from ..errors import EngineError
from ..plugins.compiled import CompiledKernel
from .cuda import PrimaryContext


class CudaLauncher:
    """The first GPU with its primary context; a :class:`~srdeploy.plugins.compiled.Launcher`.

    Use it in a ``with`` statement, in one thread.

    Attributes:
        name: What the driver calls it.
        capability: Compute capability, ``8.6``.

    Raises:
        TargetUnavailable: There is no such GPU, or no driver.
    """

    def __init__(self) -> None:
        self._primary = PrimaryContext(0)
        self.name, self.capability = self._primary.name, self._primary.capability
        self._stack = ExitStack()

    def __enter__(self) -> CudaLauncher:
        with ExitStack() as stack:
            stack.callback(self._primary.close)
            stack.enter_context(self._primary.current())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(
        self,
        kernel: CompiledKernel,
        grid: tuple[int, int],
        arguments: Sequence[NDArray[Any] | int],
        outputs: Sequence[NDArray[Any]],
    ) -> None:
        """Run a kernel and wait; see :class:`~srdeploy.plugins.compiled.Launcher`.

        Raises:
            EngineError: The kernel is for another GPU, or CUDA fails.
        """
        if kernel.capability != self.capability:
            raise EngineError(
                f"{kernel.name} was compiled for compute capability {kernel.capability},"
                f" {self.name} has {self.capability}"
            )
        filled = {id(array) for array in outputs}
        if filled - {id(a) for a in arguments}:
            raise EngineError("an output is not among the kernel's arguments")
        packed = [
            np.int32(a)
            if isinstance(a, int | np.integer)
            # bytes: numpy lends no buffer of bfloat16
            else (cuda.Out if id(a) in filled else cuda.In)(_bytes(a, id(a) in filled))
            for a in arguments
        ]
        try:
            _launch(kernel, grid, packed)
        except cuda.Error as exc:
            # without the traceback: its frames hold the device's memory
            raise EngineError(
                f"{kernel.name} failed on {self.name}: {exc}"
            ) from exc.with_traceback(None)
        finally:
            packed.clear()


def _launch(kernel: CompiledKernel, grid: tuple[int, int], packed: Sequence[Any]) -> None:
    function = cuda.module_from_buffer(kernel.cubin).get_function(kernel.name)
    function.set_attribute(
        cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_bytes
    )
    function(*packed, block=(kernel.threads, 1, 1), grid=grid, shared=kernel.shared_bytes)
    cuda.Context.synchronize()


def _bytes(array: NDArray[Any], is_output: bool) -> NDArray[np.uint8]:
    """The array's memory; a copy only of an input that is not dense."""
    if is_output and not (array.flags.c_contiguous and array.flags.writeable):
        raise EngineError("an output must be dense and writable")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
