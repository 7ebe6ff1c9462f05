"""The doctor: what it says of this machine, of broken installs and of versions that clash."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from srdeploy.commands.doctor import check_base, format_report, to_json
from srdeploy.errors import SrDeployError, TargetUnavailable
from srdeploy.runtime.doctor import selftest as one_engine
from srdeploy.runtime.doctor.apart import ask
from srdeploy.runtime.doctor.clashes import Facts, clashes
from srdeploy.runtime.doctor.findings import Finding, Report, Section, State
from srdeploy.runtime.doctor.machine import _cache, _memory, _processor
from srdeploy.runtime.doctor.selftest import expected, one_layer, selftest
from srdeploy.runtime.targets import target_names
from stub_driver import build_driver

PROBES = "runtime.doctor.probes"


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
                assert finding["state"] in {"ok", "missing", "broken"}
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
                assert finding["fixes"] or finding["state"] == "ok", finding

    def test_codecs_that_srdeploy_writes(self, here) -> None:
        video = findings(here[1], "Video")
        assert set(video) == {"FFmpeg", "h264", "hevc", "av1", "vp9", "prores", "ffv1"}
        assert "libx264" in video["h264"]["detail"]

    def test_words(self, here) -> None:
        words, document = here
        for section in document["sections"]:
            assert f"\n{section['title']}\n" in words
            for finding in section["findings"]:
                assert f"\n  {finding['state']:<8} {finding['name']} " in words
                for fix in finding["fixes"]:
                    assert f" fix: {fix}\n" in words
        assert "Traceback" not in words


def test_a_broken_base_install(tmp_path: Path, repository: Path) -> None:
    """PyAV does not import, as after a bad upgrade of its libraries."""
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.62: cannot open')")
    path = os.pathsep.join([str(tmp_path), str(repository / ".src")])
    done = doctor(tmp_path, repository, "--json", "report.json", PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the base install is broken: av\nhint: pip install --force-reinstall av\n"
    )
    assert "Traceback" not in done.stdout
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["ok"] is False
    av = findings(document, "Base install")["av"]
    assert (av["state"], av["fixes"]) == ("broken", ["pip install --force-reinstall av"])
    assert "libavcodec.so.62" in av["detail"]
    assert "not run" in findings(document, "Self-test")["targets"]["detail"]


class TestApart:
    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ("abort();", "crashed: SIGABRT"),
            ("*(volatile int *)0 = 1;", "crashed: SIGSEGV"),
            ("_exit(7);", "crashed: exit code 7"),
            ("sleep(600);", "no answer within 3 s"),
        ],
    )
    def test_libraries_that_take_the_process_with_them(
        self, tmp_path: Path, body: str, problem: str
    ) -> None:
        """Real ones, which do so when they are loaded."""
        source = tmp_path / "bad.c"
        source.write_text(
            "#include <stdlib.h>\n#include <unistd.h>\n"
            f"__attribute__((constructor)) static void start(void) {{ {body} }}\n"
        )
        library = tmp_path / "libbad.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        timeout = 3 if "sleep" in body else 120
        assert ask(f"{PROBES}:library", str(library), timeout=timeout).problem == problem

    def test_answers(self) -> None:
        assert ask(f"{PROBES}:package", "no_such_package").value == {}
        found = ask(f"{PROBES}:package", "numpy").value
        assert found["version"] == np.__version__
        assert found["path"].endswith("numpy/__init__.py")

    def test_errors_keep_their_hint(self) -> None:
        answer = ask("runtime.doctor.selftest:selftest", "nonsense")
        assert (answer.kind, answer.value) == ("TargetUnavailable", None)
        assert "known ones" in answer.hint
        answer = ask(f"{PROBES}:no_such_probe")
        assert answer.kind == "AttributeError"

    def test_gpus_with_their_memory(self, tmp_path: Path, monkeypatch) -> None:
        build_driver(tmp_path, version=12080)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
        first, second = ask(f"{PROBES}:gpus").value
        assert first == {
            "name": "Stub RTX 3060",
            "capability": "8.6",
            "driver": "12.8",
            "total": 12 << 30,
            "free": 5 << 30,
        }
        assert second["name"] == "Stub H100"


class TestSelftest:
    @settings(max_examples=10)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
    def test_numpy_computes_what_the_graph_says(self, seed: int, height: int, width: int) -> None:
        rng = np.random.default_rng(seed)
        weights = rng.normal(0, 0.3, (12, 3, 3, 3)).astype(np.float32)
        frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        session = ort.InferenceSession(one_layer(weights), providers=["CPUExecutionProvider"])
        (upscaled,) = session.run(None, {"frames": frames})
        assert upscaled.dtype == np.uint8
        assert np.abs(upscaled.astype(int) - expected(frames, weights)).max() <= 1

    def test_wrong_pixels_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "built and run" in selftest("onnxruntime")
        right = expected
        monkeypatch.setattr(one_engine, "expected", lambda *a: right(*a)[:, ::-1])
        with pytest.raises(ArithmeticError, match=r"off by up to \d+ of 255"):
            selftest("onnxruntime")

    def test_a_provider_that_is_not_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("srdeploy.runtime.gpu_facts.DRIVER_LIBRARY", "/absent")
        with pytest.raises(TargetUnavailable, match="cuda provider"):
            selftest("onnxruntime", "cuda")


HEALTHY = Facts(
    {"numpy": "2.3.5", "onnxruntime-gpu": "1.31.1", "tensorrt": "10.16.1.11", "pycuda": "2026.1"},
    libraries={"libnvinfer.so.10": "10.16.1"},
    driver="13.0",
    ort_cuda="13.0",
    ort_tensorrt="libnvinfer.so.10",
)


class TestClashes:
    def test_none(self) -> None:
        assert clashes(HEALTHY) == ()
        assert clashes(Facts()) == ()
        # no TensorRT at all is no clash
        assert clashes(Facts({"numpy": "2.4.6"}, ort_tensorrt="libnvinfer.so.10")) == ()

    @pytest.mark.parametrize(
        ("changes", "name", "fix"),
        [
            (
                {"distributions": {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}},
                "two ONNX Runtimes",
                "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
            ),
            (
                {
                    "distributions": {"tensorrt": "11.4.0.106"},
                    "libraries": {"libnvinfer.so.11": "11.4.0"},
                },
                "ONNX Runtime and TensorRT",
                "pip install 'tensorrt-cu13==10.*'",
            ),
            (
                {"distributions": {"numpy": "2.4.0", "tensorrt-cu13": "10.16.1.11"}},
                "TensorRT and numpy",
                "pip install 'numpy<2.4'",
            ),
            ({"driver": "12.9", "distributions": {}}, "ONNX Runtime and the driver", "sudo ubuntu"),
            ({"driver": "", "distributions": {"pycuda": "2026.1"}}, "pycuda", "sudo ubuntu"),
            (
                {
                    "distributions": {"tensorrt_cu13_bindings": "10.16.1.11"},
                    "failed_imports": {"tensorrt": "ImportError: libnvinfer.so.10: cannot open"},
                    "libraries": {},
                },
                "TensorRT's libraries",
                "pip install --force-reinstall --no-cache-dir tensorrt-cu13==10.16.1.11",
            ),
        ],
    )
    def test_one(self, changes: dict, name: str, fix: str) -> None:
        (found,) = clashes(dataclasses.replace(HEALTHY, **changes))
        assert (found.name, found.state) == (name, State.BROKEN)
        assert found.fixes[0].startswith(fix)

    def test_tensorrt_11_and_a_new_numpy_get_on(self) -> None:
        facts = Facts({"numpy": "2.4.6", "tensorrt": "11.4.0.106"})
        assert clashes(facts) == ()


class TestMachine:
    def test_processor(self, tmp_path: Path) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        flags = "sse2 avx2 avx512f avx512_vnni avx512_bf16 amx_int8"
        cpuinfo.write_text(f"model name\t: A CPU\nflags\t: {flags}\n\nmodel name\t: another\n")
        detail = _processor(cpuinfo).detail
        assert detail.startswith("A CPU, ")
        assert detail.endswith("threads: AVX2, AVX-512, VNNI, bf16, AMX int8")
        assert "unknown" in _processor(tmp_path / "absent").detail

    def test_memory_within_a_container(self, tmp_path: Path) -> None:
        meminfo = tmp_path / "meminfo"
        meminfo.write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["4.0 of 8.0 GiB free"]
        (tmp_path / "memory.max").write_text("max\n")
        (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["4.0 of 8.0 GiB free"]
        (tmp_path / "memory.max").write_text(f"{3 << 30}\n")
        assert [f.detail for f in _memory(meminfo, tmp_path)] == ["2.0 of 3.0 GiB free"]
        assert list(_memory(tmp_path / "absent", tmp_path)) == []

    def test_cache(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "cache"
        assert _cache(folder).state is State.OK
        assert not folder.exists()
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(bytes(11 << 20))
        assert ": 0.01 GiB used" in _cache(folder).detail
        assert _cache(folder / "f").state is State.BROKEN


def test_report_for_people() -> None:
    base = Section("Base install", (Finding("av", State.BROKEN, "crashed", ("pip install av",)),))
    more = Section(
        "GPU",
        (
            Finding("driver", State.MISSING, "word " * 40, ("first", "second")),
            Finding("GPU 0", State.OK, "fast"),
        ),
    )
    report = Report(base, (more,))
    lines = list(format_report(report))
    assert lines[1:4] == [
        "Base install",
        "  broken   av      crashed",
        " " * 19 + "fix: pip install av",
    ]
    assert max(map(len, lines)) <= 110
    assert lines[-3:] == ["  ok       GPU 0   fast", "", "1 ok, 1 missing, 1 broken"]
    assert [line.strip() for line in lines if "fix:" in line][1:] == ["fix: first", "fix: second"]
    assert to_json(report)["ok"] is False
    with pytest.raises(SrDeployError, match="broken: av") as caught:
        check_base(report)
    assert caught.value.hint == "pip install av"
