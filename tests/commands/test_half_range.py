"""``build-engine`` and fp16's range: what is said, what is pinned, what the manifest holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from srdeploy.calib.half_range import LargeTensor
from srdeploy.commands.build_engine import BuildOptions, build_engine
from srdeploy.commands.half_range import HalfRange, sentence
from srdeploy.errors import DatasetError
from srdeploy.export.passes import run_passes
from srdeploy.export.precision import kept_in_fp32
from srdeploy.export.trace import trace
from srdeploy.models import architecture
from srdeploy.models.weights.checkpoint import describe
from srdeploy.models.weights.resolve import load
from srdeploy.runtime.engine import read_manifest
from srdeploy.spec import Budget, Precision

ISLANDS = ("upsampler.0", "upsampler.1/DepthToSpace", "upsampler.2/LeakyRelu", "upsampler.3")


def test_an_engine_with_islands(tmp_path: Path) -> None:
    """A trained network, its last two convolutions scaled: the manifest names what stayed."""
    network, _ = load("vapsr-tiny", 4)
    with torch.no_grad():
        network.upsampler[0].weight.mul_(7e4)
        network.upsampler[0].bias.mul_(7e4)
        network.upsampler[3].weight.div_(7e4)
    spec = describe(architecture("vapsr"), network.config, network, "scaled")
    model = trace(network, spec)
    run_passes(model)
    source = tmp_path / "scaled.onnx"
    source.write_bytes(model.SerializeToString())
    said: list[str] = []
    steps: set[str] = set()
    options = BuildOptions("onnxruntime", Precision.FP16, budget=Budget.of_mean(0.01))
    built = build_engine(
        source, options, tmp_path / "e.onnx", said.append, lambda step, *_: steps.add(step)
    )
    manifest = read_manifest(built.path)
    assert manifest == built.manifest
    assert manifest.build.islands == ISLANDS
    assert steps == {"checking fp16's range"}
    notes = [line for line in said if "beyond half of fp16's range" in line]
    assert notes
    assert set(notes) == set(manifest.notes)
    assert any(note.startswith("conv2d_27 of upsampler.0 reaches ") for note in notes)
    engine = onnx.load(built.path)
    kinds = {t.name: t.data_type for t in engine.graph.initializer}
    convolutions = {n.name: kinds[n.input[1]] for n in engine.graph.node if n.op_type == "Conv"}
    in_float = {name for name, kind in convolutions.items() if kind == TensorProto.FLOAT}
    assert in_float == {"upsampler.0", "upsampler.3"}
    assert set(convolutions.values()) == {TensorProto.FLOAT, TensorProto.FLOAT16}


def amplifier(height: int | str, width: int | str) -> onnx.ModelProto:
    """White becomes 50,000, and 1 again."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "more"], ["loud"], "amplify"),
            helper.make_node("Mul", ["loud", "less"], ["y"], "damp"),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 3, height, width])],
        [value("y", TensorProto.FLOAT, ["n", 3, height, width])],
        [
            numpy_helper.from_array(np.float32(50_000), "more"),
            numpy_helper.from_array(np.float32(2e-5), "less"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture of 120×150, dark but for one pixel."""
    pixels = np.zeros((120, 150, 3), np.uint8)
    pixels[60, 75] = (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "night.png")
    return tmp_path


def test_only_fp16_is_checked(folder: Path) -> None:
    said: list[str] = []
    half_range = HalfRange([folder], said.append)
    model = amplifier("h", "w")
    for precision in (Precision.FP32, Precision.BF16):
        assert half_range.pin(model, precision).model is model
    assert not said
    first = half_range.pin(model, Precision.FP16)
    assert first.islands == ("amplify", "damp")
    assert tuple(said) == first.notes
    assert f"loud of amplify reaches 50,000 on {folder / 'night.png'} at row 60, column 75" in (
        " ".join(said)
    )
    assert not any(kept_in_fp32(node) for node in model.graph.node)
    assert half_range.pin(model, Precision.FP16) is first
    assert len(said) == 2


@pytest.mark.parametrize("size", [(64, 96), (300, 200)])
def test_a_static_graph_gets_frames_of_its_size(folder: Path, size: tuple[int, int]) -> None:
    """Where no picture is that large, they are mirrored at their edges."""
    found = HalfRange([folder], print).pin(amplifier(*size), Precision.FP16)
    assert found.islands == ("amplify", "damp")
    assert any("mirrored to 200×300" in note for note in found.notes) == (size == (300, 200))


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no pictures"):
        HalfRange([tmp_path], print).pin(amplifier("h", "w"), Precision.FP16)


def test_sentences() -> None:
    tail = "beyond half of fp16's range: it stays in float32"
    for found, expected in (
        (LargeTensor("w", "conv", 70_000.4), f"w of conv reaches 70,000, {tail}"),
        (LargeTensor("t", "n", 4e4, "p"), f"t of n reaches 40,000 on p, {tail}"),
        (
            LargeTensor("t", "n", 4e4, "p", 0, 2, 1),
            f"t of n reaches 40,000 on p at row 0, column 2 (channel 1), {tail}",
        ),
    ):
        assert sentence(found) == expected
