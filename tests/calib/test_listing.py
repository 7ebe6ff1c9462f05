"""The search for an int8 graph as JSON and as lines of a terminal."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from typing import Any

from srdeploy.calib.listing import layer_table, to_json
from srdeploy.calib.outcome import Int8Report, Layer, Trial
from srdeploy.calib.repairs import EQUALISED
from srdeploy.spec import Precision


def layer(index: int, **other: Any) -> Layer:
    made = Layer(
        f"body.{index}.conv/Conv_{index}", "Conv", 0.01, -0.5 / (index + 1), -0.4 / (index + 1),
        ("range × 0.70",), Precision.INT8,
    )  # fmt: skip
    return replace(made, **other)


def trial(label: str, drift: float, cost: float, **other: Any) -> Trial:
    return replace(Trial(label, (), drift, 0.9, cost), **other)


def report(trials: tuple[Trial, ...] = (), layers: tuple[Layer, ...] = ()) -> Int8Report:
    chosen = min(1, len(trials) - 1)
    return Int8Report(0.1, 0.8, layers, trials, chosen, "ms a frame", -0.25, 5.0)


SOME = report(
    (trial("all int8", -0.3, 50.0), trial("2 in bf16", -0.04, 60.0), trial("bf16", 0.0, 90.0)),
    (layer(0, precision=Precision.BF16), layer(1), layer(2)),
)


def test_json_is_strict_and_has_every_field() -> None:
    int8 = replace(SOME, trials=(trial("untimed", -0.0, math.nan), trial("b", -0.1, math.inf)))
    document = json.loads(json.dumps(to_json(int8), allow_nan=False))
    assert set(document) == {field.name for field in fields(Int8Report)}
    assert set(document["layers"][0]) == {field.name for field in fields(Layer)}
    assert set(document["trials"][0]) == {field.name for field in fields(Trial)}
    assert [each["cost"] for each in document["trials"]] == [None, None]
    assert document["layers"][0]["precision"] == "bf16"
    assert str(document["trials"][0]["drift"]) == "0.0"


def test_the_lines_for_a_terminal() -> None:
    name = "upsampler.block_of_a_very_long_name.residual.path.conv_spatial/Conv_123"
    layers = (
        layer(0, node=name, precision=Precision.BF16),
        layer(1, repairs=(EQUALISED, "range × 0.70")),
        *(layer(i) for i in range(2, 30)),
    )
    lines = layer_table(report((), layers), most=3)
    assert [re.split(r" {2,}", line) for line in lines[:-1]] == [
        ["layer", "before", "after", "in", "repairs"],
        ["upsampler.block…atial/Conv_123", "-0.500", "-0.400", "bf16", "range × 0.70"],
        ["body.1.conv/Conv_1", "-0.250", "-0.200", "int8", "equalised, range × 0.70"],
        ["body.2.conv/Conv_2", "-0.167", "-0.133", "int8", "range × 0.70"],
    ]
    assert max(map(len, lines)) + len("  ") <= 80
    assert lines[-1] == "and 27 more under 0.101 dB each"
    assert len({re.search("bf16|int8", line).start() for line in lines[1:4]}) == 1


def test_the_lines_tell_of_all_layers() -> None:
    assert layer_table(report()) == []
    assert len(layer_table(report((), (layer(0),)))) == 2
    unknown = (layer(0), layer(1, drift=math.nan))
    assert layer_table(report((), unknown), most=1)[-1] == "and 1 more"
    gains = (layer(0), layer(1, drift=0.2))
    assert layer_table(report((), gains), most=1)[-1] == "and 1 more under 0.001 dB each"
