"""The examination: every question in a process apart, in as few of them as may be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from ..gpu_facts import hardware
from .apart import Answer, Apart
from .findings import Report
from .questions import BASE, EXTRAS, LIBRARIES, MAIN, Answers, extra_of
from .sections import report_of

PROBES = "runtime.doctor.probes"
ORT_ON_GPU = "onnxruntime on a GPU"


class Examination:
    """The questions of one report; those of different processes are answered side by side.

    Args:
        root: Where Linux shows its devices.
        stack: Ends all processes when it is left.
    """

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._processes = defaultdict[str, Apart](lambda: stack.enter_context(Apart()))
        # first, as it decides what else is asked
        self.driver, self.gpus = self._ask("driver"), self._ask("gpus")
        self.base = {name: self._ask("package", name) for name in BASE}
        self.extras = {
            name: self._ask("package", name)
            for name, extra in EXTRAS.items()
            if not extra.gpu and name != "torch"
        }
        self.onnxruntime = self._ask("onnxruntime")
        self.codecs = self._processes[MAIN].submit("runtime.video.codecs:codecs")
        self.libraries: dict[str, Future[Answer]] = {}
        self.targets = Answer()
        self.selftests: dict[str, Future[Answer]] = {}
        self.providers: Future[Answer] | None = None
        # a driver that crashes is no proof that there is none
        self.gpu = hardware(root) or self.gpus.result().kind != "TargetUnavailable"
        if self.gpu:
            self._ask_for_gpu()

    def _ask(self, probe: str, *arguments: str, process: str = MAIN) -> Future[Answer]:
        return self._processes[process].submit(f"{PROBES}:{probe}", *arguments)

    def _ask_for_gpu(self) -> None:
        for name, extra in EXTRAS.items():
            if extra.gpu:
                self.extras[name] = self._ask("package", name, process=extra.process)
        for sonames in LIBRARIES.values():
            for age, soname in enumerate(sonames):  # two versions are not loaded into one process
                self.libraries[soname] = self._ask("library", soname, process=f"libraries {age}")
        self.providers = self._ask("providers", process=ORT_ON_GPU)

    def sound(self) -> bool:
        """Whether the base install is, without which there is no engine."""
        return all(job.result().value for job in self.base.values())

    def build_engines(self) -> None:
        """Build an engine of one layer for every target, and for every provider that loads."""
        self.targets = self._ask("target_names").result()
        for name in self.targets.value or ():
            module, extra = extra_of(name)
            if extra is None:
                self._build(name, name)
            elif module in self.extras and self.extras[module].result().value != {}:
                self._build(name, name, process=extra.process)
        problems = self.providers.result().value or {} if self.providers else {}
        for provider in (name for name, found in problems.items() if not found):
            label = f"onnxruntime with {provider}"
            self._build(label, "onnxruntime", provider, process=ORT_ON_GPU)

    def _build(self, label: str, target: str, provider: str = "", process: str = MAIN) -> None:
        probe = "runtime.doctor.selftest:selftest"
        self.selftests[label] = self._processes[process].submit(probe, target, provider)

    def answers(self) -> Answers:
        """Wait for all of it."""
        # last: its libraries are found there by whoever comes later
        self.extras["torch"] = self._ask("torch")
        return Answers(
            self.gpu,
            self.driver.result(),
            self.gpus.result(),
            _results(self.base),
            _results(self.extras),
            _results(self.libraries),
            self.onnxruntime.result(),
            self.providers.result() if self.providers else Answer(),
            self.codecs.result(),
            self.targets,
            _results(self.selftests),
        )


def _results(jobs: Mapping[str, Future[Answer]]) -> dict[str, Answer]:
    return {name: job.result() for name, job in jobs.items()}


def examine(progress: Callable[[str], None] = lambda _: None, root: Path = Path("/")) -> Report:
    """Look at everything; takes seconds, most of them for the self-test.

    Args:
        progress: Told what is being done.
        root: Where Linux shows its devices, in ``sys``, ``dev`` and ``proc``.
    """
    with ExitStack() as stack:
        progress("asking libraries and devices …")
        asked = Examination(root, stack)
        if asked.sound():
            progress("building an engine of one layer for each target …")
            asked.build_engines()
        return report_of(asked.answers())
