"""The terminal of ``examples/main_job.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

WRITES = """
import os, sys
size = os.get_terminal_size()
os.write(1, f"{size.columns}×{size.lines} ".encode() + bytes([0xff]) + b" end\\n")
sys.exit(3)
"""


@pytest.fixture(scope="module")
def main_job(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("main_job", repository / "examples/main_job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_as_wide_as_one_and_takes_any_bytes(
    main_job: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_job.in_terminal([sys.executable, "-c", WRITES], tmp_path) == 3
    assert capsys.readouterr().out == "80×24 \ufffd end\n"
