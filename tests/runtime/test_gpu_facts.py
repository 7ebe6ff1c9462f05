"""What is asked of the NVIDIA driver, on a driver that is compiled with chosen answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from srdeploy.errors import TargetUnavailable
from srdeploy.runtime import gpu_facts
from srdeploy.runtime.gpu_facts import (
    driver_problem,
    driver_version,
    free_memory,
    gpus,
    hardware,
    total_memory,
)
from srdeploy.spec import Gpu
from stub_driver import build_driver


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a driver with these answers the one of this machine."""

    def make(**answers: int) -> None:
        monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", str(build_driver(tmp_path, **answers)))

    return make


def test_two_gpus(driver) -> None:
    driver(version=12080)
    assert gpus() == (Gpu("Stub RTX 3060", "8.6", "12.8"), Gpu("Stub H100", "9.0", "12.8"))
    assert (total_memory(), total_memory(1)) == (12 << 30, 24 << 30)
    assert free_memory() == 5 << 30
    assert free_memory() == 5 << 30  # the context of the first question was given back
    assert driver_problem() is None
    assert driver_problem("12.8") is None
    for index in (2, -1):
        with pytest.raises(TargetUnavailable, match=f"no GPU {index}"):
            total_memory(index)


@pytest.mark.parametrize(
    ("version", "needed", "problem"),
    [
        (12040, "13.0", "speaks CUDA 12.4, needed is 13.0"),
        (9020, "12.0", "speaks CUDA 9.2, needed is 12.0"),
        (13010, "13.0", None),
        (13000, "12.9", None),
    ],
)
def test_drivers_by_age(driver, version: int, needed: str, problem: str | None) -> None:
    driver(version=version)
    assert (driver_problem(needed) or "None").endswith(str(problem))


@pytest.mark.parametrize(
    ("answers", "message", "hint"),
    [
        ({"init": 100, "version": 13000}, "sees no NVIDIA GPU", "CUDA_VISIBLE_DEVICES"),
        ({"count": 0}, "sees no NVIDIA GPU", "CUDA_VISIBLE_DEVICES"),
        ({"init": 999}, "error 999: unknown error", "modprobe"),
        ({"init": 803}, "error 803$", "restart the machine"),
        ({"init": 34}, "error 34$", "stubs"),
        ({"init": 12345}, "error 12345$", "nvidia-smi"),
    ],
)
def test_drivers_that_fail(driver, answers: dict[str, int], message: str, hint: str) -> None:
    driver(**answers)
    for question in (gpus, total_memory, free_memory):
        with pytest.raises(TargetUnavailable, match=message) as caught:
            question()
        assert hint in caught.value.hint
    assert driver_problem() == caught.value.message
    assert driver_version() == "13.0"


class TestHardware:
    """What Linux shows of GPUs, in a folder of its own."""

    @pytest.mark.parametrize(
        ("vendor", "kind", "seen"),
        [
            ("0x10de", "0x030000", True),  # a card with plugs
            ("0x10de", "0x030200", True),  # an accelerator
            ("0x10de", "0x040300", False),  # the sound of a card
            ("0x10de", "0x060400", False),  # a bridge
            ("0x8086", "0x030000", False),  # another maker's
            ("0x1002", "0x030000", False),  # AMD's
        ],
    )
    def test_pci(self, tmp_path: Path, vendor: str, kind: str, seen: bool) -> None:
        bridge = tmp_path / "sys/bus/pci/devices/0000:00:00.0"
        for device, facts in (
            (bridge, ("0x8086", "0x060000")),
            (tmp_path / "card", (vendor, kind)),
        ):
            device.mkdir(parents=True)
            for name, value in zip(("vendor", "class"), facts, strict=True):
                (device / name).write_text(f"{value}\n")
        assert not hardware(tmp_path)
        (bridge.parent / "0000:01:00.0").symlink_to(tmp_path / "card")  # as sysfs has them
        assert hardware(tmp_path) is seen

    @pytest.mark.parametrize(
        "path", ["dev/nvidia0", "dev/nvidiactl", "proc/driver/nvidia/x", "dev/dxg"]
    )
    def test_what_a_driver_makes(self, tmp_path: Path, path: str) -> None:
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/null").touch()
        assert not hardware(tmp_path)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
        assert hardware(tmp_path)

    def test_nothing_can_be_read(self, tmp_path: Path) -> None:
        assert not hardware(tmp_path / "absent")
        device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
        device.mkdir(parents=True)
        assert not hardware(tmp_path)
        (device / "vendor").mkdir()
        (device / "class").write_text("0x030000\n")
        assert not hardware(tmp_path)
        other = device.with_name("0000:02:00.0")  # the rest is read all the same
        other.mkdir()
        (other / "vendor").write_text("0x10de\n")
        (other / "class").write_text("0x030000\n")
        assert hardware(tmp_path)


def test_a_context_that_cannot_be_had(driver) -> None:
    driver(retain=2)
    with pytest.raises(TargetUnavailable, match="out of memory"):
        free_memory()


def test_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = tmp_path / "libcuda.so.1"
    monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", str(absent))
    for question in (gpus, total_memory, free_memory, driver_version):
        with pytest.raises(TargetUnavailable, match="there is no NVIDIA driver") as caught:
            question()
        assert "nvidia.com/drivers" in caught.value.hint
    absent.write_bytes(b"not a library")
    assert str(absent) in str(driver_problem())


def test_the_driver_is_found_by_its_name(tmp_path: Path) -> None:
    """As on a real machine: the loader finds it, in a process that has no other package."""
    build_driver(tmp_path)
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "from srdeploy.runtime.gpu_facts import gpus; print(gpus()[1])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "Stub H100 (compute capability 9.0, CUDA driver 13.0)\n", done.stderr
