"""Repairs: what makes a layer fit for int8 before any is given up to float.

All of them are of calibration, none trains:

- channels are equalised into the neighbouring weights (:mod:`.equalise`), and by a factor right
  before a layer where that alone can be done and wins more than it is worth;
- weights are rounded together (:mod:`.rounding`), and biases make up for what that shifts;
- the range of a layer's input is narrowed where the tuning windows gain by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import onnx
from numpy.typing import NDArray

from ..export.quantise import activations, quantisable_nodes
from .calibration_set import CalibrationSet
from .channels import ChannelStatistics, ChannelWatcher, convolved_tensors
from .equalise import Equalisation, equalise, own_input
from .journal import Journal, digest_model
from .observers import Observer
from .quantiser import Quantiser
from .ranges import Progress, RangeWatcher, collect_ranges
from .rounding import Covariances, covariances, round_weights
from .sensitivity import NARROWER, WORTH_A_TRY, NodeDrift, rank_nodes
from .suffix import Prefix
from .tuning import Psnr, Tuning

WORTH_FACTORS = 5e-3
"""Gain in dB of the whole graph from which factors of their own are worth their passes."""

OWN_FACTOR = "own factor"
EQUALISED = "equalised"


@dataclass(frozen=True)
class Repaired:
    """A float graph ready to be quantised, and what each layer alone loses then.

    Attributes:
        quantiser: The graph and its calibration.
        ranked: Every quantisable node, worst first.
        plain: Node to its loss in dB before the repairs that were chosen for it alone.
        repairs: Node to what was done to it.
        factors: Node to what each channel of its input was divided by.
        reference: PSNR of the float graph on the tuning windows, dB.
        baseline: Drift of plain int8: every layer, nearest rounding, no repair, dB.
        drift: Measures the drift of the graph with given layers in float on the tuning
            windows, dB.
    """

    quantiser: Quantiser
    ranked: tuple[NodeDrift, ...]
    plain: Mapping[str, float]
    repairs: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, NDArray[np.float32]]
    reference: Psnr
    baseline: float
    drift: Callable[[Sequence[str]], float]


def repair(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    tuning: Tuning,
    observer: Callable[[], Observer],
    journal: Journal,
    progress: Progress | None = None,
    in_pairs: bool = False,
) -> Repaired:
    """Calibrate and repair a graph, and measure its layers.

    Args:
        model: Float32 N×3×H×W in and out, after the graph passes; it is not changed.
        calibration: What activations are observed on.
        tuning: What choices are measured on; never the calibration pictures.
        observer: Makes the observer of one activation.
        journal: Recalls and keeps what was measured.
        progress: Told each step's name, the parts of it that are done, and all its parts.
        in_pairs: Whether int8 products must fit where they are added in pairs of 16 bits.

    Raises:
        DatasetError: The network is not finite on a picture.
        ExportError: The graph cannot be quantised.
    """
    work = _Work(model, calibration, tuning, observer, journal, progress, in_pairs)
    baseline = work.drift(Quantiser(model, work.observed, {}, {}, in_pairs))
    own = work.worth_own_factors()
    prepared, done = work.equalised(own)
    codes = work.codes(prepared, done)
    quantiser = work.quantiser(prepared, done, codes)
    ranked = work.ranked(quantiser, quantisable_nodes(model), narrower=NARROWER)
    read = _inputs(prepared)
    ranges = dict(quantiser.ranges)
    for node in ranked:
        low, high = ranges[read[node.node]]
        if node.reach < 1:
            ranges[read[node.node]] = (node.reach * low, node.reach * high)
    repaired = replace(quantiser, ranges=ranges)
    return Repaired(
        repaired,
        ranked,
        {node.node: own.get(node.node, node.plain) for node in ranked},
        {node.node: _repairs(node, done, own) for node in ranked},
        done.factors,
        work.reference,
        baseline,
        lambda float_nodes: work.drift(repaired, float_nodes),
    )


def _repairs(node: NodeDrift, done: Equalisation, own: Mapping[str, float]) -> tuple[str, ...]:
    """What was done to a node, in words."""
    said = []
    if node.node in done.factors:
        said.append(OWN_FACTOR if node.node in own else EQUALISED)
    if node.reach < 1:
        said.append(f"range × {node.reach:.2f}")
    return tuple(said)


def _inputs(model: onnx.ModelProto) -> dict[str, str]:
    """Quantisable node to the activation that it reads."""
    wanted = set(quantisable_nodes(model))
    return {node.name: node.input[0] for node in model.graph.node if node.name in wanted}


@dataclass(frozen=True)
class _Watched:
    """What was read off the float graph on the calibration pictures.

    Attributes:
        channels: Of the convolutions' inputs.
        ranges: Of the quantisable nodes' inputs.
        gathered: What weights are multiplied with; computed as it is read, once.
    """

    channels: Mapping[str, ChannelStatistics]
    ranges: dict[str, tuple[float, float]]
    gathered: Iterable[Covariances]


@dataclass
class _Work:
    """The steps of :func:`repair`, and what they share."""

    model: onnx.ModelProto
    calibration: CalibrationSet
    tuning: Tuning
    observer: Callable[[], Observer]
    journal: Journal
    progress: Progress | None
    in_pairs: bool

    @cached_property
    def reference(self) -> Psnr:
        """PSNR of the float graph on the tuning windows, dB."""
        key = (digest_model(self.model), self.tuning.digest)
        found: Psnr = self.journal.kept(lambda: self.tuning.psnr_of(self.model), *key)
        return found

    @cached_property
    def _watched(self) -> _Watched:
        """All that is read off the float graph, in as few runs over the pictures as can be."""
        channels = ChannelWatcher(convolved_tensors(self.model))
        ranges = RangeWatcher(activations(self.model), self.observer)
        pictures = self.calibration.pictures
        gathered = covariances(self.model, pictures, [channels, ranges], self.progress)
        first = next(gathered)
        return _Watched(channels.statistics(), ranges.ranges().bounds, chain([first], gathered))

    @cached_property
    def seen(self) -> Mapping[str, ChannelStatistics]:
        """Channels of the convolutions' inputs."""
        tensors = convolved_tensors(self.model)

        def collect() -> dict[str, NDArray[np.floating]]:
            found = self._watched.channels
            maxima = {f"maxima/{name}": found[name].maxima for name in tensors}
            return maxima | {f"means/{name}": found[name].means for name in tensors}

        key = (digest_model(self.model), self.calibration.sha256, "channels")
        kept = self.journal.arrays(collect, *key)
        return {n: ChannelStatistics(kept[f"maxima/{n}"], kept[f"means/{n}"]) for n in tensors}

    @cached_property
    def observed(self) -> Mapping[str, tuple[float, float]]:
        """Ranges of the quantisable nodes' inputs."""
        return self._ranges(self.model, lambda: self._watched.ranges)

    def codes(
        self, prepared: onnx.ModelProto, done: Equalisation
    ) -> Mapping[str, NDArray[np.int8]]:
        """Weights rounded together, for an equalised copy of the graph."""
        key = (digest_model(prepared), self.calibration.sha256, "codes", self.in_pairs)
        return self.journal.arrays(
            lambda: round_weights(prepared, self._watched.gathered, done.factors, self.in_pairs),
            *key,
        )

    @cached_property
    def observed_equalised(self) -> Mapping[str, tuple[float, float]]:
        """The same where every layer that can have one has a factor of its own."""
        model = self.equalised(self._candidates)[0]
        pictures = self.calibration.pictures
        # those before which no factor stands are as they were, and were observed
        tensors = [name for name in activations(model) if name not in self.observed]

        def collect() -> dict[str, tuple[float, float]]:
            return collect_ranges(model, pictures, tensors, self.observer, self.progress).bounds

        return self._ranges(model, collect)

    def _ranges(
        self, model: onnx.ModelProto, collect: Callable[[], dict[str, tuple[float, float]]]
    ) -> Mapping[str, tuple[float, float]]:
        key = (digest_model(model), self.calibration.sha256, self.observer())
        found = self.journal.kept(collect, *key)
        return {name: (low, high) for name, (low, high) in found.items()}

    @cached_property
    def _candidates(self) -> tuple[str, ...]:
        """Layers that only a factor right before them can equalise; not those at the picture,
        whose channels are even."""
        source = self.model.graph.input[0].name
        refused = self.equalised(())[1].refused
        inputs = _inputs(self.model)
        return tuple(node for node in refused if inputs[node] != source)

    def equalised(self, own: Collection[str]) -> tuple[onnx.ModelProto, Equalisation]:
        """A copy of the graph with even channels."""
        prepared = onnx.ModelProto()
        prepared.CopyFrom(self.model)
        maxima = {name: found.maxima for name, found in self.seen.items()}
        return prepared, equalise(prepared, maxima, own)

    def quantiser(
        self,
        prepared: onnx.ModelProto,
        done: Equalisation,
        codes: Mapping[str, NDArray[np.int8]] | None = None,
    ) -> Quantiser:
        """Ranges and means for an equalised copy of the graph."""
        before, after = _inputs(self.model), _inputs(prepared)
        means = {name: found.means for name, found in self.seen.items()}
        # an equalised activation has one reader, and its means are divided as it is
        means |= {after[node]: means[before[node]] / by for node, by in done.factors.items()}
        # what equalisation left alone has the range that it had
        ranges = {**self.observed, **self.observed_equalised}
        kept = {name: ranges[name] for name in activations(prepared)}
        return Quantiser(prepared, kept, means, codes or {}, self.in_pairs)

    def worth_own_factors(self) -> dict[str, float]:
        """Layers that get a factor right before them, to their loss without it, dB.

        None, those that gain alone, or all: many small gains are seen together only, so the
        whole graph decides, and more factors must bring more.
        """
        without = self.quantiser(*self.equalised(()))
        prefix = Prefix(without.model, self.tuning.inputs)
        plain = {n.node: n.drift for n in self.ranked(without, self._candidates, prefix)}
        every = self.quantiser(*self.equalised(self._candidates))
        made = {own_input(node): node for node in plain}
        able = [made[name] for name in activations(every.model) if name in made]
        losing = [node for node in able if plain[node] < -WORTH_A_TRY]
        alone = [
            found.node
            for found in self.ranked(every, losing, prefix)
            if found.drift > plain[found.node] + max(WORTH_A_TRY, -plain[found.node] / 5)
        ]
        chosen: list[str] = []
        lost = self.drift(without)
        for choice in (alone, able):
            drift = self.drift(self.quantiser(*self.equalised(choice)))
            if drift > lost + WORTH_FACTORS:
                chosen, lost = choice, drift
        return {node: plain[node] for node in chosen}

    def ranked(
        self,
        quantiser: Quantiser,
        nodes: Sequence[str],
        prefix: Prefix | None = None,
        narrower: Sequence[float] = (),
    ) -> tuple[NodeDrift, ...]:
        """What ``nodes`` alone lose."""
        return rank_nodes(
            quantiser, nodes, self.tuning, prefix, self.journal, narrower, self.progress
        )

    def drift(self, quantiser: Quantiser, float_nodes: Sequence[str] = ()) -> float:
        """Drift of a whole int8 graph on the tuning windows, dB."""
        graph = quantiser.graph(float_nodes)
        key = (digest_model(graph), self.tuning.digest)
        found = self.journal.kept(lambda: self.tuning.psnr_of(graph), *key)
        return self.tuning.drift(found, self.reference)
