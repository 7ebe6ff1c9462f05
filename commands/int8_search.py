"""The int8 step of ``build-engine``: calibrate once, search for each target, prove the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..calib.calibration_set import CalibrationSet
from ..calib.cost import TIMED_AT, Costs, kinds, measured_costs
from ..calib.int8 import Int8Calibration, Int8Result, calibrate_int8
from ..calib.journal import Journal, digest_model
from ..calib.listing import layer_table
from ..calib.ranges import Progress
from ..export.quantise import quantisable_nodes
from ..files import cache_folder
from ..runtime.processor import machine
from ..runtime.session import Session
from ..runtime.targets import Target
from ..runtime.timing import median_times
from ..spec import Budget, KernelGroup, Manifest, Precision
from ..validate.drift import held_drift, worst_drift, worst_picture
from . import Say
from .calibration import bundled
from .finetune import Recovered, recover, trained_on
from .one_engine import Built, Source, build_choice, build_one, check_kernels, comparable

# How often a search that met the budget on the tuning windows, but not on the whole proof
# pictures, goes on with half of the budget.
ATTEMPTS = 3

FAR_SLOWER = 1.5
"""Times the fastest target's int8 from which another one's is not searched: what a search gains
lies far below."""

RECOVERED_INT8 = 0.98
"""Least share of MACs in int8 where training recovers what it loses."""


class Int8Search:
    """Int8 engines of one source.

    Args:
        source: What to build from.
        calibration: What activations are observed on.
        budget: What the proof is held against.
        min_int8: Least share of the Conv and MatMul MACs in int8.
        folders: Pictures to fine-tune the int8 network on; empty for no training.
        observer: Name of what ranges are observed with.
        portable: Whether the weights are to fit every CPU, and not this one alone.
        explain: Whether to check the kernels of each kind of layers too.
        say: Takes lines for the user.
        progress: Told each step's parts.

    Raises:
        SrDeployError: The graph cannot be quantised, or a folder to train on is refused.
    """

    def __init__(
        self,
        source: Source,
        calibration: CalibrationSet,
        budget: Budget,
        min_int8: float,
        folders: Sequence[Path],
        observer: str,
        portable: bool,
        explain: bool,
        say: Say,
        progress: Progress | None,
    ) -> None:
        self.source, self.calibration = source, calibration
        self.budget, self.min_int8 = budget, min_int8
        self.say, self.progress = say, progress
        self.training = trained_on(folders) if folders else {}
        self._folders = folders
        self._observer, self._portable = observer, portable
        self._explain = explain
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
                self.budget.tail,
            )
            if recalled := journal.recalled:
                self.say(f"{recalled} measurements are from an earlier search of this network")
        return self._calibrated[in_pairs]

    def _in_pairs(self, target: Target) -> bool:
        return self._portable or target.pairs_saturate()

    def worth_searching(self, targets: Sequence[Target]) -> list[Target]:
        """Those whose int8 is not far slower than another's on this machine.

        Raises:
            SrDeployError: The graph is refused.
        """
        here = [target for target in targets if self._asked_here(target)]
        if len(here) < 2:
            return list(targets)

        def measure() -> list[float]:
            with ExitStack() as held:
                sessions = [held.enter_context(self._open(target, ())) for target in here]
                return median_times(sessions, (1, *TIMED_AT))

        key = (machine(), *(self._asked_here(target) for target in here), "targets")
        times = self.calibrated(here[0]).journal.kept(measure, *key)
        slow = [t for t, took in zip(here, times, strict=True) if took > FAR_SLOWER * min(times)]
        for target in slow:
            self.say(f"{target.name}: its int8 is far slower here than another target's: left out")
        return [target for target in targets if target not in slow]

    def build(self, target: Target) -> Built:
        """The fastest engine that keeps the budget on the proof pictures; else the best found.

        Raises:
            SrDeployError: The graph or an option is refused.
        """
        return self._recovered_engine(target) if self._folders else self._searched(target)

    def _searched(self, target: Target) -> Built:
        costs = self._costs(target)
        limit = self.budget.mean
        best: Built | None = None
        tried: set[tuple[str, ...]] = set()
        for _ in range(ATTEMPTS):
            found = self._search(target, costs, limit)
            if found.float_nodes in tried:
                break
            tried.add(found.float_nodes)
            built = self._build_one(target, found)
            lost = held_drift(built.quality, self.budget)
            if best is None or lost > held_drift(best.quality, self.budget):
                best = built
            if not lost < -self.budget.mean:
                break
            name, worst = worst_picture(built.quality)
            self.say(
                f"on the whole proof pictures it loses {worst_drift(built.quality):+z.3f} dB,"
                f" {worst:+z.3f} dB on {name}: searching on"
            )
            limit /= 2
        assert best is not None  # the first attempt built one
        self._tell(best)
        return self._by_kind(target, best)

    def _by_kind(self, target: Target, built: Built) -> Built:
        """Add which kinds of layers have kernels that do not compute the graph."""
        manifest = built.manifest
        beyond = (manifest.kernel_difference or 0.0) > (manifest.kernel_bound or 0.0)
        if manifest.kernel_difference is None or not (self._explain or beyond):
            return built
        every = quantisable_nodes(self.source.model)
        in_int8 = set(every) - set(manifest.build.float_nodes)
        groups = []
        for kind in kinds(self.source.model):
            alone = [name for name in kind if name in in_int8]
            if not alone:
                continue
            rest = [name for name in every if name not in alone]
            found = check_kernels(self.source, target, *self._choice(target, rest))
            like = f" and {len(alone) - 1} alike" if len(alone) > 1 else ""
            groups.append(KernelGroup(f"{alone[0]}{like}", found.apart, found.bound))
            if self.progress:
                self.progress("checking kernels", len(groups), len(kinds(self.source.model)))
        groups.sort(key=lambda group: -group.difference / group.bound)
        manifest = dataclasses.replace(manifest, kernel_groups=tuple(groups))
        return dataclasses.replace(built, manifest=manifest)

    def _recovered_engine(self, target: Target) -> Built:
        """The engine of the fine-tuned network, trained once for targets that add alike."""
        in_pairs = self._in_pairs(target)
        if in_pairs not in self._recovered:
            share = max(self.min_int8, RECOVERED_INT8)
            calibrated = self.calibrated(target)
            found = calibrated.search(self.budget.mean, share, progress=self.progress)
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
                f" about {trial.cost:.0f} {report.cost_unit}"
            )

    def _asked_here(self, target: Target) -> str:
        """Digest of what is asked for of a target on this machine; empty where it does not run."""
        asked = dataclasses.replace(
            self.source.config,
            target=target.name,
            target_version=target.version(),
            in_pairs=self._in_pairs(target),
        )
        settled = target.settle(asked, b"")
        return "" if target.why_not_here(settled) else settled.digest()

    def _costs(self, target: Target) -> Costs | None:
        """Measured once on a machine that runs the target; None to have them modelled."""
        asked = self._asked_here(target)
        if not asked:
            return None

        def measure() -> dict[str, Any]:
            return dataclasses.asdict(
                measured_costs(
                    self.source.model, lambda choice: self._open(target, choice), self.progress
                )
            )

        journal = self.calibrated(target).journal
        return Costs(
            **journal.kept(measure, machine(), asked, target.rest_precision(), "costs by repeats")
        )

    def _open(self, target: Target, float_nodes: Sequence[str]) -> Session:
        content, manifest, _ = self._choice(target, float_nodes)
        return comparable(target.open(content, manifest), target, manifest)

    def _choice(self, target: Target, float_nodes: Sequence[str]) -> tuple[bytes, Manifest, bytes]:
        every = set(quantisable_nodes(self.source.model))
        model = self.calibrated(target).repaired.quantiser.graph(
            float_nodes, target.written_rest(target.rest_precision())
        )
        return build_choice(self.source, target, model, set(float_nodes) != every)

    def _search(self, target: Target, costs: Costs | None, limit: float) -> Int8Result:
        rest = target.rest_precision()
        found = self.calibrated(target).search(limit, self.min_int8, costs, rest, self.progress)
        report = dataclasses.replace(found.report, max_drift=self.budget.mean)
        return dataclasses.replace(found, report=report)


def _journal_path(source: Source) -> Path:
    """Where the measurements of a network are kept."""
    return cache_folder() / "calibration" / f"{digest_model(source.model)[:32]}.jsonl"
