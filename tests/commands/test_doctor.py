"""The doctor: what it says of this machine, of others and of broken installs, and how."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from srdeploy.commands.doctor import check_base, format_report, to_json
from srdeploy.errors import MediaError, SrDeployError
from srdeploy.installation import install, install_extra
from srdeploy.runtime.doctor.apart import Answer
from srdeploy.runtime.doctor.examine import examine
from srdeploy.runtime.doctor.findings import Finding, Report, Section, State
from srdeploy.runtime.doctor.questions import EXTRAS
from srdeploy.runtime.doctor.sections import _extras, _video
from srdeploy.runtime.targets import target_names
from srdeploy.runtime.video import codecs
from srdeploy.runtime.video.formats import ENCODERS, encoder_of
from stub_driver import build_driver

GPU_ONLY = {
    "GPU": {"NVIDIA driver"},
    "ONNX Runtime's providers": {"cuda", "tensorrt"},
    "Libraries": {
        *("CUDA runtime", "cuDNN", "TensorRT"),
        *("TensorRT for Python", "pycuda", "cuda-bindings", "Triton"),
    },
    "Self-test": {"tensorrt"},
}


def doctor(folder: Path, repository: Path, *words: str, **variables: str):
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(repository / ".src"),
        "SRDEPLOY_CACHE": str(folder / "cache"),
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "srdeploy", "doctor", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment | variables,
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory, repository: Path) -> tuple[str, dict]:
    """What the real doctor says of this machine: its words and its JSON."""
    folder = tmp_path_factory.mktemp("doctor")
    done = doctor(folder, repository, "--json", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, json.loads((folder / "report.json").read_text())


def findings(document: dict, title: str) -> dict[str, dict]:
    (section,) = (s for s in document["sections"] if s["title"] == title)
    return {finding["name"]: finding for finding in section["findings"]}


class TestThisMachine:
    def test_json(self, here) -> None:
        _, document = here
        assert document["ok"] is True
        titles = [section["title"] for section in document["sections"]]
        assert titles == [
            "Base install",
            "GPU",
            "ONNX Runtime's providers",
            "Libraries",
            "Video",
            "This machine",
            "Versions that clash",
            "Self-test",
        ]
        for section in document["sections"]:
            for finding in section["findings"]:
                assert set(finding) == {"name", "state", "detail", "fixes"}
                assert finding["state"] in {"ok", "missing", "broken", "not applicable"}
                assert finding["detail"]

    def test_every_package_of_the_base_install_is_asked(self, here, repository: Path) -> None:
        declared = (repository / "pyproject.toml").read_text().split("dependencies = [")[1]
        names = {line.strip(' ",').split(">")[0] for line in declared.split("]")[0].splitlines()}
        asked = set(findings(here[1], "Base install"))
        assert {n for n in names if n and not n.startswith("onnxruntime")} < asked
        assert asked & {"onnxruntime", "onnxruntime-gpu"}

    def test_every_target_builds_and_what_runs_here_is_right(self, here) -> None:
        tests = findings(here[1], "Self-test")
        assert set(target_names()) <= set(tests)
        for name in ("onnxruntime", "openvino"):
            assert tests[name]["state"] == "ok", tests[name]
            assert "built and run" in tests[name]["detail"]
        assert tests["tensorrt-rtx"]["state"] == "ok"
        assert all(t["state"] != "broken" for t in tests.values())
        assert all(t["fixes"] for t in tests.values() if t["state"] == "missing")

    def test_what_is_missing_has_its_line(self, here) -> None:
        for title in ("Base install", "GPU", "Libraries", "Video"):
            for finding in findings(here[1], title).values():
                assert bool(finding["fixes"]) == (finding["state"] in {"missing", "broken"})

    def test_what_was_checked_of_pytorch_is_said(self, here) -> None:
        """It is not imported, which takes a second."""
        assert ", its libraries load, /" in findings(here[1], "Libraries")["PyTorch"]["detail"]

    def test_words(self, here) -> None:
        words, document = here
        assert words.startswith(
            "asking libraries and devices …\n"
            "building an engine of one layer for each target …\n\nBase install\n"
        )
        for section in document["sections"]:
            assert f"\n{section['title']}\n" in words
            for finding in section["findings"]:
                if finding["state"] == "not applicable":
                    assert f"not applicable, {finding['detail']}: " in words
                    continue
                assert f"\n  {finding['state']:<7}  {finding['name']} " in words
                assert f"  {finding['detail']}\n" in words
                for fix in finding["fixes"]:
                    assert f" fix: {fix}\n" in words
        assert "Traceback" not in words


def words_of(report: Report, width: int = 80, **options) -> list[str]:
    """Lines of a report as they are shown."""
    file = io.StringIO()
    plain = {"color_system": None}  # whatever FORCE_COLOR says
    Console(width=width, file=file, **(plain | options)).print(format_report(report), crop=False)
    return file.getvalue().splitlines()


class TestGpuOrNot:
    """What needs an NVIDIA GPU, on machines with and without one: the real probes, devices in a
    folder, and in LD_LIBRARY_PATH a driver, so that this machine's own is not found."""

    @pytest.fixture
    def driver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "driver"))
        (tmp_path / "driver").mkdir()
        return tmp_path / "driver"

    @staticmethod
    def sections(report: Report) -> dict[str, dict[str, Finding]]:
        return {s.title: {f.name: f for f in s.findings} for s in report.sections}

    def test_no_gpu(self, driver: Path, tmp_path: Path) -> None:
        build_driver(driver, count=0)
        report = examine(root=tmp_path)
        found = self.sections(report)
        for title, names in GPU_ONLY.items():
            not_here = {n for n, f in found[title].items() if f.state is State.NOT_APPLICABLE}
            assert not_here == names, title
        lacking = [f for s in report.sections for f in s.findings if f.state is State.MISSING]
        assert not lacking
        rtx = found["Self-test"]["tensorrt-rtx"]
        assert rtx.state is State.OK
        assert rtx.detail.endswith("; not run: no NVIDIA GPU in this machine")
        words = words_of(report, 200)
        start = "  not applicable, no NVIDIA GPU in this machine: "
        assert words[words.index("GPU") + 1 :][:2] == [f"{start}NVIDIA driver", ""]
        assert f"{start}cuda, tensorrt" in words
        assert not any("fix:" in line for line in words)
        assert words[-1].endswith(" ok, 11 not applicable")

    def test_a_gpu_without_a_driver(self, driver: Path, tmp_path: Path) -> None:
        (driver / "libcuda.so.1").write_text("no library")
        device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
        report = examine(root=tmp_path)
        found = self.sections(report)
        assert all(f.state is not State.NOT_APPLICABLE for s in found.values() for f in s.values())
        missing = found["GPU"]["NVIDIA driver"]
        assert missing.state is State.MISSING
        assert missing.fixes[0] == "sudo ubuntu-drivers install"
        for provider in ("cuda", "tensorrt"):
            finding = found["ONNX Runtime's providers"][provider]
            assert finding.state is State.MISSING
            assert not any("ubuntu" in fix for fix in finding.fixes)

    def test_a_driver_that_crashes_is_a_line(self, driver: Path, tmp_path: Path) -> None:
        source = tmp_path / "crash.c"
        source.write_text(
            "#include <stdlib.h>\n__attribute__((constructor)) void start(void) { abort(); }\n"
        )
        compiled = driver / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", compiled, source], check=True)
        report = examine(root=tmp_path)
        assert not report.broken_base
        found = self.sections(report)
        crash = found["GPU"]["NVIDIA driver"]
        assert (crash.state, crash.detail) == (State.BROKEN, "crashed: SIGABRT")
        assert found["Libraries"]["OpenVINO"].state is State.OK
        assert found["Self-test"]["openvino"].state is State.OK
        assert " crashed" in found["Self-test"]["tensorrt-rtx"].detail

    def test_gpus_that_only_the_driver_knows(self, driver: Path, tmp_path: Path) -> None:
        """As on Windows, and on boards whose GPU is not on PCI."""
        build_driver(driver, version=13000)  # as TensorRT-RTX wants it: then pycuda is asked for
        found = self.sections(examine(root=tmp_path))
        assert found["GPU"]["NVIDIA driver"].detail == "speaks CUDA 13.0"
        assert found["GPU"]["GPU 1"].detail.startswith("Stub H100, compute capability 9.0, 5.0 of")
        for title, names in GPU_ONLY.items():
            assert names <= set(found[title])
            for name in names:
                finding = found[title][name]
                assert finding.state is not State.NOT_APPLICABLE
                assert finding.fixes or finding.state is State.OK
        # what is to be copied does not stand in a sentence
        assert install_extra("cuda") not in found["Self-test"]["tensorrt-rtx"].detail


class TestVideo:
    def test_encoders_are_those_that_run_takes(self, here) -> None:
        listed = findings(here[1], "Video")["encoders"]["detail"].split(", ")
        assert "libx264" in listed
        assert set(listed) <= set(ENCODERS)
        for name in listed:
            assert encoder_of(name, "matroska").name == name
        absent = set(ENCODERS) - set(listed)
        assert not any(codecs._known(name, "w") for name in absent)
        with pytest.raises(MediaError):
            encoder_of("prores_ks", "mov")  # FFmpeg has it; run refuses it, so it is not listed

    def test_no_other_encoder_is_named(self, here) -> None:
        """Such as h264_nvenc, which FFmpeg knows on machines without a GPU too."""
        video = findings(here[1], "Video")
        named = {
            word
            for title, finding in video.items()
            if title != "decoders"  # some are called as encoders are
            for word in re.findall(r"[\w-]+", finding["detail"])
        }
        others = {name for name in av.codecs_available if codecs._known(name, "w")} - set(ENCODERS)
        assert len(others) > len(ENCODERS)
        assert not named & others
        known = ", ".join(f["detail"] for name, f in video.items() if name.endswith("encoders"))
        assert all(name in known for name in ENCODERS)
        assert not re.search("_(nvenc|qsv|vaapi|amf)", json.dumps(here[1]) + here[0])

    def test_an_encoder_that_this_ffmpeg_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(ENCODERS, "libnew", ENCODERS["libx264"])
        monkeypatch.setitem(codecs.DECODERS, "new", ("libnew",))
        found = codecs.codecs()
        assert found["encoders"]["libnew"] is False
        assert found["decoders"]["new"] is False
        assert found["encoders"]["libx264"] is True
        assert found["decoders"]["h264"] is True
        _, encoders, missing, *_ = _video(Answer(found))
        assert "libnew" not in encoders.detail
        assert missing == Finding(
            "other encoders",
            State.MISSING,
            "not in this FFmpeg: libnew",
            (install("av", options=("--upgrade",)),),
        )


def test_a_broken_base_install(tmp_path: Path, repository: Path) -> None:
    """PyAV does not import, as after a bad upgrade of its libraries."""
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.62: cannot open')")
    path = os.pathsep.join([str(tmp_path), str(repository / ".src")])
    done = doctor(tmp_path, repository, "--json", "report.json", PYTHONPATH=path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["ok"] is False
    av = findings(document, "Base install")["av"]
    (fix,) = av["fixes"]
    assert (av["state"], fix) == ("broken", install("av", again=True))
    assert done.stderr == f"error: the base install is broken: av\nhint: {fix}\n"
    assert "libavcodec.so.62" in av["detail"]
    assert "not run" in findings(document, "Self-test")["targets"]["detail"]


PATH = "/home/a-folder/with-a-name/of-sixty/letters/and/more/site-packages/openvino"
LONG = f"{PATH}/python -m pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"
REPORT = Report(
    Section("Base install", (Finding("av", State.BROKEN, "crashed", ("pip install av",)),)),
    (
        Section(
            "GPU",
            (
                Finding("driver", State.MISSING, "word " * 48, ("first", LONG)),
                Finding("GPU 0", State.OK, "fast"),
                Finding("cuda", State.NOT_APPLICABLE, "no GPU"),
                Finding("openvino", State.OK, f"2026.4.1, {PATH}"),
                Finding("tensorrt", State.NOT_APPLICABLE, "no GPU"),
            ),
        ),
        Section("More", (Finding("all", State.NOT_APPLICABLE, "no GPU"),)),
    ),
)


class TestReportForPeople:
    def test_on_80_columns(self) -> None:
        words = ("word " * 12).strip()
        assert words_of(REPORT) == [
            "",
            "Base install",
            "  broken   av  crashed",
            "           fix: pip install av",
            "",
            "GPU",
            f"  missing  driver    {words}",
            f"{' ' * 21}{words}",
            f"{' ' * 21}{words}",
            f"{' ' * 21}{words}",
            "           fix: first",
            f"           fix: {LONG}",
            "  ok       GPU 0     fast",
            "  ok       openvino  2026.4.1,",
            PATH,
            "  not applicable, no GPU: cuda, tensorrt",
            "",
            "More",
            "  not applicable, no GPU: all",
            "",
            "2 ok, 1 missing, 1 broken, 3 not applicable",
        ]

    def test_a_path_has_a_line_of_its_own_where_the_row_has_no_room(self) -> None:
        """Unbroken, and as far to the left as it needs."""
        shorter = PATH[:65]
        found = (Finding("cache", State.OK, PATH), Finding("longer name", State.OK, shorter))
        assert words_of(Report(Section("One", found), ()))[2:6] == [
            "  ok       cache",
            PATH,
            "  ok       longer name",
            f"{' ' * 11}{shorter}",
        ]

    def test_on_120_columns_and_in_a_pipe(self) -> None:
        lines = words_of(REPORT, 120)
        assert f"  ok       openvino  2026.4.1, {PATH}" in lines
        assert f"{' ' * 21}{('word ' * 20).strip()}" in lines
        assert f"  missing  driver    {('word ' * 48).strip()}" in words_of(REPORT, 10_000)

    @given(
        st.lists(st.text("ab/'=", min_size=1, max_size=100), min_size=1, max_size=20),
        st.text("abc", min_size=1, max_size=30),
        st.text("abc ", max_size=200),
        st.integers(20, 120),
    )
    def test_no_word_is_broken(self, words: list[str], name: str, fix: str, width: int) -> None:
        finding = Finding(name, State.MISSING, " ".join(words), (f"fix {fix}.",))
        head, *rest = words_of(Report(Section("One", (finding,)), ()), width)[2:-2]
        *details, last = [head.removeprefix(f"  missing  {name}"), *rest]
        assert " ".join(details).split() == words
        assert last.strip() == f"fix: fix {fix}."
        for line in details[1:]:
            assert len(line) <= width or (line in words)

    def test_colours_are_richs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        options = {"force_terminal": True, "color_system": "standard"}
        coloured = "\n".join(words_of(REPORT, **options))
        assert "  \x1b[32mok\x1b[0m       GPU 0" in coloured
        assert "  \x1b[33mmissing\x1b[0m  driver" in coloured
        assert "  \x1b[1;31mbroken\x1b[0m   av" in coloured
        assert "\x1b[2m  not applicable, no GPU: cuda, tensorrt" in coloured
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[3" not in "\n".join(words_of(REPORT, **options))
        assert "\x1b" not in "\n".join(words_of(REPORT))

    def test_what_a_library_says_does_not_steer_the_terminal(self) -> None:
        report = Report(Section("One", (Finding("a\x1b[2J", State.OK, "b\x1b[2J [red]c"),)), ())
        assert words_of(report)[2] == "  ok       a\ufffd[2J  b\ufffd[2J [red]c"

    def test_json_and_the_error(self) -> None:
        document = to_json(REPORT)
        assert document["ok"] is False
        states = [f["state"] for f in document["sections"][1]["findings"]]
        assert states == ["missing", "ok", "not applicable", "ok", "not applicable"]
        with pytest.raises(SrDeployError, match="broken: av") as caught:
            check_base(REPORT)
        assert caught.value.hint == "pip install av"


@pytest.mark.parametrize(
    ("answer", "state", "detail", "again"),
    [
        (Answer({}), State.MISSING, "not installed", False),
        (Answer(problem="crashed: SIGABRT"), State.BROKEN, "crashed: SIGABRT", True),
    ],
)
def test_an_extra_has_the_line_that_fits_this_copy_of_srdeploy(
    answer: Answer, state: State, detail: str, again: bool
) -> None:
    """The line names the checkout, wheel or index that srdeploy came from."""
    found = list(_extras(SimpleNamespace(extras=dict.fromkeys(EXTRAS, answer))))
    assert found == [
        Finding(extra.title, state, detail, (install_extra(extra.extra, again=again),))
        for extra in EXTRAS.values()
    ]
