"""The search for an int8 graph on a page: everything tried, and what each layer loses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..spec import Precision
from ..validate.page import counted, decibels, figure, folded, row, signed, table, words
from .charts import figure_of, pareto_chart, sensitivity_chart
from .outcome import Int8Report, Layer, Trial

CHARTED_LAYERS = 20
_LAYER_WORDS = ("PyTorch module", "Operator", "Repairs", "Precision")
_LAYER_HEADS = (
    "ONNX node", "PyTorch module", "Operator", "Share of MACs", "Before", "After", "Repairs",
    "Precision",
)  # fmt: skip


def search_sections(int8: Int8Report) -> str:
    """Charts and tables of a search."""
    return _trials(int8) + _sensitivity(int8.layers)


def _trials(int8: Int8Report) -> str:
    if not int8.trials:
        return ""
    said = (
        f"<p class='soft'>Drift is that of the mean PSNR-Y on the tuning windows. Every layer in"
        f" int8, rounded to the nearest, without repairs: {_decibels(int8.baseline)}. At least"
        f" {int8.min_int8:.0%} of the MACs were to be in int8.</p>"
    )
    unit = int8.cost_unit
    heads = ("Trial", "Tried", "In float", "MACs in int8", "Drift", unit[:1].upper() + unit[1:])
    rows = [_trial(index, trial, index == int8.chosen) for index, trial in enumerate(int8.trials)]
    listing = table(heads, rows, frozenset({"Tried"}))
    count = len(rows)
    return (
        f"<h2>What was tried</h2>{said}{_pareto(int8)}"
        f"{folded(counted(count, 'trial'), count, listing)}"
    )


def _decibels(value: float) -> str:
    return f"{signed(value)} dB" if math.isfinite(value) else "not measured"


def _pareto(int8: Int8Report) -> str:
    drawing = pareto_chart(int8)
    if not drawing:
        return ""
    budget = "<span class='key budget'>budget</span>" if math.isfinite(int8.max_drift) else ""
    return (
        f"<figure><div class='scroll'>{drawing}</div><figcaption>Further up is closer to the"
        " reference, further left is cheaper; the numbers are those of the table."
        "<br><span class='key dot chosen'>chosen</span><span class='key dot'>tried</span>"
        f"<span class='key front'>best for its cost</span>{budget}</figcaption></figure>"
    )


def _trial(index: int, trial: Trial, chosen: bool) -> str:
    label = f"{trial.label} (chosen)" if chosen else trial.label
    cells = (
        figure(str(index + 1)),
        words(label),
        figure(str(len(trial.float_nodes))),
        figure(f"{trial.int8_share:.1%}"),
        decibels(trial.drift),
        figure(figure_of(trial.cost)),
    )
    return row(cells, "chosen" if chosen else "")


def _sensitivity(layers: Sequence[Layer]) -> str:
    if not layers:
        return ""
    shown = layers[:CHARTED_LAYERS]
    which = "each layer" if len(shown) == len(layers) else f"the {len(shown)} worst layers"
    keys = "".join(
        f"<span class='key {precision}'>{precision}</span>"
        for precision in Precision
        if any(layer.precision is precision for layer in shown)
    )
    listing = table(_LAYER_HEADS, map(_layer, layers), frozenset(_LAYER_WORDS))
    return (
        "<h2>Sensitivity of the layers</h2>"
        f"<figure><div class='scroll'>{sensitivity_chart(shown)}</div><figcaption>What {which}"
        " of the network would lose alone in int8, dB on the tuning windows: the pale bar before"
        " the repairs, the full one after them. The colour is the precision that the layer ended"
        f" in.<br>{keys}</figcaption></figure>"
        f"{folded(counted(len(layers), 'layer'), len(layers), listing)}"
    )


def _layer(layer: Layer) -> str:
    return row(_layer_cells(layer))


def _layer_cells(layer: Layer) -> Iterator[str]:
    yield words(layer.node)
    yield words(layer.module)
    yield words(layer.op)
    yield figure(f"{layer.mac_share:.2%}")
    yield decibels(layer.plain_drift)
    yield decibels(layer.drift)
    yield words(", ".join(layer.repairs) or "–")
    yield words(layer.precision.value)
