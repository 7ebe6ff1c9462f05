"""The answers in words: sections of findings, each with the line that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace

from ...installation import install, install_extra
from ..execution_providers import PROVIDERS
from ..gpu_facts import DRIVER_FIXES, INSTALL_DRIVER
from .apart import Answer
from .clashes import Facts, clashes
from .findings import Finding, Report, Section, State
from .machine import machine_findings
from .questions import BASE, EXTRAS, LIBRARIES, Answers, extra_of

GIB = 1 << 30
NO_GPU = "no NVIDIA GPU in this machine"


def report_of(answers: Answers) -> Report:
    """All sections in their order."""
    base = Section("Base install", tuple(_base(answers)))
    none = Finding("versions", State.OK, "none that are known to clash")
    sections = (
        Section("GPU", tuple(_gpus(answers))),
        Section("ONNX Runtime's providers", tuple(_providers(answers))),
        Section("Libraries", (*_libraries(answers), *_extras(answers))),
        Section("Video", tuple(_video(answers.codecs))),
        Section("This machine", machine_findings()),
        Section("Versions that clash", clashes(_facts(answers)) or (none,)),
    )
    report = Report(base, sections)
    return Report(base, (*sections, Section("Self-test", tuple(_selftests(answers, report)))))


def _of(name: str, answer: Answer, fix: str = "") -> Finding:
    """A finding of an answer whose value is its words."""
    if not answer.problem:
        return Finding(name, State.OK, str(answer.value))
    state = State.MISSING if answer.kind == "TargetUnavailable" else State.BROKEN
    advice = answer.hint or fix
    fixes = DRIVER_FIXES if advice == INSTALL_DRIVER else (advice,) if advice else ()
    return Finding(name, state, answer.problem, fixes)


def _without_gpu(name: str) -> Finding:
    return Finding(name, State.NOT_APPLICABLE, NO_GPU)


def _base(answers: Answers) -> Iterator[Finding]:
    yield Finding("python", State.OK, f"{platform.python_version()}, {sys.executable}")
    for module, name in BASE.items():
        answer = answers.base[module]
        if answer.problem:
            yield Finding(name, State.BROKEN, answer.problem, (install(name, again=True),))
        elif not answer.value:
            yield Finding(name, State.MISSING, "not installed", (install(name),))
        else:
            yield Finding(name, State.OK, answer.value["version"])


def _gpus(answers: Answers) -> Iterator[Finding]:
    driver, gpus = answers.driver, answers.gpus
    if not answers.gpu:
        yield _without_gpu("NVIDIA driver")
        return
    if driver.problem:
        yield _of("NVIDIA driver", driver, INSTALL_DRIVER)
        return
    yield Finding("NVIDIA driver", State.OK, f"speaks CUDA {driver.value}")
    if gpus.problem:
        yield _of("GPU", gpus)
    for index, gpu in enumerate(gpus.value or ()):
        memory = f"{gpu['free'] / GIB:.1f} of {gpu['total'] / GIB:.1f} GiB free"
        detail = f"{gpu['name']}, compute capability {gpu['capability']}, {memory}"
        yield Finding(f"GPU {index}", State.OK, detail)


def _providers(answers: Answers) -> Iterator[Finding]:
    if answers.onnxruntime.problem:
        yield _of("ONNX Runtime", answers.onnxruntime)
        return
    yield Finding("cpu", State.OK, f"ONNX Runtime {answers.onnxruntime.value['version']}")
    if not answers.gpu:
        yield from map(_without_gpu, PROVIDERS)
    elif answers.providers.problem:
        yield _of("GPU providers", answers.providers)
    else:
        for name, problems in answers.providers.value.items():
            yield _provider(name, problems, answers.gpus.problem)


def _provider(name: str, problems: tuple[tuple[str, str], ...], no_gpu: str) -> Finding:
    if not problems:
        return Finding(name, State.OK, "its libraries load")
    causes = ["no GPU to run on" if cause == no_gpu else cause for cause, _ in problems]
    # what brings a GPU stands in its own section
    fixes = dict.fromkeys(fix for cause, fix in problems if cause != no_gpu)
    return Finding(name, State.MISSING, "; ".join(causes), tuple(fixes))


def _libraries(answers: Answers) -> Iterator[Finding]:
    for name, sonames in LIBRARIES.items():
        if not answers.gpu:
            yield _without_gpu(name)
            continue
        fixes = (_library_fix(name),)
        asked = {soname: answers.libraries[soname] for soname in sonames}
        here = {soname: a for soname, a in asked.items() if a.value or a.problem}
        for soname, answer in here.items():
            if answer.problem:
                yield Finding(name, State.BROKEN, f"{soname} {answer.problem}", fixes)
            else:
                detail = f"{answer.value['version']}, {answer.value['path']}"
                yield Finding(name, State.OK, detail)
        if not here:
            detail = f"the loader finds no {' or '.join(sonames)}"
            yield Finding(name, State.MISSING, detail, fixes)


def _library_fix(name: str) -> str:
    if name == "TensorRT":
        return install_extra("tensorrt")
    return install("onnxruntime-gpu[cuda,cudnn]")


def _extras(answers: Answers) -> Iterator[Finding]:
    for module, extra in EXTRAS.items():
        answer = answers.extras.get(module)
        if answer is None:
            yield _without_gpu(extra.title)
        elif answer.problem:
            fixes = (install_extra(extra.extra, again=True),)
            yield Finding(extra.title, State.BROKEN, answer.problem, fixes)
        elif not answer.value:
            fixes = (install_extra(extra.extra),)
            yield Finding(extra.title, State.MISSING, "not installed", fixes)
        else:
            version = answer.value["version"].partition("-")[0]  # OpenVINO adds its commit
            where = answer.value["path"].removesuffix("/__init__.py")
            parts = (version, answer.value.get("checked"), where)
            yield Finding(extra.title, State.OK, ", ".join(filter(None, parts)))


def _video(answer: Answer) -> Iterator[Finding]:
    if answer.problem:
        yield Finding("FFmpeg", State.BROKEN, answer.problem, (install("av", again=True),))
        return
    yield Finding("FFmpeg", State.OK, f"libavcodec {answer.value['version']}")
    for kind in ("encoders", "decoders"):
        known: dict[str, bool] = answer.value[kind]
        here = ", ".join(name for name, there in known.items() if there)
        absent = [name for name, there in known.items() if not there]
        if here:
            yield Finding(kind, State.OK, here)
        if absent:
            fixes = (install("av", options=("--upgrade",)),)
            detail = f"not in this FFmpeg: {', '.join(absent)}"
            yield Finding(f"other {kind}", State.MISSING, detail, fixes)


def _facts(answers: Answers) -> Facts:
    """What versions can clash in."""
    ort = answers.onnxruntime.value or {}
    libraries = answers.libraries.items()
    return Facts(
        {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name},
        {name: answer.problem for name, answer in answers.extras.items() if answer.problem},
        {soname: answer.value["version"] for soname, answer in libraries if answer.value},
        answers.driver.value or "",
        ort.get("cuda", ""),
        ort.get("tensorrt", ""),
        answers.gpu,
    )


def _selftests(answers: Answers, report: Report) -> Iterator[Finding]:
    if report.broken_base:
        yield Finding("targets", State.MISSING, "not run: the base install is broken")
        return
    if answers.targets.problem:
        yield _of("targets", answers.targets)
        return
    for name, answer in answers.selftests.items():
        yield _engine(name, answer, answers)
    for name in answers.targets.value:
        if name not in answers.selftests:
            yield _not_built(name, answers)


def _engine(name: str, answer: Answer, answers: Answers) -> Finding:
    """What became of the engine; why it was not run is said shortly, as other sections do more."""
    found = _of(name, answer)
    detail = found.detail.replace(f": {install_extra('cuda')}", "")
    if not answers.gpu:
        detail = detail.replace(answers.gpus.problem, NO_GPU)
    return replace(found, detail=detail)


def _not_built(target: str, answers: Answers) -> Finding:
    """Why no engine of a target was tried."""
    _, extra = extra_of(target)
    assert extra is not None  # only what an extra brings can be missing
    if extra.gpu and not answers.gpu:
        return _without_gpu(target)
    fixes = (install_extra(extra.extra),)
    return Finding(target, State.MISSING, f"{extra.title} is not installed", fixes)
