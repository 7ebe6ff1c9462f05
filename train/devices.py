"""The devices of a training, on Lightning Fabric: it places, casts, and joins the processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ..errors import SrDeployError, TrainingError
from ..interruption import handling_signals

Made = TypeVar("Made")

# It would print a banner in each process.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


class Devices:
    """What one process knows of the devices that train together; one process per device.

    Attributes:
        count: Devices, and processes.
        rank: Of this process, from 0.
        device: Where this process computes.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.count: int = fabric.world_size
        self.rank: int = fabric.global_rank
        self.device: torch.device = fabric.device

    @property
    def first(self) -> bool:
        """Whether this process validates, saves and reports."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This process's share of a batch of ``size``, which its count divides."""
        share = size // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def placed(self, tensor: Tensor) -> Tensor:
        """A tensor on this process's device."""
        return tensor.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the run, for a network that is called as it is."""
        return self._fabric.autocast()

    def mean(self, values: Tensor) -> list[float]:
        """The mean over all processes of each of a few numbers."""
        if self.count > 1:
            reduced = self._fabric.all_reduce(values, reduce_op="mean")
            assert isinstance(reduced, Tensor)  # a tensor goes in
            values = reduced
        found: list[float] = values.tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every process asks at the same time."""
        return flag if self.count == 1 else self.mean(torch.tensor([float(flag)]))[0] > 0

    def prepare(
        self, network: nn.Module, optimiser: torch.optim.Optimizer, compiled: bool = False
    ) -> Prepared:
        """Move a network to this process's device and let its gradients be shared.

        Args:
            network: Changed in place: it stays the one that holds the weights.
            optimiser: Of its parameters.
            compiled: Call it through ``torch.compile``.
        """
        whole: Any = torch.compile(network) if compiled else network
        called, wrapped = self._fabric.setup(whole, optimiser)
        return Prepared(self, network, called, optimiser, self._fabric.backward, wrapped.step)


@dataclass(frozen=True)
class Prepared:
    """A network and its optimiser on the devices.

    Attributes:
        devices: Where they are.
        network: Holds the weights.
        called: The same for a training step: in the run's precision, gradients shared.
        optimiser: Holds the moments and rates.
        backward: Takes the loss.
        update: Lets the optimiser take a step.
    """

    devices: Devices
    network: nn.Module
    called: Callable[[Tensor], Tensor]
    optimiser: torch.optim.Optimizer
    backward: Callable[[Tensor], None]
    update: Callable[[], object]


def _fabric(count: int, precision: str, accelerator: str) -> Fabric:
    strategy = "ddp_spawn" if count > 1 else "auto"
    try:
        return Fabric(
            accelerator=accelerator,
            devices=count,
            strategy=strategy,
            precision=_PRECISIONS[precision],  # type: ignore[arg-type]
        )
    except Exception as exc:  # Fabric and its accelerators raise kinds of their own
        raise TrainingError(
            f"{count} device(s) cannot train here: {exc}", "choose other --devices"
        ) from exc


def this_device(precision: str = "32", accelerator: str = "auto") -> Devices:
    """The one device that a run takes by itself: a GPU where there is one, else the CPU."""
    return Devices(_fabric(1, precision, accelerator))


def on_devices(
    function: Callable[..., Made],
    *arguments: Any,
    count: int = 1,
    precision: str = "32",
    accelerator: str = "auto",
    threads: int | None = None,
) -> Made:
    """Call ``function(devices, *arguments)``, in ``count`` processes where there are several.

    Args:
        function: Of a module; with several devices it and its arguments are pickled.
        arguments: What it takes after the devices.
        count: Devices; on a CPU, processes that share it.
        precision: ``32`` or ``bf16``.
        accelerator: As Fabric names them, such as ``cpu``.
        threads: Of the CPU, in each process; None for PyTorch's own choice.

    Returns:
        What it gives in the first process.

    Raises:
        TrainingError: There are not so many devices, or a process failed otherwise.
        SrDeployError: As the function raises it.
        KeyboardInterrupt: The processes were asked to end, and have.
    """
    if count == 1:
        if threads:
            torch.set_num_threads(threads)
        return function(this_device(precision, accelerator), *arguments)
    fabric = _fabric(count, precision, accelerator)
    failures: SimpleQueue[BaseException] = multiprocessing.get_context("spawn").SimpleQueue()
    launch: Any = fabric.launch  # whose type knows of no arguments
    with _passing_signals_on() as asked:
        try:
            made: Made = launch(_work, failures, threads, _Call(function, arguments))
        except (ProcessRaisedException, ProcessExitedException) as exc:
            if asked:
                raise KeyboardInterrupt from exc
            if not failures.empty():
                raise failures.get() from exc
            raise TrainingError(f"a process of the training failed: {exc}") from exc
    if not failures.empty():
        raise failures.get()
    return made


class _Call:
    """What to call with what. Fabric looks into lists and dataclasses on their way, not into it."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments


def _work(
    fabric: Fabric,
    failures: SimpleQueue[BaseException],
    threads: int | None,
    call: _Call,
) -> Any:
    """What each process does: its errors go to the one that started it."""
    if threads:
        torch.set_num_threads(threads)
    try:
        return call.function(Devices(fabric), *call.arguments)
    except SrDeployError as exc:
        failures.put(exc)
        raise
    except KeyboardInterrupt as exc:  # all of them end so; one tells
        if fabric.global_rank == 0:
            failures.put(exc)
        return None


@contextmanager
def _passing_signals_on() -> Iterator[list[int]]:
    """Pass what asks this process to end to its children, which save before they end."""
    asked: list[int] = []

    def pass_on(number: int, _: object) -> None:
        asked.append(number)
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    with handling_signals(pass_on):
        yield asked
