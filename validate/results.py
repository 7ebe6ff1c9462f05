"""What a measurement found, its JSON form, and whether it meets a budget.

The mean drift of a set is the mean of its pictures' drifts. A mean hides a picture that loses much,
so a budget is held against the worst picture too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DriftExceeded
from ..runtime.session import Session
from ..spec import Budget, ContentDrift, DriftRecord, Manifest
from .crops import Crop

PICTURE_FIGURES = ("psnr_reference", "psnr_engine", "drift", "fidelity")
SSIM_FIGURES = ("ssim_reference", "ssim_engine")


@dataclass(frozen=True)
class PictureResult:
    """Quality on one picture; PSNR and fidelity in dB; ``content`` is its class, if it has one."""

    name: str
    psnr_reference: float
    psnr_engine: float
    ssim_reference: float
    ssim_engine: float
    fidelity: float
    content: str = ""

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
        hard: Whether a budget holds for its pictures alone, not for their mean.
    """

    name: str
    reference_runtime: str
    pictures: tuple[PictureResult, ...]
    crops: tuple[Crop, ...] = field(default=(), compare=False)
    hard: bool = False

    def mean(self, figure: str) -> float:
        """Mean of a figure of :class:`PictureResult` over the pictures."""
        if not self.pictures:
            return math.nan
        return math.fsum(getattr(p, figure) for p in self.pictures) / len(self.pictures)

    @property
    def drift(self) -> float:
        """Mean drift, dB."""
        return self.mean("drift")

    @property
    def worst(self) -> PictureResult | None:
        """The picture of lowest drift; None where nothing was executed."""
        return min(self.pictures, key=lambda picture: picture.drift, default=None)

    def contents(self) -> tuple[ContentDrift, ...]:
        """Mean drift by content class, worst first; pictures without a class are left out."""
        drifts: dict[str, list[float]] = {}
        for picture in self.pictures:
            if picture.content:
                drifts.setdefault(picture.content, []).append(picture.drift)
        found = [ContentDrift(name, math.fsum(d) / len(d)) for name, d in drifts.items()]
        return tuple(sorted(found, key=lambda content: content.drift))


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
    """Lowest mean drift of any set in dB, of hard ones where there are no others; NaN where a set,
    or everything, was not executed."""
    drifts = [result.drift for result in results]
    held = [result.drift for result in results if not result.hard] or drifts
    return min(held) if drifts and not any(map(math.isnan, drifts)) else math.nan


def worst_picture(results: Sequence[DatasetResult]) -> tuple[str, float]:
    """``SET/PICTURE`` of lowest drift, and that in dB; NaN where nothing was executed."""
    found = [(f"{r.name}/{r.worst.name}", r.worst.drift) for r in results if r.worst]
    return min(found, key=lambda named: named[1], default=("", math.nan))


def held_drift(results: Sequence[DatasetResult], budget: Budget) -> float:
    """The drift that a budget is held against, in terms of its mean, dB.

    The worst set's mean, or that of the worst picture divided by the budget's tail where this is
    lower; NaN where a set, or everything, was not executed.
    """
    mean = worst_drift(results)
    return mean if math.isnan(mean) else min(mean, worst_picture(results)[1] / budget.tail)


def within_budget(results: Sequence[DatasetResult], budget: Budget) -> bool:
    """Whether every set was executed, and neither it nor a picture of it loses too much."""
    lost = worst_drift(results)
    return lost >= -budget.mean and worst_picture(results)[1] >= -budget.worst


def check_budget(results: Sequence[DatasetResult], budget: Budget) -> None:
    """Pass where :func:`within_budget` does.

    Raises:
        DriftExceeded: A set or a picture lost more, a set was not executed, or there is none.
    """
    if within_budget(results, budget):
        return
    idle = [result.name for result in results if not result.pictures]
    if idle or not results:
        what = f"{', '.join(idle)} was not executed" if idle else "nothing was executed"
        raise DriftExceeded(
            f"{what}, so the budget of {budget} is not proved",
            "run validate where the engine can run",
        )
    over = [
        f"{r.name} drifts {r.drift:+z.3f} dB on average"
        for r in results
        if not (r.hard or r.drift >= -budget.mean)
    ]
    name, lost = worst_picture(results)
    if not lost >= -budget.worst:
        over.append(f"{name} drifts {lost:+z.3f} dB")
    raise DriftExceeded(
        f"{', '.join(over)}; the budget is {budget}",
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
            worst=result.worst.name,
            worst_drift=result.worst.drift,
            contents=result.contents(),
            hard=result.hard,
        )
        for result in results
        if result.worst
    )


def to_json(
    subject: Subject, results: Sequence[DatasetResult], budget: Budget | None = None
) -> dict[str, Any]:
    """What ``validate --json`` gives, rounded to 6 decimals; null where nothing was executed.

    ``worst_drift`` is the lowest mean drift, ``worst_picture`` the picture of lowest drift; with a
    budget, ``max_drift``, ``max_picture_drift`` and ``within_budget`` follow.
    """
    document = dataclasses.asdict(subject) | {"notes": list(subject.notes)}
    document["datasets"] = [dataset_to_json(result) for result in results]
    document["worst_drift"] = _figure(worst_drift(results))
    name, lost = worst_picture(results)
    document["worst_picture"] = {"name": name, "drift": _figure(lost)}
    if budget is not None:
        document["max_drift"] = budget.mean
        document["max_picture_drift"] = budget.worst
        document["within_budget"] = within_budget(results, budget)
    return document


def dataset_to_json(result: DatasetResult) -> dict[str, Any]:
    """Means and pictures of a set as JSON, rounded to 6 decimals."""
    means = {name: _figure(result.mean(name)) for name in (*PICTURE_FIGURES, *SSIM_FIGURES)}
    pictures = [
        {"name": p.name} | {figure: _figure(getattr(p, figure)) for figure in PICTURE_FIGURES}
        for p in result.pictures
    ]
    runtime = {"reference_runtime": result.reference_runtime}
    contents = {c.content: _figure(c.drift) for c in result.contents()}
    by_content = {"contents": contents} if contents else {}
    return {"name": result.name} | means | runtime | by_content | {"images": pictures}


def _figure(value: float) -> float | None:
    """JSON knows no NaN; adding 0.0 turns -0.0 into 0.0."""
    return None if math.isnan(value) else round(value, 6) + 0.0
