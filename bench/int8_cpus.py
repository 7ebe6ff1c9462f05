"""What CPUs of other kinds compute of int8 engines, on this machine (bench/cpu.py).

    python -m srdeploy.bench.int8_cpus                       the kernels, on inputs that saturate
    python -m srdeploy.bench.int8_cpus ENGINE… --data DIR… [--cpu KIND…] [--pictures N]
                                                             engines, picture by picture

An engine is opened by a plain session of its runtime with default options; its drift is against
PyTorch as it runs on this CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..export.pair_sums import fit_pairs
from ..runtime.engine import read_engine
from ..validate.datasets import find_datasets
from ..validate.metrics import cut_border, luma, psnr
from .cpu import KINDS, as_seen

HERE = "here"
EDGE = 8
QUARTERS = ("smoothest quarter", "second", "third", "most textured quarter")
WORST = 5
"""Pictures that are listed of a set."""
SHAPES: Mapping[str, tuple[tuple[int, ...], int]] = {
    "1×1": ((32, 64, 1, 1), 1),
    "3×3": ((32, 32, 3, 3), 1),
    "3×3 in 2 groups": ((32, 16, 3, 3), 2),
    "3×3 of RGB": ((32, 3, 3, 3), 1),
    "3×3 of 13 channels": ((16, 13, 3, 3), 1),
    "5×5 depthwise": ((32, 1, 5, 5), 32),
    "matrix": ((32, 64), 1),
}
"""Layer to its weight, outputs first, and its groups."""


def layer(codes: NDArray[np.int8], groups: int) -> bytes:
    """A graph of one int8 layer between Q/DQ pairs, as engines have it; input on [-1, 1]."""
    matrix = codes.ndim == 2
    inputs = codes.shape[1] * groups
    attributes: dict[str, Any] = {} if matrix else {"pads": [codes.shape[2] // 2] * 4}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "step", "zero"], ["data"]),
        helper.make_node(
            "DequantizeLinear", ["codes", "scales", "zeros"], ["weight"], axis=int(matrix)
        ),
        helper.make_node(
            "MatMul" if matrix else "Conv",
            ["data", "weight"],
            ["sums"],
            **attributes if matrix else attributes | {"group": groups},
        ),
        helper.make_node("QuantizeLinear", ["sums", "coarse", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "coarse", "zero"], ["y"]),
    ]
    constants = {
        "step": np.float32(1 / 127),
        "zero": np.int8(0),
        "codes": codes.T.copy() if matrix else codes,
        "scales": np.full(len(codes), 1 / 127, np.float32),
        "zeros": np.zeros(len(codes), np.int8),
        "coarse": np.float32(0.4),
    }
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", 1, shape_of(inputs, matrix))],
        [helper.make_tensor_value_info("y", 1, shape_of(len(codes), matrix))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def shape_of(channels: int, matrix: bool) -> list[int]:
    """Of what a layer reads or writes."""
    return [1, EDGE * EDGE, channels] if matrix else [1, channels, EDGE, EDGE]


def sessions(content: bytes) -> Iterator[tuple[str, Any]]:
    """Plain sessions of the runtimes, and ONNX Runtime's of the graph as it is written."""
    import onnxruntime as ort
    import openvino as ov

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    written = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    yield "as written", lambda x: written.run(None, {written.get_inputs()[0].name: x})[0]
    plain = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    yield "onnxruntime", lambda x: plain.run(None, {plain.get_inputs()[0].name: x})[0]
    core = ov.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(content), "CPU", hint)
    yield "openvino", lambda x: compiled(x)[0]


def kernels() -> None:
    """Largest difference of each runtime from the graph as written, in codes of the output."""
    rng = np.random.default_rng(0)
    print(f"{'layer':<20}{'weights':<10}{'onnxruntime':>12}{'openvino':>10}")
    for name, (shape, groups) in SHAPES.items():
        drawn = np.clip(np.rint(rng.normal(0, 55, shape)), -127, 127).astype(np.int8)
        fitted = drawn if "depthwise" in name else fit_pairs(drawn, 0)
        for label, codes in (("as drawn", drawn), ("fitted", fitted)):
            run = dict(sessions(layer(codes, groups)))
            size = shape_of(shape[1] * groups, codes.ndim == 2)
            frames = (np.ones(size), rng.choice([-1.0, 1.0], size), -np.ones(size))
            worst = dict.fromkeys(run, 0.0)
            for x in frames:
                made = {who: one(x.astype(np.float32)) for who, one in run.items()}
                for who, y in made.items():
                    off = float(np.abs(y - made["as written"]).max() / 0.4)
                    worst[who] = max(worst[who], off)
            print(f"{name:<20}{label:<10}{worst['onnxruntime']:12.0f}{worst['openvino']:10.0f}")


def upscale(engine: Path, frames: Path, out: Path) -> None:
    """Run an engine on the pictures of an ``.npz``, in a plain session with default options."""
    content, manifest = read_engine(engine)
    if manifest.build.target == "openvino":
        import openvino as ov

        core = ov.Core()
        compiled = core.compile_model(core.read_model(content), "CPU")

        def run(x: NDArray[np.uint8]) -> Any:
            return compiled(x)[0]
    else:
        import onnxruntime as ort

        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(x: NDArray[np.uint8]) -> Any:
            return session.run(None, {name: x})[0]

    with np.load(frames) as given:
        made = {}
        for key in given:
            made[key] = np.asarray(run(given[key][None])[0])
    np.savez(out, **made)  # type: ignore[arg-type]


def compare(
    engines: Sequence[Path], folders: Sequence[Path], cpus: Sequence[str], most: int
) -> None:
    """Drift of engines on CPUs of these kinds, picture by picture."""
    from ..commands.validate import reference_model
    from ..validate.reference import open_reference

    manifests = {engine: read_engine(engine)[1] for engine in engines}
    exact: dict[tuple[str, str, str], float] = {}
    print(f"{'':<44}" + "".join(f"{cpu:>12}" for cpu in cpus))
    for engine, manifest in manifests.items():
        scale = manifest.model.scale
        model, spec = reference_model(engine, manifest, None)
        every: list[NDArray[np.float64]] = []
        textures: list[float] = []
        for dataset in (one for folder in folders for one in find_datasets(folder, scale)):
            pairs = dataset.pairs[:most] if most else dataset.pairs
            read = {pair.name: pair.read() for pair in pairs}
            missing = [name for name in read if (str(model), dataset.name, name) not in exact]
            if missing:
                with open_reference(model, spec) as reference:
                    for name in missing:
                        low, high = read[name]
                        made = reference.upscale(low[None])[0]
                        exact[str(model), dataset.name, name] = quality(made, high, scale)
            drifts = np.array(
                [
                    [
                        quality(made[name], high, scale) - exact[str(model), dataset.name, name]
                        for name, (_, high) in read.items()
                    ]
                    for made in (run_on(cpu, engine, read) for cpu in cpus)
                ]
            )
            print(row(f"{engine.name}, {dataset.name}", drifts.mean(1)))
            names = list(read)
            for place in np.argsort(drifts.min(0))[:WORST]:
                print(row(f"  {names[place]}", drifts[:, place]), flush=True)
            every.append(drifts)
            textures += [texture(low) for low, _ in read.values()]
        by_texture = np.concatenate(every, axis=1)[:, np.argsort(textures)]
        for label, part in zip(
            QUARTERS, np.array_split(by_texture, len(QUARTERS), axis=1), strict=True
        ):
            print(row(f"{engine.name}, {label}: mean", part.mean(1)))
            print(row("  the worst picture", part.min(1)), flush=True)


def texture(picture: NDArray[np.uint8]) -> float:
    """Mean step between neighbours in luma."""
    plane = luma(picture)
    return float(np.abs(np.diff(plane, axis=0)).mean() + np.abs(np.diff(plane, axis=1)).mean())


def row(label: str, figures: NDArray[np.float64]) -> str:
    """A line of the table."""
    return f"{label:<44}" + "".join(f"{figure:+z12.3f}" for figure in figures)


def run_on(
    cpu: str, engine: Path, read: Mapping[str, tuple[NDArray[np.uint8], Any]]
) -> dict[str, NDArray[np.uint8]]:
    """What an engine makes of pictures on a CPU of this kind."""
    with tempfile.TemporaryDirectory() as place:
        lr, out = (Path(place) / f"{name}.npz" for name in ("lr", "out"))
        np.savez(lr, **{name: low for name, (low, _) in read.items()})  # type: ignore[arg-type]
        inside(cpu, Path(place), str(engine), str(lr), str(out))
        with np.load(out) as made:
            return dict(made)


def quality(picture: NDArray[np.uint8], truth: NDArray[np.uint8], scale: int) -> float:
    """PSNR of luma in dB."""
    return psnr(*(cut_border(luma(one), scale) for one in (picture, truth)))


def inside(cpu: str, place: Path, *words: str) -> None:
    """Run this file on a CPU of this kind."""
    command = [sys.executable, "-m", "srdeploy.bench.int8_cpus", "--inside", *words]
    environment = None if cpu == HERE else as_seen(cpu, place)
    subprocess.run(command, env=environment, check=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("engines", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", default=[])
    parser.add_argument("--cpu", nargs="+", choices=(HERE, *KINDS), default=[HERE, "avx2"])
    parser.add_argument("--pictures", type=int, default=0, help="of each set; 0 for all")
    parser.add_argument("--inside", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        upscale(*map(Path, given.inside))
    elif given.inside is not None:
        kernels()
    elif given.engines:
        compare(given.engines, given.data, given.cpu, given.pictures)
    else:
        for cpu in given.cpu:
            print(cpu, flush=True)
            with tempfile.TemporaryDirectory() as place:
                inside(cpu, Path(place))


if __name__ == "__main__":
    main()
