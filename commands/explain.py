"""The layers of an engine as lines: precision as built against what was asked, and time."""

from __future__ import annotations

from collections.abc import Iterator

from ..runtime.layers import BuiltLayer, LayerReport
from . import Say

SLOWEST = 5
MOST_NODES = 3


def say_layers(report: LayerReport, everything: bool, say: Say) -> None:
    """Print what is known of the layers of an engine.

    Args:
        report: As they were built.
        everything: Whether to print every layer, or only what differs and takes longest.
        say: Takes lines for the user.
    """
    if not report.layers:
        if everything:
            say("this target does not tell its layers")
        return
    for line in layer_lines(report) if everything else _summary(report):
        say(line)


def layer_lines(report: LayerReport) -> Iterator[str]:
    """Every layer, then every convolution and matrix product."""
    total = sum(layer.milliseconds or 0 for layer in report.layers)
    yield f"{'ms':>8} {'share':>6}  {'reads':<16} {'writes':<10} {'kind':<16} layer"
    for layer in report.layers:
        yield _layer_line(layer, total)
    yield "precision of convolutions and matrix products, asked -> built:"
    for node in report.nodes:
        mark = "  <- differs" if node.differs else ""
        yield f"  {node.asked:>5} -> {node.built or 'not told':<8} {node.node}{mark}"


def _layer_line(layer: BuiltLayer, total: float) -> str:
    took, share = "-", "-"
    if layer.milliseconds is not None:
        took = f"{layer.milliseconds:.3f}"
        share = f"{layer.milliseconds / total:.1%}" if total else "-"
    reads, writes = (" ".join(dict.fromkeys(types)) for types in (layer.inputs, layer.outputs))
    what = ", ".join(layer.nodes[:MOST_NODES]) or layer.name
    if len(layer.nodes) > MOST_NODES:
        what += f" and {len(layer.nodes) - MOST_NODES} more"
    return f"{took:>8} {share:>6}  {reads:<16} {writes:<10} {layer.kind:<16} {what}"


def _summary(report: LayerReport) -> Iterator[str]:
    """What the builder chose, and where the time goes."""
    counts: dict[str, int] = {}
    for node in report.nodes:
        kind = node.built or "not told"
        counts[kind] = counts.get(kind, 0) + 1
    built = ", ".join(f"{count} in {kind}" for kind, count in sorted(counts.items()))
    yield f"{len(report.layers)} layers; convolutions and matrix products: {built}"
    timed = [layer for layer in report.layers if layer.milliseconds is not None]
    total = sum(layer.milliseconds or 0 for layer in timed)
    slowest = sorted(timed, key=lambda layer: -(layer.milliseconds or 0))[:SLOWEST]
    for layer in slowest:
        yield _layer_line(layer, total)
