"""What each layer costs in int8: PSNR on Y with that layer alone quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import ExportError
from ..export.quantise import activation_scale, quantisable_nodes, scale_name
from ..runtime.targets.onnxruntime import Runner, graph_runner
from .journal import Journal
from .quantiser import Quantiser
from .ranges import Progress
from .suffix import Prefix, Values
from .tuning import Psnr, Tuning

NARROWER = (0.85, 0.7, 0.6, 0.5)
"""Shares of an observed range that are tried: what a narrower range gains in resolution can
outweigh what it cuts off. Down to 0.3 the authors' VapSR-S gained on the tuning windows and lost on
the bundled drawings, −0.118 dB for −0.102."""

WORTH_A_TRY = 5e-4
"""Loss in dB from which a repair of one layer is tried, and the gain that it must bring."""


@dataclass(frozen=True)
class NodeDrift:
    """What quantising one node alone does, as :meth:`.Tuning.drift` says it, dB; below 0 is a loss.

    Attributes:
        node: Name of the node.
        drift: With the best range of its input that was found.
        plain: With the observed range.
        reach: Share of the observed range that is the best one.
        windows: With the best range, of each tuning window; empty where that is not known.
    """

    node: str
    drift: float
    plain: float
    reach: float = 1.0
    windows: tuple[float, ...] = ()


def rank_nodes(
    quantiser: Quantiser,
    nodes: Sequence[str],
    tuning: Tuning,
    prefix: Prefix | None = None,
    journal: Journal | None = None,
    narrower: Sequence[float] = NARROWER,
    progress: Progress | None = None,
) -> tuple[NodeDrift, ...]:
    """Quantise each of ``nodes`` alone and measure, worst first (ties in the graph's order).

    Each measurement starts from the activations before its node.

    Args:
        quantiser: Of the graph.
        nodes: Names of quantisable nodes.
        tuning: What to measure on.
        prefix: The float graph whose activations are kept, on the tuning inputs; the
            quantiser's own unless given.
        journal: Recalls and keeps what was measured.
        narrower: Shares of an observed range that are tried where a layer loses something;
            only where no other layer reads the tensor.
        progress: Told the nodes that are done.

    Raises:
        ExportError: A range is missing, or a node is not quantisable.
    """
    every = set(quantisable_nodes(quantiser.model))
    unknown = sorted(set(nodes) - every)
    if unknown:
        raise ExportError(f"no quantisable node is called {', '.join(unknown)}")
    journal = journal or Journal()
    prefix = prefix or Prefix(quantiser.model, tuning.inputs)
    base = (quantiser.digest(), tuning.digest)
    inputs = {n.name: n.input[0] for n in quantiser.model.graph.node if n.name in every}
    readers = Counter(inputs.values())
    reference = journal.kept(lambda: tuning.psnr_of(prefix.model), *base, "float")
    found: list[NodeDrift] = []
    for block in prefix.blocks({node: prefix.reads(node) for node in nodes}):
        kept = _Kept(prefix, block)
        for node in block:
            alone = _Alone(quantiser, node, inputs[node], kept, tuning)

            def lost(reach: float, node: str = node, alone: _Alone = alone) -> NodeDrift:
                step = alone.step(reach)
                psnr = journal.kept(lambda: alone.psnr(step), *base, node, step)
                drift = tuning.drift(psnr, reference)
                return NodeDrift(node, drift, drift, reach, tuple(np.subtract(psnr, reference)))

            shares = narrower if readers[inputs[node]] == 1 else ()
            found.append(_best(lost, shares))
            if progress:
                progress("ranking layers", len(found), len(nodes))
    order = {node: index for index, node in enumerate(nodes)}
    return tuple(sorted(found, key=lambda drift: (drift.drift, order[drift.node])))


def _best(lost: Callable[[float], NodeDrift], narrower: Sequence[float]) -> NodeDrift:
    """The widest range that loses least, or nearly so."""
    plain = best = lost(1.0)
    for share in narrower if plain.drift < -WORTH_A_TRY else ():
        narrowed = lost(share)
        if narrowed.drift > best.drift + max(WORTH_A_TRY, -best.drift / 10):
            best = narrowed
        elif narrowed.drift < 2 * plain.drift:
            break  # it cuts off what matters
    return replace(best, plain=plain.drift)


class _Kept:
    """The activations that a block of nodes starts from, made when the first is measured."""

    def __init__(self, prefix: Prefix, block: Sequence[str]) -> None:
        self.prefix = prefix
        self.tensors = {name for node in block for name in prefix.reads(node)}

    @cached_property
    def values(self) -> list[Values]:
        """Of each tuning input."""
        return self.prefix.activations(self.tensors)


class _Alone:
    """The graph with one node in int8, run from that node on; opened when first measured."""

    def __init__(
        self, quantiser: Quantiser, node: str, tensor: str, kept: _Kept, tuning: Tuning
    ) -> None:
        self.quantiser, self.node, self.tensor = quantiser, node, tensor
        self.kept, self.tuning = kept, tuning

    def step(self, reach: float) -> float:
        """The scale of the node's input at a share of its observed range."""
        low, high = self.quantiser.ranges[self.tensor]
        return activation_scale(reach * low, reach * high)

    def psnr(self, step: float) -> Psnr:
        """PSNR-Y on the tuning windows, dB."""
        run, scale = self._opened
        feeds = {scale: np.array(step, np.float32)}
        sink = self.quantiser.model.graph.output[0].name
        reads = self._part.graph.input
        return self.tuning.psnr(
            run(feeds | {value.name: window[value.name] for value in reads})[sink]
            for window in self.kept.values
        )

    @cached_property
    def _part(self) -> onnx.ModelProto:
        """From the node to the output; everything else that it reads is an input."""
        model, prefix = self.quantiser.model, self.kept.prefix
        alone = self.quantiser.graph(set(quantisable_nodes(model)) - {self.node})
        there = {node.name for node in model.graph.node}
        before = {node.name for node in prefix.model.graph.node}
        # an equalisation of its own right before the node is not in the prefix's graph
        own = {
            node.name
            for node in model.graph.node
            if self.tensor in node.output and node.name not in before
        }
        start = {node.name for node in alone.graph.node} - there | own | {self.node}
        return prefix.suffix(alone, start)

    @cached_property
    def _opened(self) -> tuple[Runner, str]:
        """The part as a function, its scale an input, so that one session serves every range."""
        part = onnx.ModelProto()
        part.CopyFrom(self._part)
        scale = scale_name(self.tensor)
        kept = [tensor for tensor in part.graph.initializer if tensor.name != scale]
        del part.graph.initializer[:]
        part.graph.initializer.extend(kept)
        part.graph.input.append(helper.make_tensor_value_info(scale, TensorProto.FLOAT, []))
        return graph_runner(part), scale
