"""Frames per second of ``run`` against the engine alone and against vs-mlrt, in one run.

    python -m srdeploy.bench.video [--clip FILE] [--engine FILE] [--frames N] [--rounds N]
                                   [--peer PYTHON] [--json FILE]

vs-mlrt gets the network as PyTorch's exporter writes it, which is what its user has, and, as
``+ pass``, the file that srdeploy exports, whose graph pass helps OpenVINO by itself.

Each round measures, one after the other: the engine alone on the decoded frames; the whole
``run``, decode to x264 veryfast; and with ``--peer`` vs-mlrt on the same network and clip, its
OpenVINO and its ONNX Runtime backend. Printed are the medians and, round by round, the ratios.

``--peer`` is a Python of 3.12 or newer with: pip install vapoursynth vapoursynth-bestsource
vapoursynth-mlrt-ov vapoursynth-mlrt-ort av numpy
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from .. import data
from ..commands.build_engine import BuildOptions, build_engine
from ..commands.export import ExportOptions, export
from ..commands.run import FRAMES_IN_FLIGHT
from ..data.demo_clip import make_demo_clip
from ..export.passes import pass_names
from ..runtime.engine import open_engine
from ..runtime.session import Frames, Session
from ..runtime.video import VideoOptions, upscale_video

PEER = Path(__file__).with_name("peer_vsmlrt.py")


def decoded(clip: Path) -> list[Frames]:
    """The clip's frames as 1×H×W×3 uint8."""
    with av.open(str(clip)) as container:
        pixels = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [np.asarray(p, np.uint8)[None] for p in pixels]


def alone(session: Session, frames: list[Frames]) -> float:
    """Frames per second of the engine with nothing beside it, as many in flight as help."""
    started = time.perf_counter()
    with ThreadPoolExecutor(session.parallel) as pool:
        for _ in pool.map(session.upscale, frames):
            pass
    return len(frames) / (time.perf_counter() - started)


def peer(python: str, backend: str, model: Path, clip: Path, folder: Path) -> float:
    """Frames per second of vs-mlrt, decode to x264 veryfast; it measures itself."""
    done = subprocess.run(
        [python, str(PEER), backend, str(model), str(clip), str(folder / f"{backend}.mp4")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def resized(clip: Path, folder: Path, frames: int, size: tuple[int, int]) -> Path:
    """The first frames of a clip at ``size`` (width, height), nearly lossless, without sound."""
    path = folder / "clip.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=source.streams.video[0].average_rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        for count, frame in enumerate(source.decode(video=0)):
            if count == frames:
                break
            small = frame.reformat(*size, format="yuv420p")
            small.pts = None
            target.mux(stream.encode(small))
        target.mux(stream.encode())
    return path


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Frames per second by contestant, one figure a round."""
    if arguments.clip is None:
        clip = folder / "demo.mp4"
        make_demo_clip(clip, frames=arguments.frames)
    else:
        clip = resized(arguments.clip, folder, arguments.frames, (320, 180))
    model = arguments.onnx or data.bundled_onnx("vapsr-s-x4")
    if model is None:
        raise SystemExit("no bundled ONNX: name one with --onnx")
    engine = arguments.engine
    if engine is None:
        engine = build_engine(model, BuildOptions(), folder / "engine", print).path
    peers: list[tuple[str, str, Path]] = []
    if arguments.peer:
        plain = folder / "plain.onnx"
        options = ExportOptions(model="vapsr-s", without=pass_names())
        export(options, plain, print)
        peers = [
            ("vs-mlrt ov", "ov", plain),
            ("vs-mlrt ov + pass", "ov", model),
            ("vs-mlrt ort", "ort", plain),
        ]
    figures: dict[str, list[float]] = {}
    frames = decoded(clip)
    session, manifest = open_engine(engine, FRAMES_IN_FLIGHT)
    print(f"{manifest.model.variant} {manifest.build.precision} on {manifest.build.target}")
    with session:
        alone(session, frames[:3])
        for _ in range(arguments.rounds):
            figures.setdefault("engine alone", []).append(alone(session, frames))
            result = upscale_video(clip, folder / "out.mp4", session, VideoOptions())
            figures.setdefault("run", []).append(result.fps)
            for name, backend, network in peers:
                figures.setdefault(name, []).append(
                    peer(arguments.peer, backend, network, clip, folder)
                )
    return figures


def main() -> None:
    """Measure, print, and write the figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--engine", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    base = figures["run"]
    for name, values in figures.items():
        ratios = [ours / theirs for ours, theirs in zip(base, values, strict=True)]
        print(
            f"{name:<18}{statistics.median(values):7.2f} frames/s"
            f"   run/this {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        )
    if arguments.json:
        document = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": platform.processor() or platform.machine(),
            "numpy": np.__version__,
            "frames_per_second": figures,
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
