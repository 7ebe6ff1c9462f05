"""The document of :mod:`.gpu_engines` as a short table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .recording import FAILED, NOT_RUN, marked


def lines(found: dict[str, Any]) -> list[str]:
    """One line for each thing measured, then what failed and what was not run."""
    made = []
    for name, target in found["targets"].items():
        if "models" in target:
            made += [f"{name} {target['version']}", *_golden(target["golden"])]
            for model, measured in target["models"].items():
                made += _model(found["networks"][model], measured)
        if target.get("dry_run"):
            made.append("a dry run on the CPU: its times mean nothing")
    return [*made, *_left_out(found, FAILED, "failed"), *_left_out(found, NOT_RUN, "not run")]


def _left_out(found: dict[str, Any], mark: str, word: str) -> Iterator[str]:
    """A line for each reason; the JSON has it at every part."""
    places: dict[str, list[str]] = {}
    for place, reason in marked(found, mark):
        places.setdefault(reason, []).append(place)
    for reason, left_out in places.items():
        others = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        yield f"{word}: {left_out[0]}{others}: {reason}"


def _golden(rows: Any) -> Iterator[str]:
    if isinstance(rows, list):
        right = sum(row["within"] for row in rows)
        yield f"  golden tensors: {right} of {len(rows)} networks within the tolerance"
        yield from (f"    not: {row}" for row in rows if not row["within"])


def _model(network: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    weights = "random weights" if network["random_weights"] else network["weights"]
    yield f"  {network['variant']} ({weights})"
    if "max_relative_error" in found["parity"]:
        yield f"    float32 against PyTorch: {found['parity']['max_relative_error']:.2g}"
    for precision, measured in found.items():
        if "seconds" in measured.get("build", {}):
            yield from _engine(precision, measured)


def _engine(precision: str, found: dict[str, Any]) -> Iterator[str]:
    seconds = found["build"]["seconds"]
    yield (
        f"    {precision}: built in {seconds['cold']:.1f} s,"
        f" from the store in {seconds['from_store']:.2f} s"
    )
    for record in found["drift"] if isinstance(found["drift"], list) else []:
        yield (
            f"      {record['dataset']}: drift {record['drift']:+z.3f} dB,"
            f" fidelity {record['fidelity']:.1f} dB"
        )
    if "graph_times_faster" in found["graphs"]:
        ratio = found["graphs"]["graph_times_faster"]
        same = "bit for bit the same" if found["graphs"]["bit_identical"] else "NOT the same"
        yield f"      CUDA graph over plain launches: {_ratio(ratio)}, {same}"
    for name, part in found.items():
        if name.startswith("speed") and "contestants" in part:
            yield from _speed(name, part)


def _speed(name: str, found: dict[str, Any]) -> Iterator[str]:
    shares = found["roofline"].get("share", {})
    for contestant, figures in found["contestants"].items():
        if "frames_per_second" not in figures:
            continue
        times = figures["milliseconds"]
        line = (
            f"      {name}: {contestant}: {figures['frames_per_second']:.1f} frames/s,"
            f" {times['p50']:.2f} ms (p99 {times['p99']:.2f})"
        )
        if figures["gpu_memory_mib"] is not None:
            line += f", {figures['gpu_memory_mib']:.0f} MiB"
        if contestant in shares:
            line += f", {shares[contestant]:.0%} of the roofline"
        yield line
    for ours, ratios in found["times_faster"].items():
        for rival, ratio in ratios.items():
            yield f"        {ours} / {rival}: {_ratio(ratio)}"


def _ratio(ratio: dict[str, Any]) -> str:
    low, high = ratio["range"]
    return f"{ratio['median']:.2f} ({low:.2f}–{high:.2f})"
