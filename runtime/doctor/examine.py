"""The examination: asks every probe in a process of its own and puts the answers into words."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ..gpu_facts import INSTALL_DRIVER
from .apart import Answer, ask, stop
from .clashes import Facts, clashes
from .findings import Finding, Report, Section, State
from .machine import machine_findings

GIB = 1 << 30
PROBES = "runtime.doctor.probes"
SELFTEST = "Self-test"

_ONNXRUNTIME = (
    "onnxruntime-gpu"
    if platform.machine() in ("x86_64", "AMD64") and sys.platform != "darwin"
    else "onnxruntime"
)
# module -> what pip calls it
BASE = {
    "numpy": "numpy",
    "click": "click",
    "filelock": "filelock",
    "onnx": "onnx",
    "onnxruntime": _ONNXRUNTIME,
    "av": "av",
    "PIL": "pillow",
    "rich": "rich",
    "safetensors": "safetensors",
}
# module -> (name for people, the line that installs it)
EXTRAS = {
    "openvino": ("OpenVINO", "pip install 'srdeploy[openvino]'"),
    "tensorrt": ("TensorRT for Python", "pip install 'srdeploy[tensorrt]'"),
    "tensorrt_rtx": ("TensorRT-RTX", "pip install 'srdeploy[tensorrt-rtx]'"),
    "pycuda.driver": ("pycuda", "pip install 'srdeploy[cuda]'"),
    "cuda.bindings.driver": ("cuda-bindings", "pip install 'srdeploy[cuda]'"),
    "torch": ("PyTorch", "pip install 'srdeploy[torch]'"),
    "triton": ("Triton", "pip install 'srdeploy[kernels]'"),
}
_CUDA_LINE = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
# name for people -> (sonames, newest first; the line that installs it)
LIBRARIES = {
    "CUDA runtime": (("libcudart.so.13", "libcudart.so.12"), _CUDA_LINE),
    "cuDNN": (("libcudnn.so.9",), _CUDA_LINE),
    "TensorRT": (("libnvinfer.so.11", "libnvinfer.so.10"), "pip install 'srdeploy[tensorrt]'"),
}


class Examination:
    """All probes of one report, running side by side."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self.base = {name: self._ask("package", name) for name in BASE}
        self.extras = {name: self._ask("package", name) for name in EXTRAS}
        sonames = [soname for names, _ in LIBRARIES.values() for soname in names]
        self.libraries = {soname: self._ask("library", soname) for soname in sonames}
        self.gpus = self._ask("gpus")
        self.driver = self._ask("driver")
        self.onnxruntime = self._ask("onnxruntime")
        self.codecs = pool.submit(ask, "runtime.doctor.codecs:codecs")

    def _ask(self, probe: str, *arguments: str) -> Future[Answer]:
        return self._pool.submit(ask, f"{PROBES}:{probe}", *arguments)

    def selftests(self) -> Section:
        """An engine of one layer for every target, and for every provider that loads."""
        names = self._ask("target_names").result()
        pairs = [(name, "") for name in names.value or ()]
        loaded = (self.onnxruntime.result().value or {}).get("providers", {})
        pairs += [("onnxruntime", name) for name, problems in loaded.items() if not problems]
        running = [
            (
                f"{name} with {provider}" if provider else name,
                self._pool.submit(ask, "runtime.doctor.selftest:selftest", name, provider),
            )
            for name, provider in pairs
        ]
        return Section(SELFTEST, tuple(_of(name, job.result()) for name, job in running))


def examine(progress: Callable[[str], None] = lambda _: None) -> Report:
    """Look at everything; takes seconds, most of them for the self-test.

    Args:
        progress: Told what is being done.
    """
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
        try:
            progress("asking libraries and devices …")
            asked = Examination(pool)
            report = Report(_base(asked.base), _sections(asked))
            if report.broken_base:
                reason = "not run: the base install is broken"
                selftests = Section(SELFTEST, (Finding("targets", State.MISSING, reason),))
            else:
                progress("building an engine of one layer for each target …")
                selftests = asked.selftests()
        except BaseException:  # interrupted: wait for nothing
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    return dataclasses.replace(report, sections=(*report.sections, selftests))


def _sections(asked: Examination) -> tuple[Section, ...]:
    """All but the base install and the self-test."""
    none = Finding("versions", State.OK, "none that are known to clash")
    return (
        _gpu_section(asked),
        _onnxruntime_section(asked.onnxruntime.result(), asked.gpus.result()),
        _libraries_section(asked),
        _codecs_section(asked.codecs.result()),
        Section("This machine", machine_findings()),
        Section("Versions that clash", clashes(_facts(asked)) or (none,)),
    )


def _of(name: str, answer: Answer, fix: str = "") -> Finding:
    """A finding of an answer whose value is its words."""
    if not answer.problem:
        return Finding(name, State.OK, str(answer.value))
    state = State.MISSING if answer.kind == "TargetUnavailable" else State.BROKEN
    advice = answer.hint or fix
    return Finding(name, state, answer.problem, (advice,) if advice else ())


def _package(
    name: str, answer: Answer, install: str, repair: str, show_path: bool = False
) -> Finding:
    if answer.problem:
        return Finding(name, State.BROKEN, answer.problem, (repair,))
    if not answer.value:
        return Finding(name, State.MISSING, "not installed", (install,))
    version = answer.value["version"].partition("-")[0]  # OpenVINO adds its commit
    where = answer.value["path"].removesuffix("/__init__.py")
    return Finding(name, State.OK, f"{version}, {where}" if show_path else version)


def _base(asked: Mapping[str, Future[Answer]]) -> Section:
    python = Finding("python", State.OK, f"{platform.python_version()}, {sys.executable}")
    found = [
        _package(
            BASE[module],
            job.result(),
            f"pip install {BASE[module]}",
            f"pip install --force-reinstall {BASE[module]}",
        )
        for module, job in asked.items()
    ]
    return Section("Base install", (python, *found))


def _gpu_section(asked: Examination) -> Section:
    answer, driver = asked.gpus.result(), asked.driver.result()
    if driver.problem:
        return Section("GPU", (_of("NVIDIA driver", driver, INSTALL_DRIVER),))
    findings = [Finding("NVIDIA driver", State.OK, f"speaks CUDA {driver.value}")]
    if answer.problem:
        findings.append(_of("GPU", answer))
    for index, gpu in enumerate(answer.value or ()):
        memory = f"{gpu['free'] / GIB:.1f} of {gpu['total'] / GIB:.1f} GiB free"
        detail = f"{gpu['name']}, compute capability {gpu['capability']}, {memory}"
        findings.append(Finding(f"GPU {index}", State.OK, detail))
    return Section("GPU", tuple(findings))


def _onnxruntime_section(answer: Answer, gpus: Answer) -> Section:
    if answer.problem:
        return Section("ONNX Runtime's providers", (_of("ONNX Runtime", answer),))
    findings = [Finding("cpu", State.OK, f"ONNX Runtime {answer.value['version']}")]
    for name, problems in answer.value["providers"].items():
        if problems:
            causes = ["no GPU" if cause == gpus.problem else cause for cause, _ in problems]
            # what brings a GPU stands in its own section
            fixes = dict.fromkeys(fix for cause, fix in problems if cause != gpus.problem)
            findings.append(Finding(name, State.MISSING, "; ".join(causes), tuple(fixes)))
        else:
            findings.append(Finding(name, State.OK, "its libraries load"))
    return Section("ONNX Runtime's providers", tuple(findings))


def _libraries_section(asked: Examination) -> Section:
    findings = []
    for name, (sonames, install) in LIBRARIES.items():
        answers = {soname: asked.libraries[soname].result() for soname in sonames}
        here = {soname: a for soname, a in answers.items() if a.value or a.problem}
        for soname, answer in here.items():
            if answer.problem:
                findings.append(
                    Finding(name, State.BROKEN, f"{soname} {answer.problem}", (install,))
                )
            else:
                detail = f"{answer.value['version']}, {answer.value['path']}"
                findings.append(Finding(name, State.OK, detail))
        if not here:
            detail = f"the loader finds no {' or '.join(sonames)}"
            findings.append(Finding(name, State.MISSING, detail, (install,)))
    for module, job in asked.extras.items():
        title, install = EXTRAS[module]
        repair = install.replace("pip install", "pip install --force-reinstall")
        findings.append(_package(title, job.result(), install, repair, True))
    return Section("Libraries", tuple(findings))


def _codecs_section(answer: Answer) -> Section:
    if answer.problem:
        repair = "pip install --force-reinstall av"
        return Section("Video", (Finding("FFmpeg", State.BROKEN, answer.problem, (repair,)),))
    findings = [Finding("FFmpeg", State.OK, f"libavcodec {answer.value['version']}")]
    for codec, facts in answer.value["codecs"].items():
        parts = [
            f"decodes ({', '.join(facts['decoders'])})" if facts["decoders"] else "",
            f"encodes ({', '.join(facts['encoders'])})" if facts["encoders"] else "",
            f"in hardware ({', '.join(facts['hardware'])})" if facts["hardware"] else "",
            f"no device for {', '.join(facts['closed'])}" if facts["closed"] else "",
        ]
        both = facts["decoders"] and (facts["encoders"] or facts["hardware"])
        state = State.OK if both else State.MISSING
        fixes = () if both else ("pip install --upgrade av",)
        findings.append(Finding(codec, state, "; ".join(filter(None, parts)), fixes))
    return Section("Video", tuple(findings))


def _facts(asked: Examination) -> Facts:
    """What versions can clash in."""
    ort = asked.onnxruntime.result().value or {}
    libraries = {soname: job.result() for soname, job in asked.libraries.items()}
    return Facts(
        {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name},
        {name: job.result().problem for name, job in asked.extras.items() if job.result().problem},
        {soname: a.value["version"] for soname, a in libraries.items() if a.value},
        asked.driver.result().value or "",
        ort.get("cuda", ""),
        ort.get("tensorrt", ""),
    )
