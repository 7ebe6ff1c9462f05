"""What a measurement found, its JSON form, and whether it meets a budget.

The mean drift of a set is the mean of its pictures' drifts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DriftExceeded
from ..runtime.session import Session
from ..spec import DriftRecord, Manifest
from .crops import Crop

PICTURE_FIGURES = ("psnr_reference", "psnr_engine", "drift", "fidelity")
SSIM_FIGURES = ("ssim_reference", "ssim_engine")


@dataclass(frozen=True)
class PictureResult:
    """Quality on one picture; PSNR and fidelity in dB."""

    name: str
    psnr_reference: float
    psnr_engine: float
    ssim_reference: float
    ssim_engine: float
    fidelity: float

    @property
    def drift(self) -> float:
        """Negative where the engine is worse than the reference, dB."""
        return self.psnr_engine - self.psnr_reference


@dataclass(frozen=True)
class DatasetResult:
    """Quality on one data set; every mean is NaN where nothing was executed.

    Attributes:
        name: Of the data set.
        reference_runtime: Target that computed the reference, such as ``torch``.
        pictures: In the order of the data set; empty where the set was not executed.
        crops: Windows of the pictures of lowest drift, for the report.
    """

    name: str
    reference_runtime: str
    pictures: tuple[PictureResult, ...]
    crops: tuple[Crop, ...] = field(default=(), compare=False)

    def mean(self, figure: str) -> float:
        """Mean of a figure of :class:`PictureResult` over the pictures."""
        if not self.pictures:
            return math.nan
        return math.fsum(getattr(p, figure) for p in self.pictures) / len(self.pictures)

    @property
    def drift(self) -> float:
        """Mean drift, dB."""
        return self.mean("drift")


@dataclass(frozen=True)
class Subject:
    """What was measured, as ``validate --json`` names it.

    Attributes:
        model: Architecture, such as ``vapsr``.
        variant: Such as ``vapsr-x4``.
        scale: Upscaling factor.
        target: Target that the engine was built for.
        precision: Such as ``int8``.
        executed_on: Target that computed the figures.
        engine_executed: Whether the engine itself ran, rather than its graph elsewhere.
        int8_mac_share: Share of the Conv and MatMul MACs in int8.
        notes: What should be known of the figures, one sentence each.
    """

    model: str
    variant: str
    scale: int
    target: str
    precision: str
    executed_on: str
    engine_executed: bool
    int8_mac_share: float = 0.0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, session: Session, notes: tuple[str, ...] = ()) -> Subject:
        """Name an engine by its manifest and the session that ran it or its graph."""
        return cls(
            model=manifest.model.architecture,
            variant=manifest.model.variant,
            scale=manifest.model.scale,
            target=manifest.build.target,
            precision=manifest.build.precision.value,
            executed_on=session.target,
            engine_executed=session.target == manifest.build.target,
            int8_mac_share=manifest.int8_mac_share,
            notes=notes,
        )


def worst_drift(results: Sequence[DatasetResult]) -> float:
    """Lowest mean drift of any set in dB; NaN where a set, or everything, was not executed."""
    drifts = [result.drift for result in results]
    return min(drifts) if drifts and not any(map(math.isnan, drifts)) else math.nan


def within_budget(results: Sequence[DatasetResult], max_drift: float) -> bool:
    """Whether every set was executed and loses at most ``max_drift`` dB on average."""
    return worst_drift(results) >= -max_drift


def check_budget(results: Sequence[DatasetResult], max_drift: float) -> None:
    """Pass where every set was executed and loses at most ``max_drift`` dB on average.

    Raises:
        DriftExceeded: A set lost more, was not executed, or there is no set.
    """
    if within_budget(results, max_drift):
        return
    idle = [result.name for result in results if not result.pictures]
    if idle or not results:
        what = f"{', '.join(idle)} was not executed" if idle else "nothing was executed"
        raise DriftExceeded(
            f"{what}, so the budget of {max_drift:g} dB is not proved",
            "run validate where the engine can run",
        )
    over = [f"{r.name} drifts {r.drift:+z.3f} dB" for r in results if not r.drift >= -max_drift]
    raise DriftExceeded(
        f"{', '.join(over)}; the budget is {-max_drift:zg} dB",
        "build with a smaller --max-drift or with --calib pictures like yours, or allow more",
    )


def to_records(results: Sequence[DatasetResult], executed_on: str) -> tuple[DriftRecord, ...]:
    """The means as a manifest keeps them; sets that were not executed are left out.

    Args:
        results: Measured figures.
        executed_on: Target that ran.
    """
    return tuple(
        DriftRecord(
            dataset=result.name,
            psnr_reference=result.mean("psnr_reference"),
            psnr_engine=result.mean("psnr_engine"),
            drift=result.drift,
            fidelity=result.mean("fidelity"),
            reference_runtime=result.reference_runtime,
            executed_on=executed_on,
        )
        for result in results
        if result.pictures
    )


def to_json(
    subject: Subject, results: Sequence[DatasetResult], max_drift: float | None = None
) -> dict[str, Any]:
    """What ``validate --json`` gives, rounded to 6 decimals; null where nothing was executed.

    ``worst_drift`` is the lowest mean drift; with a budget, ``max_drift`` and
    ``within_budget`` follow.
    """
    document = dataclasses.asdict(subject) | {"notes": list(subject.notes)}
    document["datasets"] = [dataset_to_json(result) for result in results]
    document["worst_drift"] = _figure(worst_drift(results))
    if max_drift is not None:
        document["max_drift"] = max_drift
        document["within_budget"] = within_budget(results, max_drift)
    return document


def dataset_to_json(result: DatasetResult) -> dict[str, Any]:
    """Means and pictures of a set as JSON, rounded to 6 decimals."""
    means = {name: _figure(result.mean(name)) for name in (*PICTURE_FIGURES, *SSIM_FIGURES)}
    pictures = [
        {"name": p.name} | {figure: _figure(getattr(p, figure)) for figure in PICTURE_FIGURES}
        for p in result.pictures
    ]
    runtime = {"reference_runtime": result.reference_runtime}
    return {"name": result.name} | means | runtime | {"images": pictures}


def _figure(value: float) -> float | None:
    """JSON knows no NaN; adding 0.0 turns -0.0 into 0.0."""
    return None if math.isnan(value) else round(value, 6) + 0.0
