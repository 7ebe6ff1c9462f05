"""The search for an int8 graph on a page: everything tried, and what each layer loses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..spec import Precision
from ..validate.page import counted, decibels, figure, folded, named, row, signed, table, words
from .charts import figure_of, pareto_chart, sensitivity_chart, signed_or_dash
from .outcome import Int8Report, Layer

CHARTED_LAYERS = 20
_LAYER_HEADS = ("ONNX node, PyTorch module", "MACs", "Before", "After", "Precision", "Repairs")
_LAYER_WORDS = frozenset({"Repairs", "Precision"})


def search_sections(int8: Int8Report) -> str:
    """Charts and tables of a search."""
    return _trials(int8) + _sensitivity(int8.layers)


def _trials(int8: Int8Report) -> str:
    if not int8.trials:
        return ""
    said = (
        "<p class='soft'>Drift is that of the mean PSNR-Y on the tuning windows, or of the worst"
        f" window, divided by {int8.tail:g}, where that is lower. Every layer in int8, rounded to"
        f" the nearest, without repairs: {_decibels(int8.baseline)}. At least"
        f" {int8.min_int8:.0%} of the MACs were to be in int8.</p>"
    )
    rows = [_trial(int8, index) for index in range(len(int8.trials))]
    listing = table(("Trial", "Layers in float", "MACs in int8", "Drift", int8.cost_unit), rows)
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


def _trial(int8: Int8Report, index: int) -> str:
    trial, chosen = int8.trials[index], index == int8.chosen
    over = trial.drift < -int8.max_drift
    cells = (
        words(f"{index + 1}. {trial.label}{' (chosen)' * chosen}"),
        figure(str(len(trial.float_nodes))),
        figure(f"{trial.int8_share:.1%}"),
        decibels(trial.drift) if over else figure(signed_or_dash(trial.drift)),
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
    listing = table(_LAYER_HEADS, map(_layer, layers), _LAYER_WORDS)
    return (
        "<h2>Sensitivity of the layers</h2>"
        f"<figure><div class='scroll'>{sensitivity_chart(shown)}</div><figcaption>What {which}"
        " of the network would lose alone in int8, dB on the tuning windows: the pale bar before"
        " the repairs, the full one after them. The colour is the precision that the layer ended"
        f" in.<br>{keys}</figcaption></figure>"
        f"{folded(counted(len(layers), 'layer'), len(layers), listing)}"
    )


def _layer(layer: Layer) -> str:
    cells = (
        named(layer.node, f"{layer.op} of {layer.module}"),
        figure(f"{layer.mac_share:.2%}"),
        figure(signed_or_dash(layer.plain_drift)),
        figure(signed_or_dash(layer.drift)),
        words(layer.precision.value),
        words(", ".join(layer.repairs) or "–"),
    )
    return row(cells)
