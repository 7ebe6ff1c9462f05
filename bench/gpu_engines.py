"""Engines on an NVIDIA GPU: right, built as asked, and fast, against what a user would run instead.

    python -m srdeploy.bench.gpu_engines [--target tensorrt ...] [--models vapsr-s,vapsr,hat-s]
        [--sizes 320x180,640x360] [--precisions fp16,int8,fp32] [--seconds N] [--rounds N]
        [--rivals torch,compile,ort] [--golden DIR] [--data DIR] [--json FILE]

For each target, network and precision: seconds of the build, cold and from the engine store; the
float32 engine against golden tensors and against PyTorch; drift on the bundled pictures and on
those of ``--data``; precisions asked for and built; CUDA graph against plain launches; frames per
second and time of a frame, host to host, with one, two and three frames in flight, against PyTorch,
torch.compile and ONNX Runtime, all alternating in one run; GPU memory; and the share of the
roofline, whose ceilings are measured first. What could not run stands in the JSON with the reason.

A checkout is enough; ``SRDEPLOY_SHARED`` adds the authors' weights and more golden tensors. A
target with a provider is written ``onnxruntime:cuda``. With ``onnxruntime`` or ``openvino`` the
same runs on the CPU: a dry run, which shows that the script is whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import data
from ..export.pixels import with_pixels
from ..runtime.store import EngineStore
from ..spec import Precision, ShapeRange
from ..validate.datasets import Dataset, Pair, find_datasets
from ..validate.drift import measure, to_records
from ..validate.reference import open_reference
from ..validate.reference_cache import ReferenceCache
from .built import Backend, Engine
from .gpu_options import Options, read_options
from .gpu_report import lines
from .gpu_rivals import check_torch, rivals
from .gpu_speed import graphs, speed
from .machine import facts
from .parity import against_torch, golden
from .recording import FAILED, attempt, marked, write
from .roofline import ceilings
from .subject import INT8_METHOD, Subject, load_subject


class Run:
    """One run: its options, the document that grows, and the folder of engines that it built.

    Args:
        options: What was asked for.
        folder: Empty; the engine store is there, so that builds are cold.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.limits: dict[str, Any] = {}
        self.found: dict[str, Any] = {
            "machine": facts(),
            "options": {name: str(value) for name, value in vars(options).items()},
            "int8": INT8_METHOD,
            "networks": {},
            "ceilings": {},
            "targets": {},
        }

    def execute(self, subjects: dict[str, Subject | dict[str, Any]]) -> None:
        """Measure every target; the file is written after each part."""
        for name, subject in subjects.items():
            known = subject if isinstance(subject, dict) else _described(subject)
            self.found["networks"][name] = known
        for name in self.options.targets:
            self.found["targets"][name] = attempt(lambda n=name: self._target(n, subjects))  # type: ignore[misc]
            self.save()

    def save(self) -> None:
        """Write what there is."""
        write(self.options.json, self.found)

    def _target(self, name: str, subjects: dict[str, Subject | dict[str, Any]]) -> dict[str, Any]:
        backend = Backend.named(name, EngineStore(self.folder / name.replace(":", "-")))
        device = backend.device
        if device not in self.found["ceilings"]:
            self.found["ceilings"][device] = attempt(lambda: _ceilings(device))
        found: dict[str, Any] = {"version": backend.target.version(), "dry_run": device == "cpu"}
        self.found["targets"][name] = found
        found["golden"] = attempt(lambda: golden(backend, self.options.golden))
        found["models"] = {}
        for model, subject in subjects.items():
            if isinstance(subject, Subject):
                found["models"][model] = {}
                self._model(backend, subject, found["models"][model])
        return found

    def _model(self, backend: Backend, subject: Subject, found: dict[str, Any]) -> None:
        found["parity"] = attempt(lambda: against_torch(subject, backend))
        with ReferenceCache(open_reference(subject.model, subject.spec)) as reference:
            for precision in self.options.precisions:
                engine = attempt(lambda p=precision: self._build(backend, subject, p))  # type: ignore[misc]
                if not isinstance(engine, Engine):
                    found[str(precision)] = {"build": engine}
                    continue
                measured: dict[str, Any] = {"build": engine.describe()}
                found[str(precision)] = measured
                for name, part in self._parts(engine, subject, reference, backend):
                    measured[name] = attempt(part)
                    self.save()

    def _parts(
        self, engine: Engine, subject: Subject, reference: ReferenceCache, backend: Backend
    ) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What is measured of an engine."""
        options, device = self.options, backend.device
        clock = options.seconds, options.rounds
        yield "layers", engine.layers
        yield "drift", lambda: _drift(engine, reference, _datasets(subject, options.data))
        yield "graphs", lambda: graphs(engine, options.sizes[0], *clock)
        others = rivals(engine, subject.network, backend, options.rivals)
        limits = self.found["ceilings"][device]
        for size in options.sizes:
            yield (
                "speed {}x{}".format(*size),
                lambda s=size: speed(engine, others, s, *clock, device == "cuda", limits),  # type: ignore[misc]
            )

    def _build(self, backend: Backend, subject: Subject, precision: Precision) -> Engine:
        lowered, rest = subject.lowered(backend.target, precision)
        profiles = [ShapeRange.static(height, width) for width, height in self.options.sizes]
        profiles.append(_pictures_range(_datasets(subject, self.options.data)))
        return backend.build(with_pixels(lowered), subject.spec, precision, rest, profiles)


def _ceilings(device: str) -> dict[str, float]:
    check_torch(device)
    return ceilings(device)


def _described(subject: Subject) -> dict[str, Any]:
    spec = subject.spec
    return {
        "variant": spec.variant,
        "weights": spec.weights,
        "random_weights": spec.random_weights,
        "export_seconds": subject.export_seconds,
    }


def _datasets(subject: Subject, folder: Path | None) -> tuple[Dataset, ...]:
    """The bundled pictures that nothing is calibrated on, and those of a folder."""
    scale = subject.spec.scale
    pairs = tuple(Pair(p.name, p.path, None, scale) for p in data.pictures("proof"))
    bundled = Dataset("bundled proof", pairs)
    return (bundled, *(find_datasets(folder, scale) if folder else ()))


def _pictures_range(datasets: Sequence[Dataset]) -> ShapeRange:
    """A profile for all pictures; their sizes alone decide it."""
    shapes = [pair.read()[0].shape for dataset in datasets for pair in dataset.pairs]
    heights, widths = sorted(s[0] for s in shapes), sorted(s[1] for s in shapes)
    middle = len(shapes) // 2
    return ShapeRange(
        (heights[0], widths[0]), (heights[middle], widths[middle]), (heights[-1], widths[-1])
    )


def _drift(
    engine: Engine, reference: ReferenceCache, datasets: Sequence[Dataset]
) -> list[dict[str, Any]]:
    """Quality of an engine in its session; of random weights, only the fidelity tells."""
    with engine.open() as session:
        results = measure(session, reference, datasets, session.scale)
    return [vars(record) for record in to_records(results, executed_on=engine.target.name)]


@contextmanager
def _own_cache() -> Iterator[Path]:
    """A new cache folder for timing caches, compiled kernels and engines: builds are cold."""
    before = os.environ.get("SRDEPLOY_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SRDEPLOY_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["SRDEPLOY_CACHE"]
            else:
                os.environ["SRDEPLOY_CACHE"] = before


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print a short table, write the JSON; exit with 1 where something failed or is wrong."""
    options = read_options(arguments)
    # before the cache changes: fetched weights are in it
    subjects = {name: attempt(lambda n=name: load_subject(n)) for name in options.models}  # type: ignore[misc]
    with _own_cache() as folder:
        run = Run(options, folder)
        run.execute(subjects)
    run.save()
    print("\n".join(lines(run.found)))
    print(f"written: {options.json}")
    if list(marked(run.found, FAILED)) or not _right(run.found):
        raise SystemExit(1)


def _right(found: dict[str, Any]) -> bool:
    """Whether every golden tensor came out."""
    judged = [target.get("golden") for target in found["targets"].values()]
    return all(row["within"] for rows in judged if isinstance(rows, list) for row in rows)


if __name__ == "__main__":
    main()
