"""Layers as built against the graph: from the builder's text and from the inspector's JSON."""

from __future__ import annotations

import io
import json
import re

import pytest
from onnx import TensorProto, helper
from rich.console import Console
from srdeploy.commands.explain import show_layers
from srdeploy.runtime.layers import INSPECTED, LayerReport, described, report

# As TensorRT-RTX 1.7.1 writes it, strides and formats left out.
LISTING = """[VERBOSE] earlier
[VERBOSE] Layers:
Name: conv_a, LayerType: correlation, Inputs: [ { Name: x, Datatype: Int8 }], \
Constants: [ { Name: w, Datatype: Int8 }, { Name: s, Datatype: Float }], \
Outputs: [ { Name: t, Datatype: Float }], TacticName: , StreamId: 0, Metadata: \
[ONNX Layer: a]\x1f[ONNX Layer: x/dequantised]
Name: after, LayerType: kgen, Inputs: [ { Name: t, Datatype: Float }], \
Constants: [ { Name: c, Datatype: Half }], Outputs: [ { Name: y, Datatype: Half }], \
TacticName: , StreamId: 0, Metadata: [ONNX Layer: a][ONNX Layer: relu]
Name: conv_b, LayerType: correlation, \
Inputs: [ { Name: y, Format/Datatype: Row major linear FP16 }], \
Constants: [ { Name: v, Datatype: Half, Format: (NHWC) Channel major format }], \
Outputs: [ { Name: z, Datatype: Half }], \
TacticName: , StreamId: 0, Metadata: [ONNX Layer: b]

I/O Tensors:
 Name: frames, IOMode: Input
[INFO] later
"""
INSPECTOR = json.dumps(
    {
        "Layers": [
            {
                "Name": "conv_a",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "x", "Format/Datatype": "Channel major INT8 format"}],
                "Constants": [{"Name": "w", "Format/Datatype": "Row major linear INT8"}],
                "Outputs": [{"Name": "y", "Datatype": "Half"}],
                "Metadata": "[ONNX Layer: a]",
            },
            {
                "Name": "conv_b",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "y", "Datatype": "Half"}],
                "Weights": {"Type": "Half", "Count": 16},
                "Outputs": [{"Name": "z", "Datatype": "Half"}],
                "Metadata": "[ONNX Layer: b]",
            },
            "a layer of which only the name is told",
        ]
    }
)


@pytest.fixture(scope="module")
def graph() -> bytes:
    """Two 1×1 convolutions that both ask for int8."""
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])
    codes = helper.make_tensor("codes", TensorProto.INT8, [4, 4, 1, 1], [1] * 16)
    nodes = []
    for name, source, sink in (("a", "x", "t"), ("b", "y", "z")):
        nodes += [
            helper.make_node("QuantizeLinear", [source, "scale"], [f"{source}q"]),
            helper.make_node("DequantizeLinear", [f"{source}q", "scale"], [f"{source}d"]),
            helper.make_node("DequantizeLinear", ["codes", "scale"], [f"w{name}"]),
            helper.make_node("Conv", [f"{source}d", f"w{name}"], [sink], name=name),
        ]
    nodes.insert(4, helper.make_node("Relu", ["t"], ["y"], name="relu"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 8, 8]) for n in "xz"]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scale, codes])
    return bytes(helper.make_model(made).SerializeToString())


@pytest.mark.parametrize("log", [LISTING, f"[INFO] x\n{INSPECTED}{INSPECTOR}\n"])
def test_what_the_builder_chose(log: str, graph: bytes) -> None:
    found = report(log, graph)
    precisions = {node.node: (node.asked, node.built, node.differs) for node in found.nodes}
    assert precisions == {"a": ("int8", "int8", False), "b": ("int8", "fp16", True)}


def test_layers_in_order(graph: bytes) -> None:
    first, second, third = described(LISTING)
    assert first.inputs == ("int8", "int8", "fp32")
    assert first.outputs == ("fp32",)
    assert first.nodes == ("a", "x/dequantised")
    assert (second.kind, third.name) == ("kgen", "conv_b")


def test_the_last_listing_counts() -> None:
    """A build that was repeated with less memory logs two."""
    repeated = LISTING.replace("Int8", "Half") + LISTING
    assert described(repeated) == described(LISTING)


def test_a_log_without_layers(graph: bytes) -> None:
    assert report("[INFO] nothing\n", graph) == LayerReport()
    said: list[str] = []
    show_layers(LayerReport(), False, said.append, said.append)
    assert said == []
    show_layers(LayerReport(), True, said.append, said.append)
    assert said == ["this target does not tell its layers"]


def shown(found: LayerReport, everything: bool, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_layers(found, everything, console.print, console.print)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_explained(graph: bytes) -> None:
    found = report(LISTING, graph).timed({"conv_a": 3.0, "conv_b": 1.0})
    wide = shown(found, True, 200)
    assert re.match(r"3.000  75.0%  int8 fp32 ", wide[1])
    assert wide[-1].split() == ["int8", "fp16", "differs", "b"]
    brief = shown(found, False, 200)
    assert brief[0] == "3 layers; convolutions and matrix products: 1 in fp16, 1 in int8"
    assert brief[2].endswith("a, x/dequantised")
    assert len(brief) == 4
    for everything in (True, False):
        narrow = shown(found, everything, 60)
        assert max(map(len, narrow)) <= 60
        whole = " ".join(" ".join(shown(found, everything, 200)).split())
        assert sorted(" ".join(narrow).split()) == sorted(whole.split())
