"""The targets: what each builds, what runs here, and what is refused with which words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from srdeploy.calib.observers import OBSERVERS
from srdeploy.calib.ranges import collect_ranges
from srdeploy.errors import BuildError, EngineError, TargetUnavailable
from srdeploy.export.passes import run_passes
from srdeploy.export.pixels import with_pixels
from srdeploy.export.precision import lower
from srdeploy.export.quantise import activations, quantise
from srdeploy.export.trace import trace
from srdeploy.installation import ONNXRUNTIME, install, install_extra
from srdeploy.models.weights.resolve import load
from srdeploy.runtime import gpu_facts, int8_sums
from srdeploy.runtime.nvinfer import apart
from srdeploy.runtime.nvinfer import target as nvinfer
from srdeploy.runtime.session import Session
from srdeploy.runtime.targets import Target, open_target, target_names
from srdeploy.runtime.targets.onnxruntime import ReferenceSession
from srdeploy.spec import BuildConfig, Manifest, ModelSpec, Precision, ShapeRange

SHAPES = ShapeRange((8, 8), (24, 32), (64, 64))


# TensorRT's libraries come from NVIDIA's own index alone; test_nvinfer_api.py has its target.
@pytest.fixture(params=[name for name in target_names() if name != "tensorrt"])
def target(request) -> Target:
    """Every other target; one whose library is not installed fails, not skips."""
    return open_target(request.param)


def config_of(target: Target, precision: Precision, **changes) -> BuildConfig:
    rest = target.rest_precision() if precision is Precision.INT8 else precision
    changes = {"in_pairs": precision is Precision.INT8 and target.pairs_saturate()} | changes
    return BuildConfig(
        "0" * 64, target.name, target.version(), precision, rest, (SHAPES,), **changes
    )


def graph_of(model: onnx.ModelProto, config: BuildConfig, target: Target) -> bytes:
    written = config.rest
    if config.precision is Precision.INT8:
        written = target.written_rest(config.rest)
        crops = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
        ranges = collect_ranges(model, crops, activations(model), OBSERVERS["percentile"])
        model = quantise(model, ranges.bounds, [], written, in_pairs=config.in_pairs)
    return with_pixels(lower(model, written)).SerializeToString()


def manifest_of(config: BuildConfig, spec: ModelSpec) -> Manifest:
    return Manifest(config, spec, "0" * 64, "engine", "test")


@pytest.mark.parametrize("precision", list(Precision))
def test_builds_and_agrees_with_the_reference(exported, target, precision) -> None:
    model, spec = exported
    config = config_of(target, precision)
    if precision not in target.precisions:
        with pytest.raises(BuildError):
            target.build(graph_of(model, config, target), config)
        return
    built = target.build(graph_of(model, config, target), config)
    assert len(built.content) > 1000
    assert built.device
    manifest = manifest_of(config, spec)
    if target.runs_here() is not None:
        with pytest.raises(TargetUnavailable, match="cannot be run here"):
            target.open(built.content, manifest)
        return
    reference = ReferenceSession(model, spec.scale)
    # the bounds are of rounding: exact, half precision, and eight bits of 0…255
    bound = {"fp32": 1, "fp16": 2, "bf16": 6, "int8": 24}[precision]
    told = [note for note in built.notes if "int8 sums" in note]
    for_cpu = target.name in ("onnxruntime", "openvino")
    assert told == list(int8_sums.note_on(config) if for_cpu else ())
    rng = np.random.default_rng(1)
    with target.open(built.content, manifest) as session:
        for shape in ((1, 24, 32, 3), (2, 9, 17, 3), (1, 8, 61, 3), (1, 24, 32, 3)):
            frames = rng.integers(0, 256, shape, dtype=np.uint8)
            difference = session.upscale(frames).astype(int) - reference.upscale(frames)
            assert np.abs(difference).max() <= bound
            assert np.abs(difference).mean() <= bound / 4


def test_a_plain_session_of_openvino_keeps_biases() -> None:
    """HAN-tiny's mean of the colours, lost where frames may have any size: 1.3 dB of Set5."""
    network, spec = load("han-tiny", 4)
    model = trace(network, spec)
    run_passes(model)
    target = open_target("openvino")
    config = config_of(target, Precision.INT8)
    built = target.build(graph_of(model, config, target), config)
    manifest = manifest_of(config, spec)
    frames = np.random.default_rng(1).integers(90, 110, (1, 32, 40, 3), dtype=np.uint8)
    ours, plain = target.open(built.content, manifest), target.open_plain(built.content, manifest)
    with ours, plain:
        difference = ours.upscale(frames).astype(int) - plain.upscale(frames)
    shift = np.abs(difference.mean((0, 1, 2))).max()
    assert shift < 3  # rounding


OVERFLOWS = """
<ir_version: 8, opset_import: ["" : 17]>
large (uint8[N, H, W, 3] frames) => (uint8[N, H, W, 3] upscaled) <
    float[3, 3] sums = {100, 100, 100, 100, 100, 100, 100, 100, 100},
    float[3, 3] same = {1, 0, 0, 0, 1, 0, 0, 0, 1},
    float[1] sixhundredth = {0.0016667}
> {
    half = Cast <to = 10> (frames)
    up = Cast <to = 10> (sums)
    keep = Cast <to = 10> (same)
    down = Cast <to = 10> (sixhundredth)
    large = MatMul (half, up)
    still = MatMul (large, keep)
    back = Mul (still, down)
    upscaled = Cast <to = 2> (back)
}
"""


def test_what_computes_fp16_overflows_where_fp16_does(target) -> None:
    """3 × 100 × 255 is more than fp16 holds; in float32 half of it is left."""
    if target.runs_here() is not None:
        pytest.skip("cannot run here")
    config = config_of(target, Precision.FP16)
    graph = onnx.parser.parse_model(OVERFLOWS).SerializeToString()
    manifest = manifest_of(config, ModelSpec("test", "test", 1, 0))
    with target.open(target.build(graph, config).content, manifest) as session:
        upscaled = session.upscale(np.full((1, 8, 8, 3), 255, np.uint8))
    assert (upscaled != 127).all() == target.computes_fp16()


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("flags : fpu sse2 avx2", True),
        ("flags : sse2 avx2 avx_vnni", False),
        ("Features : asimd", False),
    ],
)
def test_cpus_whose_int8_sums_saturate(flags: str, saturates: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(flags, encoding="utf-8")
    assert int8_sums.pairs_saturate(tmp_path / "cpuinfo") == saturates
    assert not int8_sums.pairs_saturate(tmp_path / "absent")


def test_an_engine_whose_int8_sums_would_saturate_is_refused(
    target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU without an 8-bit dot product, unless its weights fit."""
    if Precision.INT8 not in target.precisions or target.runs_here() is not None:
        pytest.skip("no int8 engine of this target runs here")
    config = config_of(target, Precision.INT8, in_pairs=False)
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: False)
    assert not target.pairs_saturate()
    assert target.mismatch(config) is None
    monkeypatch.setattr(int8_sums, "pairs_saturate", lambda: True)
    assert target.pairs_saturate()
    assert "8-bit dot product (VNNI), which this one lacks" in target.mismatch(config)
    assert target.mismatch(replace(config, in_pairs=True)) is None
    assert target.mismatch(replace(config, precision=Precision.FP32)) is None


def test_sessions_take_calls_from_many_threads(exported, target) -> None:
    if target.runs_here() is not None:
        pytest.skip("needs a GPU")
    model, spec = exported
    config = config_of(target, Precision.FP32)
    built = target.build(graph_of(model, config, target), config)
    rng = np.random.default_rng(2)
    frames = [rng.integers(0, 256, (1, 12 + i % 3, 16, 3), dtype=np.uint8) for i in range(12)]
    with target.open(built.content, manifest_of(config, spec)) as session:
        expected = [session.upscale(frame) for frame in frames]
        got: dict[int, np.ndarray] = {}

        def work(first: int) -> None:
            for i in range(first, len(frames), 3):
                got[i] = session.upscale(frames[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(got[i], e) for i, e in enumerate(expected))


FIRST_TENSORS = """
import sys, threading
import numpy as np
from srdeploy.runtime.targets.openvino import ov

parameter = ov.opset13.parameter([1, 8], np.uint8)
network = ov.opset13.relu(ov.opset13.convert(parameter, "f32"))
model = ov.Model([network], [parameter], "relu")
compiled = ov.Core().compile_model(model, "CPU", {"NUM_STREAMS": "2"})
sys.setswitchinterval(1e-6)
start = threading.Barrier(2)

def call(request):
    start.wait()
    request.infer([np.zeros((1, 8), np.uint8)], share_inputs=True)

threads = [threading.Thread(target=call, args=(compiled.create_infer_request(),))
           for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_openvino_s_first_tensors_may_be_concurrent() -> None:
    """Its binding to numpy hangs where two threads of a process use it first at once.

    Importing our target must have made that use; without it about one in four of these
    processes hangs.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FIRST_TENSORS]
    for _ in range(10):
        subprocess.run(command, env=environment, check=True, timeout=60)


def test_broken_graphs_are_an_error_with_the_library_s_words(exported, target) -> None:
    model, _ = exported
    config = config_of(target, Precision.FP32)
    broken = onnx.load_model_from_string(graph_of(model, config, target))
    broken.graph.node[5].op_type = "NoSuchOp"
    with pytest.raises(BuildError, match=r"NoSuchOp|refuses") as caught:
        target.build(broken.SerializeToString(), config)
    assert caught.value.hint


def test_damaged_engines_do_not_open(exported, target) -> None:
    _, spec = exported
    config = config_of(target, Precision.FP32)
    with pytest.raises((EngineError, TargetUnavailable)):
        target.open(b"garbage", manifest_of(config, spec))


class TestTensorRtRtx:
    def test_capabilities(self, exported) -> None:
        target = open_target("tensorrt-rtx")
        model, _ = exported
        config = config_of(target, Precision.BF16)
        built = target.build(graph_of(model, config, target), config)
        assert any(note.startswith("compute capability 7.5 left out") for note in built.notes)
        assert "8.6" in built.device
        chosen = config_of(target, Precision.FP16, capabilities=("8.9",))
        one = target.build(graph_of(model, chosen, target), chosen)
        assert one.device == "compute capability 8.9"
        assert not one.notes

    @pytest.mark.parametrize(("capabilities", "says"), [(("9.0",), "9.0"), (("x",), "x")])
    def test_capabilities_that_it_does_not_have(self, capabilities, says, exported) -> None:
        target = open_target("tensorrt-rtx")
        config = config_of(target, Precision.FP16, capabilities=capabilities)
        with pytest.raises(BuildError, match=f"does not build for {says}"):
            target.build(b"", config)

    def test_bf16_for_turing_is_refused_by_name(self) -> None:
        target = open_target("tensorrt-rtx")
        config = config_of(target, Precision.BF16, capabilities=("7.5",))
        with pytest.raises(BuildError, match=r"7\.5 left out: bf16 needs 8\.0"):
            target.build(b"", config)

    def test_what_turing_has_no_kernel_for_leaves_it_out(self) -> None:
        """Built for the others; asked for by name, it is refused by the node's name."""
        rng = np.random.default_rng(0)
        filters = numpy_helper.from_array(rng.random((1, 1, 3, 3, 3), np.float32), "w")
        nodes = {
            "volume": [helper.make_node("Conv", ["x", "w"], ["y"], name="volume", pads=[1] * 6)],
            "product": [helper.make_node("MatMul", ["x", "x"], ["y"], name="product")],
        }
        for name, made in nodes.items():
            graph = helper.make_graph(
                made,
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8, 8])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                [filters] if name == "volume" else [],
            )
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
            target = open_target("tensorrt-rtx")
            config = config_of(target, Precision.FP32, capabilities=("7.5",))
            with pytest.raises(BuildError, match=rf"7\.5 left out: the float32 .* {name} needs 8"):
                target.build(model.SerializeToString(), config)

    def test_a_crash_of_the_library_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The child dies as TensorRT does when it aborts; this process lives on."""
        monkeypatch.setattr(apart, "_child", abort)
        target = open_target("tensorrt-rtx")
        with pytest.raises(BuildError, match="crashed"):
            target.build(b"", config_of(target, Precision.FP16, capabilities=("8.6",)))


def abort(*_) -> None:
    """What TensorRT does to its process on some graphs."""
    os.abort()


def test_unknown_target() -> None:
    with pytest.raises(TargetUnavailable, match="no target") as caught:
        open_target("nonsense")
    assert "openvino" in caught.value.hint


def test_a_target_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "srdeploy.runtime.targets.tensorrt", raising=False)
    with pytest.raises(TargetUnavailable, match="tensorrt cannot be used") as caught:
        open_target("tensorrt")
    assert caught.value.hint == f"{install_extra('tensorrt')}, or choose another --target"


def test_onnx_runtime_is_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its import fails, the base install is broken."""
    monkeypatch.setitem(sys.modules, "srdeploy.runtime.targets.onnxruntime", None)
    with pytest.raises(TargetUnavailable, match="onnxruntime cannot be used") as caught:
        open_target("onnxruntime")
    assert caught.value.hint.startswith(install(ONNXRUNTIME, again=True))


def test_what_a_gpu_lacks_to_run_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages that talk to the driver, and the line that installs them."""
    monkeypatch.setattr(gpu_facts, "driver_problem", lambda needed: None)
    for package in nvinfer.RUNTIME_PACKAGES:
        monkeypatch.setattr(nvinfer, "_installed", package.__ne__)
        reason = open_target("tensorrt-rtx").runs_here()
        assert reason == f"the package {package} is missing: {install_extra('cuda')}"
    monkeypatch.setitem(sys.modules, "srdeploy.runtime.cuda", None)
    with pytest.raises(TargetUnavailable, match="cannot be imported") as caught:
        nvinfer._gpu(0)
    assert caught.value.hint.endswith(install_extra("cuda", again=True))


class Doubler(Session):
    """Nearest neighbour, and what it was asked to return instead."""

    scale, target = 2, "test"

    def __init__(self, result: np.ndarray | None = None) -> None:
        self.result = result

    def _upscale(self, frames):
        return frames.repeat(2, 1).repeat(2, 2) if self.result is None else self.result


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8),
        np.zeros((1, 0, 4, 3), np.uint8),
    ],
)
def test_sessions_check_frames(frames: np.ndarray) -> None:
    with pytest.raises(EngineError):
        Doubler().upscale(frames)


def test_sessions_check_what_comes_back() -> None:
    frames = np.zeros((1, 4, 6, 3), np.uint8)
    assert Doubler().upscale(frames).shape == (1, 8, 12, 3)
    with pytest.raises(EngineError, match="returned"):
        Doubler(np.zeros((1, 8, 8, 3), np.uint8)).upscale(frames)
