"""The layers of an engine as lines: precision as built against what was asked, and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..console import printable
from ..runtime.layers import BuiltLayer, LayerReport, NodePrecision
from ..spec import KernelGroup
from . import Say

if TYPE_CHECKING:
    from rich.console import RenderableType

Show: TypeAlias = "Callable[[RenderableType], None]"
"""Takes what rich draws, for the user."""

SLOWEST = 5
MOST_NODES = 3
LAYER_HEADS = ("ms", "share", "reads", "writes", "kind", "layer")
NODE_HEADS = ("asked", "built", "", "node")
KERNEL_HEADS = ("off, of 255", "may be", "layers, alone in int8")
NUMBERS = frozenset({"ms", "share", "off, of 255", "may be"})


def show_layers(report: LayerReport, everything: bool, say: Say, show: Show) -> None:
    """Print what is known of the layers of an engine.

    Args:
        report: As they were built.
        everything: Whether to print every layer, or only what differs and takes longest.
        say: Takes lines for the user.
        show: Takes tables.
    """
    if not report.layers:
        if everything:
            say("this target does not tell its layers")
        return
    total = sum(layer.milliseconds or 0 for layer in report.layers)
    if everything:
        show(_table(LAYER_HEADS, (_layer_cells(layer, total) for layer in report.layers)))
        say("precision of convolutions and matrix products:")
        show(_table(NODE_HEADS, map(_node_cells, report.nodes)))
        return
    say(_summary(report))
    timed = [layer for layer in report.layers if layer.milliseconds is not None]
    if slowest := sorted(timed, key=lambda layer: -(layer.milliseconds or 0))[:SLOWEST]:
        show(_table(LAYER_HEADS, (_layer_cells(layer, total) for layer in slowest)))


def show_kernels(groups: Sequence[KernelGroup], show: Show) -> None:
    """Print how far the kernels of each kind of layers are from the graph."""
    if groups:
        show(_table(KERNEL_HEADS, map(_kernel_cells, groups)))


def _kernel_cells(group: KernelGroup) -> tuple[str, ...]:
    return f"{group.difference:.2f}", f"{group.bound:.2f}", group.layers


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """The last column takes what room is left and is wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold", justify="right" if head in NUMBERS else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _layer_cells(layer: BuiltLayer, total: float) -> tuple[str, ...]:
    took, share = "–", "–"
    if layer.milliseconds is not None:
        took = f"{layer.milliseconds:.3f}"
        share = f"{layer.milliseconds / total:.1%}" if total else "–"
    reads, writes = (" ".join(dict.fromkeys(types)) for types in (layer.inputs, layer.outputs))
    what = ", ".join(layer.nodes[:MOST_NODES]) or layer.name
    if len(layer.nodes) > MOST_NODES:
        what += f" and {len(layer.nodes) - MOST_NODES} more"
    return took, share, reads, writes, layer.kind, what


def _node_cells(node: NodePrecision) -> tuple[str, ...]:
    return node.asked, node.built or "not told", "differs" if node.differs else "", node.node


def _summary(report: LayerReport) -> str:
    """What the builder chose."""
    counts: dict[str, int] = {}
    for node in report.nodes:
        kind = node.built or "not told"
        counts[kind] = counts.get(kind, 0) + 1
    built = ", ".join(f"{count} in {kind}" for kind, count in sorted(counts.items()))
    return f"{len(report.layers)} layers; convolutions and matrix products: {built}"
