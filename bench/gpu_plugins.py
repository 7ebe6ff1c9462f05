"""The OCA and ENLA kernels on an NVIDIA GPU: right, fast, and small, against plain PyTorch.

    python -m srdeploy.bench.gpu_plugins [--json FILE] [--rounds N] [--sweep]

Four parts, all in one run: the error against float64 beside that of plain PyTorch; the time of
one attention of HAT, HAT-S and ENLCN at 320×180 and 640×360 in fp16 against (a) PyTorch as the
papers write it, (b) torch.compile of that, (c) unfold and scaled_dot_product_attention, all
alternating; the fraction of the roofline, whose two ceilings are measured first; and the memory
that each takes beyond its output. ``--sweep`` times other block sizes as well. Where pycuda is
installed, the kernels compiled ahead of time run through it too.

Without a GPU, ``TRITON_INTERPRET=1`` makes it a dry run on the CPU with small maps, which shows
that the script is whole and that the kernels are right; its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from ..plugins.arguments import KERNEL_DTYPES
from ..plugins.enla import contract as enla_contract
from ..plugins.enla import launch as enla_launch
from ..plugins.oca import contract as oca_contract
from ..plugins.oca import kernel as oca_kernel
from ..plugins.oca import launch as oca_launch
from .machine import nvidia_smi
from .paper_ops import enla_written, oca_sdpa, oca_unfolded
from .plugin_cases import ENLA, OCA, EnlaCase, OcaCase, error, exactly
from .recording import write
from .roofline import ceilings, milliseconds

Contender = Callable[..., Tensor]
Case = OcaCase | EnlaCase

# one attention of the published networks; HAT pads its maps to whole windows
ALL: list[Case] = [*OCA, *ENLA]
SPEED: list[Case] = [
    OcaCase("HAT 320×180", (1, 192, 320), 30, 6, 16, 8),
    OcaCase("HAT 640×360", (1, 368, 640), 30, 6, 16, 8),
    OcaCase("HAT-S 320×180", (1, 192, 320), 24, 6, 16, 8),
    OcaCase("HAT-S 640×360", (1, 368, 640), 24, 6, 16, 8),
    EnlaCase("ENLCN 320×180", 1, (180, 320), 64, 256, 128),
    EnlaCase("ENLCN 640×360", 1, (360, 640), 64, 256, 128),
]
DRY_SPEED: list[Case] = [
    OcaCase("small HAT", (1, 16, 32), 30, 1, 16, 8),
    EnlaCase("small ENLCN", 1, (24, 32), 16, 32, 32),
]


def oca(*arguments: Any) -> Tensor:
    """The kernel, with what the torch op checks first."""
    q, k, v, bias, window, overlap, heads = arguments
    shapes = {"q": q.shape, "k": k.shape, "v": v.shape}
    shape = oca_contract.check(shapes, bias.shape, window, overlap, heads)
    return oca_launch.launch(q, k, v, bias, shape)


def enla(*arguments: Any) -> Tensor:
    """The kernels likewise."""
    q, k, v, projection, eps = arguments
    shape = enla_contract.check(q.shape, k.shape, v.shape, projection.shape, eps)
    return enla_launch.launch(q, k, v, projection, eps, shape)


class Machine:
    """Where it runs: a GPU, or the interpreter on a CPU."""

    def __init__(self) -> None:
        self.dry = triton.knobs.runtime.interpret or not torch.cuda.is_available()
        if self.dry and not triton.knobs.runtime.interpret:
            raise SystemExit("error: no NVIDIA GPU\nhint: TRITON_INTERPRET=1 makes a dry run")
        self.device = "cpu" if self.dry else "cuda"

    def facts(self) -> dict[str, Any]:
        """What a reader needs to believe the numbers."""
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dry_run": self.dry,
        }
        if self.dry:
            return facts
        capability = "{}.{}".format(*torch.cuda.get_device_capability())
        device = torch.cuda.get_device_name()
        return facts | {"device": device, "capability": capability} | nvidia_smi()

    def milliseconds(self, run: Callable[[], object], repeats: int) -> float:
        """Time of one call, the calls back to back."""
        return milliseconds(self.device, run, repeats)

    def extra_bytes(self, run: Callable[[], Tensor]) -> int | None:
        """Device memory that a call takes beyond its inputs and its output."""
        if self.dry:
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before - out.nbytes


def correctness(machine: Machine) -> list[dict[str, Any]]:
    """Error of kernel and plain PyTorch against float64, every case and type."""
    rows = []
    for case in ALL:
        ours, plain = (oca, oca_unfolded) if isinstance(case, OcaCase) else (enla, enla_written)
        for dtype in KERNEL_DTYPES:
            arguments = case.arguments(getattr(torch, dtype), machine.device)
            exact = plain(*exactly(arguments))
            got, theirs = error(ours(*arguments), exact), error(plain(*arguments), exact)
            rows.append(
                {"case": case.name, "dtype": dtype, "error": got, "plain_error": theirs}
                | {"within_twice": math.isfinite(got) and got <= 2 * theirs}
            )
    return rows


def floor(case: Case, limits: dict[str, float]) -> dict[str, float]:
    """Bytes, FLOPs, and the least time that the measured ceilings allow, in fp16."""
    arguments = case.arguments()
    tensors = [t for t in arguments if isinstance(t, Tensor)]
    output = arguments[0].numel() if isinstance(case, OcaCase) else arguments[2].numel()
    moved = 2 * (sum(t.numel() for t in tensors) + output)
    if isinstance(case, OcaCase):
        q, k, v, bias, *numbers = arguments
        shapes = {"q": q.shape, "k": k.shape, "v": v.shape}
        flops = {"fp16_flops": 2 * oca_contract.check(shapes, bias.shape, *numbers).macs}
    else:
        of_q, of_k, of_v, of_f = (t.shape for t in tensors)
        shape = enla_contract.check(of_q, of_k, of_v, of_f, arguments[4])
        half = shape.batch * shape.pixels * shape.features
        flops = {
            "fp16_flops": 4 * half * shape.embedded,
            "tf32_flops": 2 * half * (2 * shape.channels + 1),
        }
    seconds = max(moved / limits["bytes_per_s"], sum(n / limits[k] for k, n in flops.items()))
    return {"bytes": moved, "flops": sum(flops.values()), "floor_ms": seconds * 1e3}


def contenders(case: Case, machine: Machine) -> dict[str, Contender]:
    """Ours first."""
    backend = "eager" if machine.dry else "inductor"
    is_oca = isinstance(case, OcaCase)
    written: Contender = oca_unfolded if is_oca else enla_written
    compiled: Contender = torch.compile(written, backend=backend, dynamic=False)
    found: dict[str, Contender] = {"ours": oca if is_oca else enla, "eager": written}
    return found | {"compile": compiled} | ({"sdpa": oca_sdpa} if is_oca else {})


def speed(machine: Machine, limits: dict[str, float], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each contender, alternating, medians; ratios round by round."""
    rows = []
    for case in DRY_SPEED if machine.dry else SPEED:
        arguments = case.arguments(torch.float16, machine.device)
        runs: dict[str, Callable[[], Tensor]] = {}
        row: dict[str, Any] = {"case": case.name, **floor(case, limits), "failed": {}}
        for name, contender in contenders(case, machine).items():
            runs[name] = lambda f=contender, a=arguments: f(*a)  # type: ignore[misc]
            try:
                runs[name]()  # compiles
            except Exception as exc:  # out of memory, or a compiler that is not here
                row["failed"][name] = f"{type(exc).__name__}: {exc}"[:300]
                del runs[name]
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(machine.milliseconds(run, 20))
        row["ms"] = {name: statistics.median(t) for name, t in times.items()}
        row["extra_bytes"] = {name: machine.extra_bytes(run) for name, run in runs.items()}
        rows.append(row)
        rivals = [t for name, t in times.items() if name != "ours"]
        if "ours" not in times or not rivals:
            continue
        row["of_roofline"] = row["floor_ms"] / row["ms"]["ours"]
        ratios = sorted(min(r) / ours for ours, *r in zip(times["ours"], *rivals, strict=True))
        row["times_faster"] = {
            "median": statistics.median(ratios),
            "range": [ratios[0], ratios[-1]],
        }
    return rows


def memory(machine: Machine) -> dict[str, Any]:
    """Bytes beyond the output: OCA by overlap, ENLA by pixels."""
    by_overlap: dict[int, int | None] = {}
    by_pixels: dict[int, int | None] = {}
    for overlap in (0, 4, 8, 16):
        map_size, heads = ((1, 32, 32), 1) if machine.dry else ((1, 368, 640), 6)
        attention = OcaCase("", map_size, 30, heads, 16, overlap)
        arguments = attention.arguments(torch.float16, machine.device)
        by_overlap[overlap] = machine.extra_bytes(lambda: oca(*arguments))  # noqa: B023
    for height, width in ((512, 512), (1024, 512), (1024, 1024), (2048, 1024)):
        size = (height // 32, width // 32) if machine.dry else (height, width)
        linear = EnlaCase("", 1, size, 64, 64, 128)
        arguments = linear.arguments(torch.float16, machine.device)
        by_pixels[size[0] * size[1]] = machine.extra_bytes(lambda: enla(*arguments))  # noqa: B023
    return {"oca_extra_bytes_by_overlap": by_overlap, "enla_extra_bytes_by_pixels": by_pixels}


def through_pycuda(machine: Machine) -> list[dict[str, Any]] | str:
    """The kernels compiled ahead of time, numpy in and out, against the torch ops."""
    if machine.dry:
        return "needs a GPU"
    try:
        from ..runtime.cuda_launcher import CudaLauncher
    except ImportError as exc:
        return f"not run: {exc}"
    from ..plugins.enla import arrays as enla_arrays
    from ..plugins.oca import arrays as oca_arrays

    rows = []
    with CudaLauncher() as gpu:
        for case in ALL:
            arguments = case.arguments(torch.float16)
            packed: list[Any] = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
            is_oca = isinstance(case, OcaCase)
            plain = oca_unfolded if is_oca else enla_written
            exact = plain(*exactly(arguments))
            array = (oca_arrays.oca if is_oca else enla_arrays.enla)(gpu, *packed)
            got = torch.from_numpy(array)
            theirs = error(plain(*case.arguments(torch.float16, "cuda")).cpu(), exact)
            ours = error(got, exact)
            rows.append(
                {"case": case.name, "error": ours, "plain_error": theirs}
                | {"within_twice": math.isfinite(ours) and ours <= 2 * theirs}
            )
    return rows


def sweep(machine: Machine) -> list[dict[str, Any]]:
    """Other block sizes of the OCA kernel for HAT at 320×180, the fastest first."""
    case = (DRY_SPEED if machine.dry else SPEED)[0]
    q, k, v, bias, *numbers = case.arguments(torch.float16, machine.device)
    shapes = {"q": q.shape, "k": k.shape, "v": v.shape}
    shape = oca_contract.check(shapes, bias.shape, *numbers)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    windows = shape.windows_down * shape.windows_across
    rows = []
    for queries in (64, 128, 256):
        for keys in (32, 64, 128):
            for warps in (4, 8):
                for stages in (1, 2, 3):
                    blocks = {"BLOCK_Q": queries, "BLOCK_K": keys}
                    constants = oca_kernel.constants(shape, "float16") | blocks
                    grid = (windows * shape.heads * -(-(shape.window**2) // queries), shape.batch)
                    sizes = (shape.height, shape.width, q.stride(2))

                    def run() -> None:
                        oca_kernel.oca_kernel[grid](  # noqa: B023
                            q,
                            k,
                            v,
                            bias,
                            *sizes,  # noqa: B023
                            out,
                            **constants,  # noqa: B023
                            num_warps=warps,  # noqa: B023
                            num_stages=stages,  # noqa: B023
                        )

                    try:
                        run()
                        ms: float | None = machine.milliseconds(run, 20)
                    except Exception:  # too many registers or too much shared memory
                        ms = None
                    rows.append({**blocks, "warps": warps, "stages": stages, "ms": ms})
                    if machine.dry:
                        return rows
    return sorted(rows, key=lambda row: row["ms"] or float("inf"))


def report(found: dict[str, Any]) -> list[str]:
    """A short table; the JSON has the rest."""
    lines = [json.dumps(found["machine"])]
    for part in ("correctness", "pycuda"):
        rows = found.get(part)
        if not isinstance(rows, list):
            lines.append(f"{part}: {rows}")
            continue
        wrong = [row for row in rows if not row["within_twice"]]
        lines.append(f"{part}: {len(rows) - len(wrong)} of {len(rows)} within twice plain PyTorch")
        lines += [f"  not: {row}" for row in wrong]
    if found["machine"]["dry_run"]:
        return [*lines, "a dry run: its times mean nothing"]
    for row in found["speed"] if isinstance(found.get("speed"), list) else []:
        times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in row["ms"].items())
        lines.append(f"{row['case']}: {times}")
        if "times_faster" in row:
            faster, share = row["times_faster"]["median"], row["of_roofline"]
            lines.append(f"  {faster:.2f} times the best other, {share:.0%} of the roofline")
        lines += [f"  {name} failed: {why}" for name, why in row["failed"].items()]
    return lines


def main() -> None:
    """Run all parts, print a short table, write the JSON; exit with 1 where a case is wrong.

    A part that fails is recorded with its error, and the file is written after each part: time on
    a GPU is too dear to lose the others.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_plugins.json"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sweep", action="store_true")
    options = parser.parse_args()
    machine = Machine()
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32 in what we compare with
    found: dict[str, Any] = {"machine": machine.facts(), "ceilings": ceilings(machine.device)}
    parts: dict[str, Callable[[], Any]] = {
        "correctness": lambda: correctness(machine),
        "speed": lambda: speed(machine, found["ceilings"], options.rounds),
        "memory": lambda: memory(machine),
        "pycuda": lambda: through_pycuda(machine),
    }
    if options.sweep:
        parts["sweep"] = lambda: sweep(machine)
    for name, part in parts.items():
        try:
            with torch.no_grad():
                found[name] = part()
        except Exception as exc:
            found[name] = f"failed: {type(exc).__name__}: {exc}"
        write(options.json, found)
    print("\n".join(report(found)))
    print(f"written: {options.json}")
    judged = [found[part] for part in ("correctness", "pycuda")]
    right = [all(row["within_twice"] for row in rows) for rows in judged if isinstance(rows, list)]
    if isinstance(found["correctness"], str) or not all(right):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
