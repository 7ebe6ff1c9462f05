"""The smallest engine: one convolution, built by a target, opened and compared with numpy."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...spec import BuildConfig, Manifest, ModelSpec, Precision, ShapeRange
from ..session import Frames
from ..targets import open_target

SCALE = 2
SIZES = ShapeRange((8, 8), (16, 24), (32, 32))
TOLERANCE = 1  # code values: sums are rounded in another order


def selftest(target_name: str, provider: str = "") -> str:
    """Build the engine and, where it runs here, run it; returns what was done.

    Args:
        target_name: Id of a target.
        provider: Execution provider of ONNX Runtime; empty for its own choice.

    Raises:
        TargetUnavailable: The target cannot be used here.
        SrDeployError: Building or running fails.
        ArithmeticError: The engine runs, and its pixels are wrong.
    """
    target = open_target(target_name).with_provider(provider)
    weights = np.random.default_rng(0).normal(0, 0.2, (3 * SCALE**2, 3, 3, 3)).astype(np.float32)
    graph = one_layer(weights)
    config = BuildConfig(
        hashlib.sha256(graph).hexdigest(),
        target.name,
        target.version(),
        Precision.FP32,
        profiles=(SIZES,),
        graph_sha256=hashlib.sha256(graph).hexdigest(),
        provider=provider,
    )
    config = target.settle(config, graph)
    built = target.build(graph, config)
    if reason := target.why_not_here(config):
        return f"engine built for {built.device}; not run: {reason}"
    spec = ModelSpec("selftest", "selftest", SCALE, 1)
    manifest = Manifest(config, spec, "", "the self-test's engine", built.device)
    frames = np.random.default_rng(1).integers(0, 256, (1, *SIZES.optimum, 3), dtype=np.uint8)
    with target.open(built.content, manifest) as session:
        upscaled = session.upscale(frames)
    off = int(np.abs(upscaled.astype(int) - expected(frames, weights)).max())
    if off > TOLERANCE:
        raise ArithmeticError(f"the engine runs, but its pixels are off by up to {off} of 255")
    return f"engine built and run on {built.device}, its pixels as numpy's"


def one_layer(weights: NDArray[np.float32]) -> bytes:
    """A graph from uint8 frames N×H×W×3 to twice their size, as engines are."""
    pixels: list[str | int] = ["N", "H", "W", 3]
    constants = {"weights": weights, "255": np.float32(255), "0": np.float32(0), "1": np.float32(1)}
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planar", "255"], ["unit"]),
        helper.make_node("Conv", ["unit", "weights"], ["features"], pads=[1] * 4),
        helper.make_node("DepthToSpace", ["features"], ["large"], blocksize=SCALE, mode="CRD"),
        helper.make_node("Clip", ["large", "0", "1"], ["clamped"]),
        helper.make_node("Mul", ["clamped", "255"], ["codes"]),
        helper.make_node("Round", ["codes"], ["rounded"]),
        helper.make_node("Transpose", ["rounded"], ["interleaved"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["interleaved"], ["upscaled"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "selftest",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, pixels)],
        [helper.make_tensor_value_info("upscaled", TensorProto.UINT8, ["N", "sH", "sW", 3])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def expected(frames: Frames, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """What :func:`one_layer` computes, by numpy in float64."""
    n, h, w, _ = frames.shape
    padded = np.pad(frames.astype(np.float64) / 255, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    features = np.einsum("nhwcij,ocij->nhwo", windows, weights.astype(np.float64))
    blocks = features.reshape(n, h, w, 3, SCALE, SCALE).transpose(0, 1, 4, 2, 5, 3)
    large = blocks.reshape(n, h * SCALE, w * SCALE, 3)
    codes: NDArray[np.int64] = np.rint(np.clip(large, 0, 1) * 255).astype(np.int64)
    return codes
