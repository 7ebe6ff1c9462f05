"""Memory of the OCA and ENLA ops on the CPU, beside plain PyTorch as the papers write them.

    python -m srdeploy.bench.plugin_memory

Printed is the most that tensors take at a time during a call, beyond its inputs and output.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ..plugins.enla.op import enla
from ..plugins.oca.op import oca
from .paper_ops import enla_written, oca_unfolded
from .plugin_cases import EnlaCase, OcaCase

MEBI = 1 << 20


def extra_bytes(run: Callable[[], Tensor]) -> int:
    """The most that a call allocates at a time on the CPU, beyond its output."""
    out = 0
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen, torch.no_grad():
        out = run().nbytes
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most - out


def main() -> None:
    """Print both tables."""
    print("OCA, map 320×192 of 180 channels (HAT), 6 heads, window 16, float32: MiB extra")
    print("overlap     op   unfolded")
    for overlap in (0, 4, 8, 16):
        arguments = OcaCase("", (1, 192, 320), 30, 6, 16, overlap).arguments()
        ours, theirs = (
            extra_bytes(lambda f=f: f(*arguments)) / MEBI  # type: ignore[misc]  # noqa: B023
            for f in (oca, oca_unfolded)
        )
        print(f"{overlap:7} {ours:6.0f} {theirs:10.0f}")
    print("ENLA, 64 channels of embeddings and values, 128 features, float32: MiB extra")
    print(" Mpixel     op    written    inputs and output")
    for height, width in ((512, 512), (1024, 512), (1024, 1024), (2048, 1024)):
        arguments = EnlaCase("", 1, (height, width), 64, 64, 128).arguments()
        ours, theirs = (
            extra_bytes(lambda f=f: f(*arguments)) / MEBI  # type: ignore[misc]  # noqa: B023
            for f in (enla, enla_written)
        )
        held = 4 * arguments[0].nbytes / MEBI
        print(f"{height * width / MEBI:7.2f} {ours:6.0f} {theirs:10.0f} {held:20.0f}")


if __name__ == "__main__":
    main()
