"""Drift of int8 graphs on test sets, and how long the search for them takes.

The graph is executed as written in ONNX Runtime, so the figures hold for the graph, not for the
int8 kernels of this machine.

python -m srdeploy.bench.int8_drift --weights VapSR-S.pth --calib PICTURES --tuning PICTURES
    --data Set5 --data Set14 --min-int8 0.8 --min-int8 0.9
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..calib.calibration_set import CalibrationSet, make_calibration_set
from ..calib.fingerprint import find_same, fingerprint
from ..calib.int8 import Int8Calibration, calibrate_int8
from ..calib.listing import layer_table
from ..calib.pictures import load_pictures
from ..calib.tuning import TuningPair, mean_psnr
from ..export.passes import run_passes
from ..export.trace import trace
from ..models.weights.checkpoint import load_network
from ..models.weights.resolve import load
from ..spec import ModelSpec, Precision
from ..validate.datasets import Dataset, find_datasets


def main() -> None:
    """Print a line for each share of int8."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, help="checkpoint; or name a --model")
    parser.add_argument("--model", help="such as hat-tiny")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--calib", type=Path, action="append", required=True)
    parser.add_argument("--tuning", type=Path, action="append", required=True)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--min-int8", type=float, action="append")
    parser.add_argument("--max-drift", type=float, default=0.05)
    options = parser.parse_args()
    network, spec = (
        load_network(options.weights, options.weights.name)
        if options.weights
        else load(options.model, options.scale)
    )
    model = trace(network, spec)
    run_passes(model, ())
    datasets = [d for folder in options.data for d in find_datasets(folder, spec.scale)]
    calibration, calibrated, seconds = _calibrate(options, model, spec, datasets)
    print(f"{spec.variant}: calibrated and repaired in {seconds:.0f} s")
    for line in layer_table(calibrated.search(options.max_drift, 0.0).report):
        print(f"  {line}")
    print(f"calibration set {calibration.sha256[:16]}, {len(calibration.members)} pictures")
    truth = {d.name: [TuningPair(*pair.read()) for pair in d.pairs] for d in datasets}
    reference = {name: mean_psnr(model, pairs, spec.scale) for name, pairs in truth.items()}
    for share in options.min_int8 or [0.8]:
        started = time.perf_counter()
        found = calibrated.search(options.max_drift, share)
        seconds = time.perf_counter() - started
        graph = found.graph(Precision.FP32)
        trial = found.report.trials[found.report.chosen]
        drifts = ", ".join(
            f"{name} {mean_psnr(graph, pairs, spec.scale) - reference[name]:+z.3f}"
            for name, pairs in truth.items()
        )
        print(
            f"at least {share:.0%} int8: {trial.int8_share:.1%}, searched {seconds:.0f} s,"
            f" tuning {trial.drift:+z.3f}, {drifts} dB; float: {', '.join(found.float_nodes)}",
            flush=True,
        )


def _calibrate(
    options: argparse.Namespace, model: object, spec: ModelSpec, datasets: list[Dataset]
) -> tuple[CalibrationSet, Int8Calibration, float]:
    """Calibrate on pictures that no data set shares."""
    known = {
        f"{d.name}/{pair.name}": fingerprint(pair.read()[1]) for d in datasets for pair in d.pairs
    }
    pictures = []
    for picture in load_pictures(options.calib).read():
        same = find_same(fingerprint(picture.pixels), known)
        if same:
            print(f"{picture.name} is {same}: left out")
        else:
            pictures.append(picture)
    tuning = list(load_pictures(options.tuning).read())
    started = time.perf_counter()
    calibration = make_calibration_set(pictures)
    calibrated = calibrate_int8(model, calibration, tuning, spec.scale)  # type: ignore[arg-type]
    return calibration, calibrated, time.perf_counter() - started


if __name__ == "__main__":
    main()
