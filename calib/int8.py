"""An int8 graph within a drift budget, from calibration and tuning pictures.

A network is calibrated and repaired once (:mod:`.repairs`), whatever the targets. Then for each
target, by what its layers cost there (:mod:`.cost`), the search chooses which of them stay in
float (:mod:`.search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from ..errors import ExportError
from ..export.macs import macs
from ..export.quantise import quantisable_nodes
from ..spec import TAIL, Precision
from .calibration_set import CalibrationSet
from .cost import COUNTED_AT, Costs, modelled_costs
from .journal import Journal
from .observers import OBSERVERS
from .outcome import Int8Report, Layer, Trial
from .pictures import NamedPicture
from .ranges import Progress
from .repairs import Repaired, repair
from .search import search
from .tuning import Tuning, tuning_pairs

MAX_DRIFT = 0.05
"""dB that the search may lose where no budget is given."""

MIN_INT8 = 0.8
"""Least share of the Conv and MatMul MACs in int8."""


@dataclass(frozen=True)
class Int8Result:
    """A calibrated network and the layers that a search left in float.

    Attributes:
        repaired: The calibrated network.
        float_nodes: Quantisable nodes left in float.
        report: Everything that was found.
    """

    repaired: Repaired
    float_nodes: tuple[str, ...]
    report: Int8Report

    def graph(self, rest: Precision) -> onnx.ModelProto:
        """The graph with Q/DQ, everything else still float32; ``lower`` to ``rest`` comes next.

        Raises:
            ExportError: Q/DQ of this type need a newer operator set.
        """
        return self.repaired.quantiser.graph(self.float_nodes, rest)


@dataclass(frozen=True)
class Int8Calibration:
    """A network that was calibrated and repaired, for a search by each target.

    Attributes:
        model: The float graph that it was made from.
        repaired: What the repairs made of it.
        tuning: What is measured on.
        journal: Of the measurements.
    """

    model: onnx.ModelProto
    repaired: Repaired
    tuning: Tuning
    journal: Journal

    def search(
        self,
        max_drift: float = MAX_DRIFT,
        min_int8: float = MIN_INT8,
        costs: Costs | None = None,
        rest: Precision = Precision.FP32,
        progress: Progress | None = None,
    ) -> Int8Result:
        """Choose the layers that stay in float.

        Args:
            max_drift: Budget in dB, from 0 on.
            min_int8: Least share of the Conv and MatMul MACs that stays int8, 0 to 1.
            costs: What the layers cost where the engine will run; modelled unless given.
            rest: Type of the layers that are not in int8, for the report.
            progress: Told the choices that are measured.

        Raises:
            ExportError: A number is out of its range.
        """
        if max_drift < 0 or not 0 <= min_int8 <= 1:
            raise ExportError(
                f"cannot search within {max_drift} dB with {min_int8:.0%} of the MACs in int8",
                "the budget starts from 0, the share lies between 0 and 1",
            )
        counts = macs(self.model, *COUNTED_AT)
        costs = costs or modelled_costs(self.model)
        repaired, ranked = self.repaired, self.repaired.ranked
        trials, chosen = search(
            ranked, counts, costs, repaired.drift, max_drift, min_int8, progress, self.tuning.tail
        )
        every = tuple(node.node for node in ranked)
        # of no drift by definition: what is not int8 is measured in fp32 in every trial
        in_float = Trial("all layers in float", every, 0.0, 0.0, costs.in_float)
        plain = replace(trials[0], label="plain int8, no repair", drift=repaired.baseline)
        report = Int8Report(
            max_drift,
            min_int8,
            _layers(self.model, repaired, counts, set(trials[chosen].float_nodes), rest),
            (*trials, in_float, plain),
            chosen,
            costs.unit,
            repaired.baseline,
            self.tuning.tail,
        )
        return Int8Result(repaired, trials[chosen].float_nodes, report)


def _layers(
    model: onnx.ModelProto,
    repaired: Repaired,
    counts: dict[str, int],
    in_float: set[str],
    rest: Precision,
) -> tuple[Layer, ...]:
    """The layers as a report shows them."""
    kinds = {node.name: node.op_type for node in model.graph.node}
    total = max(sum(counts.values()), 1)
    return tuple(
        Layer(
            node.node,
            kinds[node.node],
            counts[node.node] / total,
            repaired.plain[node.node],
            node.drift,
            repaired.repairs[node.node],
            rest if node.node in in_float else Precision.INT8,
        )
        for node in repaired.ranked
    )


def calibrate_int8(
    model: onnx.ModelProto,
    calibration: CalibrationSet,
    tuning: Sequence[NamedPicture],
    scale: int,
    observer: str = "percentile",
    journal: Journal | None = None,
    progress: Progress | None = None,
    in_pairs: bool = False,
    tail: float = TAIL,
) -> Int8Calibration:
    """Calibrate ``model`` and repair it.

    Args:
        model: Float32 N×3×H×W in and out, after the graph passes; it is not changed.
        calibration: What activations are observed on.
        tuning: Taken as HR; never the same pictures as ``calibration``.
        scale: Upscaling factor.
        observer: A name of :data:`~.observers.OBSERVERS`: what ranges are observed with.
        journal: Recalls and keeps what was measured, so that an interrupted search goes on.
        progress: Told each step's name, the parts of it that are done, and all its parts.
        in_pairs: Whether int8 products must fit where they are added in pairs of 16 bits.
        tail: Times the mean's loss that the worst window may lose.

    Raises:
        DatasetError: No tuning picture is usable.
        ExportError: The graph cannot be quantised.
    """
    if not quantisable_nodes(model):
        raise ExportError(
            "the graph has nothing to quantise",
            "int8 needs Conv or MatMul nodes with constant weights",
        )
    windows = Tuning(tuning_pairs(tuning, scale), scale, tail)
    journal = journal or Journal()
    repaired = repair(model, calibration, windows, OBSERVERS[observer], journal, progress, in_pairs)
    return Int8Calibration(model, repaired, windows, journal)
