"""CPUs of other kinds on this machine, and what int8 kernels compute on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from srdeploy.bench import cpu, int8_cpus

CPUINFO = (
    "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni avx_vnni amx_int8\n\nprocessor : 1\n"
)


def seen(kind: str, folder: Path) -> dict[str, str]:
    """The environment for a kind; where this machine cannot do it, the test ends here."""
    try:
        return cpu.as_seen(kind, folder)
    except RuntimeError as error:
        pytest.skip(str(error))


def test_what_a_kind_lacks_is_no_flag() -> None:
    flags = {
        kind: cpu.without(CPUINFO, lacking).splitlines()[1] for kind, lacking in cpu.KINDS.items()
    }
    assert flags["avx2"].split()[2:] == ["fpu", "avx2"]
    assert flags["avx512"].split()[2:] == ["fpu", "avx2", "avx512f"]
    assert flags["avxvnni"].split()[2:] == ["fpu", "avx2", "avx_vnni"]
    assert flags["avx512vnni"].split()[2:] == ["fpu", "avx2", "avx512f", "avx512_vnni"]


def test_bits_of_a_leaf_are_cleared_together() -> None:
    lacking = (
        cpu.Extension((7, 0), "ebx", 16, "avx512f"),
        cpu.Extension((7, 0), "ecx", 11, "avx512_vnni"),
        cpu.Extension((7, 1), "eax", 4, "avx_vnni"),
    )
    assert cpu.masks(lacking) == "7 0 0 10000 800 0 7 1 10 0 0 0"


def test_libraries_see_the_cpu(tmp_path: Path) -> None:
    code = (
        "import faulthandler, torch; faulthandler.enable()\n"
        "from srdeploy.runtime.int8_sums import pairs_saturate\n"
        "print(torch.backends.cpu.get_cpu_capability(), pairs_saturate())"
    )
    environment = seen("avx2", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["AVX2", "True"]


def test_a_real_fault_still_ends_the_process(tmp_path: Path) -> None:
    code = "import ctypes; ctypes.string_at(0)"
    done = subprocess.run([sys.executable, "-c", code], env=seen("avx2", tmp_path), check=False)
    assert done.returncode == -11


def test_int8_kernels_without_a_dot_product(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime and OpenVINO themselves: drawn weights saturate, fitted ones do not."""
    seen("avx2", tmp_path)
    int8_cpus.inside("avx2", tmp_path)
    for line in capfd.readouterr().out.splitlines()[1:]:
        worst = max(map(int, line.split()[-2:]))
        safe = "fitted" in line or "depthwise" in line
        assert worst <= 1 if safe else worst > 1, line
