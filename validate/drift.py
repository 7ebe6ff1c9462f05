"""Drift: what an engine loses against the reference, measured picture by picture.

drift = PSNR of the engine against ground truth − PSNR of the reference against ground truth;
fidelity = PSNR of the engine against the reference. All on Y, with ``scale`` pixels cut from
each border (:mod:`.metrics`).

Equal planes have an infinite PSNR, which neither JSON nor a mean can hold: every PSNR here
is at most :data:`PSNR_CAP`, which therefore reads "100 dB or more".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import EngineError
from ..runtime.session import Session
from .crops import WorstCrops
from .datasets import Dataset, Pair, Picture
from .metrics import Plane, cut_border, luma, psnr, ssim
from .results import (
    DatasetResult,
    PictureResult,
    Subject,
    check_budget,
    held_drift,
    to_json,
    to_records,
    within_budget,
    worst_drift,
    worst_picture,
)

__all__ = [
    "CROPS_PER_SET",
    "PSNR_CAP",
    "DatasetResult",
    "PictureResult",
    "Progress",
    "Subject",
    "check_budget",
    "held_drift",
    "measure",
    "to_json",
    "to_records",
    "within_budget",
    "worst_drift",
    "worst_picture",
]

PSNR_CAP = 100.0
"""Largest PSNR and fidelity that is reported, dB."""

CROPS_PER_SET = 3

Progress = Callable[[int, int, str], None]
"""Called before each picture: how many are done, how many there are, ``SET/PICTURE``."""


def measure(
    engine: Session,
    reference: Session,
    datasets: Sequence[Dataset],
    scale: int,
    progress: Progress | None = None,
) -> tuple[DatasetResult, ...]:
    """Run both sessions over every picture and compare them with ground truth.

    Raises:
        EngineError: The sessions have another scale, or one failed; the picture is named.
        DatasetError: A picture cannot be read or measured.
    """
    for session, role in ((engine, "engine"), (reference, "reference")):
        if session.scale != scale:
            raise EngineError(
                f"the {role} upscales by {session.scale}, the data sets are for {scale}"
            )
    total = sum(len(dataset.pairs) for dataset in datasets)
    done = 0
    results: list[DatasetResult] = []
    for dataset in datasets:
        pictures: list[PictureResult] = []
        worst = WorstCrops(dataset.name, CROPS_PER_SET)
        for pair in dataset.pairs:
            if progress is not None:
                progress(done, total, f"{dataset.name}/{pair.name}")
            pictures.append(_measure_pair(engine, reference, pair, worst))
            done += 1
        crops = worst.worst()
        results.append(
            DatasetResult(dataset.name, reference.target, tuple(pictures), crops, dataset.hard)
        )
    return tuple(results)


def _measure_pair(
    engine: Session, reference: Session, pair: Pair, worst: WorstCrops
) -> PictureResult:
    lr, hr = pair.read()
    by_engine = _upscale(engine, lr, pair)
    by_reference = _upscale(reference, lr, pair)
    truth, ours, theirs = (
        cut_border(luma(picture), pair.scale) for picture in (hr, by_engine, by_reference)
    )
    result = PictureResult(
        name=pair.name,
        psnr_reference=_capped_psnr(theirs, truth),
        psnr_engine=_capped_psnr(ours, truth),
        ssim_reference=ssim(theirs, truth),
        ssim_engine=ssim(ours, truth),
        fidelity=_capped_psnr(ours, theirs),
        content=pair.content,
    )
    worst.offer(pair.name, result.drift, lr, by_reference, by_engine, hr)
    return result


def _upscale(session: Session, lr: Picture, pair: Pair) -> Picture:
    try:
        upscaled: Picture = session.upscale(lr[None])[0]
    except EngineError as exc:
        raise EngineError(f"{pair.hr}: {exc.message}", exc.hint) from exc
    return upscaled


def _capped_psnr(a: Plane, b: Plane) -> float:
    return min(psnr(a, b), PSNR_CAP)
