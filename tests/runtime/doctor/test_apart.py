"""Probes in processes apart: what crashes, hangs or is not there is an answer."""

from __future__ import annotations

import multiprocessing
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from srdeploy.runtime.doctor.apart import Answer, Apart
from stub_driver import build_driver

PROBES = "runtime.doctor.probes"


def ask(probe: str, *arguments, **options) -> Answer:
    """Ask in a process of its own."""
    with Apart() as apart:
        return apart.ask(probe, *arguments, **options)


def library(folder: Path, name: str, body: str) -> str:
    """Compile a real library that does this when it is loaded."""
    source = folder / f"{name}.c"
    source.write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n"
        f"__attribute__((constructor)) static void start(void) {{ {body} }}\n"
    )
    compiled = folder / f"lib{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", compiled, source], check=True)
    return str(compiled)


def processes() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


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
        timeout = 3 if "sleep" in body else 120
        bad = library(tmp_path, "bad", body)
        with Apart() as apart:
            assert apart.ask(f"{PROBES}:library", bad, timeout=timeout).problem == problem
            # what is asked later is answered all the same
            assert apart.ask(f"{PROBES}:package", "filelock").value

    def test_one_process_answers_until_a_library_ends_it(self, tmp_path: Path) -> None:
        bad, good = library(tmp_path, "bad", "abort();"), library(tmp_path, "good", "")
        before = processes()
        with Apart() as apart:
            assert apart.ask(f"{PROBES}:library", good).value
            (first,) = processes() - before
            assert apart.ask(f"{PROBES}:package", "numpy").value
            assert apart.ask(f"{PROBES}:library", str(tmp_path / "absent.so")).value == {}
            assert processes() - before == {first}
            assert apart.ask(f"{PROBES}:library", bad).problem == "crashed: SIGABRT"
            assert apart.ask(f"{PROBES}:library", good).value
            (second,) = processes() - before
            assert second != first
        assert processes() <= before

    def test_what_others_did_to_a_library_is_not_its_fault(self, tmp_path: Path) -> None:
        """Such as memory for thread-local storage that others took."""
        greedy = library(tmp_path, "greedy", 'setenv("GREEDY", "1", 1);')
        second = library(tmp_path, "second", 'if (getenv("GREEDY")) abort();')
        with Apart() as apart:
            assert apart.ask(f"{PROBES}:library", greedy).value
            assert apart.ask(f"{PROBES}:library", second).value

    def test_a_probe_that_hangs_is_ended_with_all_that_it_started(self, tmp_path: Path) -> None:
        started = tmp_path / "started"
        shell = f"echo $$ > {started}.new; mv {started}.new {started}; sleep 600"
        body = f'if (!fork()) system("{shell}"); sleep(600);'
        hanging = library(tmp_path, "hanging", body)
        before = processes()
        apart = Apart()
        job = apart.submit(f"{PROBES}:library", hanging)
        waiting = apart.submit(f"{PROBES}:package", "numpy")
        while not started.exists():
            time.sleep(0.05)
        start = time.monotonic()
        apart.close()
        assert time.monotonic() - start < 60
        assert job.done()
        assert waiting.cancelled()
        assert processes() <= before
        state = ["ps", "-o", "stat=", "-p", started.read_text().strip()]
        left = subprocess.run(state, capture_output=True, text=True).stdout
        assert left[:1] in {"", "Z"}  # where nobody collects orphans it is a zombie

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


class TestPyTorch:
    """Its libraries are loaded, and it is imported only where that says no."""

    @pytest.fixture
    def torch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package whose import fails."""
        folder = tmp_path / "torch"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise ImportError('libcudart.so.13 is not here')")
        (tmp_path / "torch-9.9.dist-info").mkdir()
        (tmp_path / "torch-9.9.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.9\n")
        monkeypatch.syspath_prepend(str(tmp_path))  # which the new process gets
        return folder

    def test_its_libraries_load(self, torch: Path, tmp_path: Path) -> None:
        extension = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        Path(library(tmp_path, "extension", "")).rename(torch / extension)
        assert ask(f"{PROBES}:torch").value == {
            "version": "9.9",
            "path": str(torch / "__init__.py"),
            "checked": "its libraries load",
        }

    @pytest.mark.parametrize("content", ["", "no library", None])
    def test_they_do_not(self, torch: Path, content: str | None) -> None:
        if content is not None:
            (torch / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").write_text(content)
        assert ask(f"{PROBES}:torch").problem == "ImportError: libcudart.so.13 is not here"

    def test_the_import_has_the_last_word(self, torch: Path) -> None:
        (torch / "__init__.py").write_text("__version__ = '9.8'")
        assert ask(f"{PROBES}:torch").value == {
            "version": "9.8",
            "path": str(torch / "__init__.py"),
        }
