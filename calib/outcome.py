"""What the search for an int8 graph found, for reports: layers, trials, costs."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import TAIL, Precision


@dataclass(frozen=True)
class Layer:
    """One quantisable node.

    Attributes:
        node: Name of the ONNX node.
        op: ``Conv`` or ``MatMul``.
        mac_share: Its share of all Conv and MatMul MACs.
        plain_drift: Of the PSNR-Y on the tuning windows (:meth:`.Tuning.drift`), with this layer
            alone in int8, before the repairs that were tried on it alone, dB.
        drift: The same after them, dB.
        repairs: What was done to it, such as ``range × 0.70``.
        precision: What it ended in.
    """

    node: str
    op: str
    mac_share: float
    plain_drift: float
    drift: float
    repairs: tuple[str, ...]
    precision: Precision

    @property
    def module(self) -> str:
        """Name of the PyTorch module that the node came from."""
        return self.node.split("/", maxsplit=1)[0]


@dataclass(frozen=True)
class Trial:
    """A choice of layers, and what it was measured to be.

    Attributes:
        label: What it is, for a chart: ``all layers in int8``, ``6 layers in float``.
        float_nodes: Layers left in float.
        drift: Of the PSNR-Y on the tuning windows (:meth:`.Tuning.drift`), what is not int8 in
            fp32, dB.
        int8_share: Of the Conv and MatMul MACs.
        cost: In the unit of :attr:`Int8Report.cost_unit`.
    """

    label: str
    float_nodes: tuple[str, ...]
    drift: float
    int8_share: float
    cost: float


@dataclass(frozen=True)
class Int8Report:
    """The whole search.

    Attributes:
        max_drift: Budget in dB.
        min_int8: Least share of the Conv and MatMul MACs in int8 that was asked for.
        layers: All quantisable nodes, worst first.
        trials: Everything that was measured, in the order of cost, the float engine included.
        chosen: Index of the choice in ``trials``.
        cost_unit: ``ms a frame`` where it was timed on this machine, else of the model.
        baseline: Drift of plain int8, every layer rounded to the nearest, no repair, dB.
        tail: Times the mean's loss that the worst window was allowed.
    """

    max_drift: float
    min_int8: float
    layers: tuple[Layer, ...]
    trials: tuple[Trial, ...]
    chosen: int
    cost_unit: str
    baseline: float
    tail: float = TAIL
