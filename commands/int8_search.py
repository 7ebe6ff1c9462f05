"""The int8 step of ``build-engine``: calibrate once, search for each target, prove the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..calib.build_page import layer_table
from ..calib.calibration_set import CalibrationSet
from ..calib.cost import MEASURED_UNIT, Costs, measured_costs, timed
from ..calib.int8 import MAX_DRIFT, Int8Calibration, Int8Result, calibrate_int8
from ..calib.journal import Journal, digest_model
from ..calib.outcome import Trial
from ..calib.ranges import Progress
from ..export.quantise import quantisable_nodes
from ..files import cache_folder
from ..runtime.session import Session
from ..runtime.targets import Target
from ..spec import Precision
from ..validate.drift import worst_drift
from . import Say
from .calibration import bundled
from .finetune import Recovered, recover, trained_on
from .one_engine import Built, Source, build_one, measured_quality, open_choice

# How often a search that met the budget on the tuning windows, but not on the whole proof
# pictures, goes on with half of the budget.
ATTEMPTS = 3


RECOVERED_INT8 = 0.98
"""Least share of MACs in int8 where training recovers what it loses."""


class Int8Search:
    """Int8 engines of one source.

    Args:
        source: What to build from.
        calibration: What activations are observed on.
        max_drift: Budget in dB that the proof is held against; None for the default.
        min_int8: Least share of the Conv and MatMul MACs in int8.
        folders: Pictures to fine-tune the int8 network on; empty for no training.
        observer: Name of what ranges are observed with.
        portable: Whether the weights are to fit every CPU, and not this one alone.
        say: Takes lines for the user.
        progress: Told each step's parts.

    Raises:
        SrDeployError: The graph cannot be quantised, or a folder to train on is refused.
    """

    def __init__(
        self,
        source: Source,
        calibration: CalibrationSet,
        max_drift: float | None,
        min_int8: float,
        folders: Sequence[Path],
        observer: str,
        portable: bool,
        say: Say,
        progress: Progress | None,
    ) -> None:
        self.source, self.calibration = source, calibration
        self.max_drift, self.min_int8 = max_drift, min_int8
        self.say, self.progress = say, progress
        self.training = trained_on(folders) if folders else {}
        self._folders = folders
        self._observer, self._portable = observer, portable
        self._recovered: dict[bool, Recovered] = {}
        seen = {str(member.fingerprint) for member in calibration.used}
        seen |= {str(found) for found in self.training.values()}
        self._seen = tuple(sorted(seen))
        self._calibrated: dict[bool, Int8Calibration] = {}

    def calibrated(self, target: Target) -> Int8Calibration:
        """The calibrated network, made once for all targets that add int8 products alike."""
        in_pairs = self._in_pairs(target)
        if in_pairs not in self._calibrated:
            journal = Journal(_journal_path(self.source))
            self._calibrated[in_pairs] = calibrate_int8(
                self.source.model,
                self.calibration,
                bundled("tuning"),
                self.source.spec.scale,
                self._observer,
                journal,
                self.progress,
                in_pairs,
            )
            if recalled := journal.recalled:
                self.say(f"{recalled} measurements are from an earlier search of this network")
        return self._calibrated[in_pairs]

    def _in_pairs(self, target: Target) -> bool:
        return self._portable or target.pairs_saturate()

    def build(self, target: Target) -> Built:
        """The fastest engine that keeps the budget on the proof pictures; else the best found.

        Raises:
            SrDeployError: The graph or an option is refused.
        """
        return self._recovered_engine(target) if self._folders else self._searched(target)

    def _searched(self, target: Target) -> Built:
        costs = self._costs(target)
        budget = self._budget
        best: Built | None = None
        tried: set[tuple[str, ...]] = set()
        for _ in range(ATTEMPTS):
            found = self._search(target, costs, budget)
            if found.float_nodes in tried:
                break
            tried.add(found.float_nodes)
            built = self._build_one(target, found)
            lost = worst_drift(built.quality)
            if best is None or lost > worst_drift(best.quality):
                best = built
            if not lost < -self._budget:
                break
            self.say(f"on the whole proof pictures it loses {lost:+z.3f} dB: searching on")
            budget /= 2
        assert best is not None  # the first attempt built one
        self._tell(best)
        return self._compared(target, best)

    def _recovered_engine(self, target: Target) -> Built:
        """The engine of the fine-tuned network, trained once for targets that add alike."""
        in_pairs = self._in_pairs(target)
        if in_pairs not in self._recovered:
            share = max(self.min_int8, RECOVERED_INT8)
            calibrated = self.calibrated(target)
            found = calibrated.search(self._budget, share, progress=self.progress)
            path = _journal_path(self.source)
            self._recovered[in_pairs] = recover(
                self.source, calibrated, found, self._folders, path, self.say
            )
        recovered = self._recovered[in_pairs]
        built = self._build_one(target, recovered.int8, recovered.sha256)
        self._tell(built)
        if not recovered.sha256:
            return built
        note = (
            f"the weights were fine-tuned for int8 on {len(self.training)} pictures; drift is"
            " measured against the original network"
        )
        manifest = dataclasses.replace(built.manifest, notes=(*built.manifest.notes, note))
        return dataclasses.replace(built, manifest=manifest)

    def _build_one(self, target: Target, found: Int8Result, recovery_sha256: str = "") -> Built:
        return build_one(
            self.source,
            target,
            Precision.INT8,
            found,
            self.calibration.sha256,
            self.say,
            recovery_sha256,
            self._seen,
        )

    @property
    def _budget(self) -> float:
        return MAX_DRIFT if self.max_drift is None else self.max_drift

    def _tell(self, built: Built) -> None:
        """Show the layers that matter and what was tried."""
        assert built.int8 is not None
        report = built.int8.report
        self.say("layers by what each alone loses in int8 on the tuning windows:")
        for line in layer_table(report):
            self.say(f"  {line}")
        for index, trial in enumerate(report.trials):
            mark = "→" if index == report.chosen else " "
            self.say(
                f"{mark} {trial.label}: {trial.int8_share:.0%} int8, {trial.drift:+z.3f} dB,"
                f" {trial.cost:.4g} {report.cost_unit}"
            )

    def _costs(self, target: Target) -> Costs | None:
        """Measured where the target runs here; None to have them modelled."""
        asked = dataclasses.replace(
            self.source.config, target=target.name, target_version=target.version()
        )
        if target.why_not_here(target.settle(asked, b"")) is not None:
            return None
        return measured_costs(
            self.source.model, lambda choice: self._open(target, choice), self.progress
        )

    def _open(self, target: Target, float_nodes: Sequence[str]) -> Session:
        every = set(quantisable_nodes(self.source.model))
        model = self.calibrated(target).repaired.quantiser.graph(
            float_nodes, target.written_rest(target.rest_precision())
        )
        return open_choice(self.source, target, model, set(float_nodes) != every)

    def _search(self, target: Target, costs: Costs | None, budget: float) -> Int8Result:
        rest = target.rest_precision()
        found = self.calibrated(target).search(budget, self.min_int8, costs, rest, self.progress)
        report = dataclasses.replace(found.report, max_drift=self._budget)
        if costs is not None:
            report = dataclasses.replace(report, trials=self._timed(target, report.trials))
        return dataclasses.replace(found, report=report)

    def _timed(self, target: Target, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """The trials with measured times for estimated ones."""
        choices = list(dict.fromkeys(trial.float_nodes for trial in trials))
        times = timed(choices, lambda choice: self._open(target, choice), self.progress)
        measured = dict(zip(choices, times, strict=True))
        return tuple(dataclasses.replace(t, cost=measured[t.float_nodes]) for t in trials)

    def _compared(self, target: Target, built: Built) -> Built:
        """Say where the float engine is as fast and loses less."""
        assert built.int8 is not None
        report = built.int8.report
        if report.cost_unit != MEASURED_UNIT:
            return built
        every = set(quantisable_nodes(self.source.model))
        chosen = report.trials[report.chosen]
        in_float = next(t for t in report.trials if set(t.float_nodes) == every)
        if in_float.cost > chosen.cost:
            return built
        with self._open(target, in_float.float_nodes) as session:
            quality = measured_quality(self.source, session, target, built.manifest)
        rest, lost = built.manifest.build.rest, worst_drift(quality)
        if lost < worst_drift(built.quality):
            return built
        note = (
            f"{rest} is as fast on this machine and better: {in_float.cost:.0f} ms a frame at"
            f" {lost:+z.3f} dB, int8 {chosen.cost:.0f} ms at {worst_drift(built.quality):+z.3f} dB"
        )
        self.say(f"{note}; --{rest} builds it")
        manifest = dataclasses.replace(built.manifest, notes=(*built.manifest.notes, note))
        return dataclasses.replace(built, manifest=manifest)


def _journal_path(source: Source) -> Path:
    """Where the measurements of a network are kept."""
    return cache_folder() / "calibration" / f"{digest_model(source.model)[:32]}.jsonl"
