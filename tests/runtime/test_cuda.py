"""The real pycuda and cuda-bindings on a driver that the test compiles.

pycuda has to be compiled with CUDA's headers, so it is mostly not here. SRDEPLOY_CUDA_PYTHON
names an interpreter that has it with cuda-bindings and numpy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROBE = (
    "import numpy, importlib.util as u; exit(not (u.find_spec('pycuda') and u.find_spec('cuda')))"
)
# pycuda names more functions of the driver than there are here, so they are bound when called
START = (
    "import os, sys; sys.setdlopenflags(os.RTLD_LAZY); import cuda_cases;"
    " getattr(cuda_cases, sys.argv[1])()"
)
MIB = 1 << 20
MEMORY = {"memory_runs_out": MIB, "lanes_give_way": MIB}
# After an error that sticks, pycuda says on stderr what it could not give back.
LOST = (
    "the_device_is_lost_at_a_call",
    "the_device_is_lost_in_a_stream",
    "the_device_is_lost_and_contexts_cannot_be_popped",
    "every_call_of_a_lost_device_is_one_of_our_errors",
)
QUIET = (
    "frames_come_back",
    "frames_come_back_without_graphs",
    "buffers_are_made_once",
    "a_hundred_sessions_leave_nothing",
    "memory_runs_out",
    "lanes_give_way",
    "what_waits_is_not_captured",
    "graphs_that_cannot_be_made",
    "an_interrupt_ends_the_capture",
    "others_use_the_default_stream_during_a_capture",
    "a_session_is_closed_in_another_thread",
    "nested_contexts",
    "no_such_gpu",
    "an_error_that_is_kept_holds_nothing",
    "what_pycuda_leaks",
    "a_lane_alone",
    "kernels_are_launched",
    "a_thread_ends_in_peace",
)


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter with pycuda."""
    named = os.environ.get("SRDEPLOY_CUDA_PYTHON", sys.executable)
    if subprocess.run([named, "-c", PROBE], check=False, capture_output=True).returncode:
        pytest.skip("no pycuda: SRDEPLOY_CUDA_PYTHON may name an interpreter that has it")
    return named


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the compiled ``libcuda.so.1``."""
    folder = tmp_path_factory.mktemp("driver")
    options = ["-shared", "-fPIC", "-pthread", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1"]
    library, source = folder / "libcuda.so.1", HERE / "cuda_driver.c"
    subprocess.run(["cc", *options, "-o", str(library), str(source), "-ldl"], check=True)
    return folder


def test_the_driver_compiles(driver: Path) -> None:
    assert (driver / "libcuda.so.1").is_file()


@pytest.mark.parametrize("case", QUIET + LOST)
def test_cuda(case: str, python: str, driver: Path, repository: Path) -> None:
    done = subprocess.run(
        [python, "-W", "error", "-c", START, case],
        env={
            "LD_LIBRARY_PATH": str(driver),
            "PYTHONPATH": f"{repository / '.src'}{os.pathsep}{HERE}",
            "PATH": os.environ["PATH"],
            "SIM_MEMORY": str(MEMORY.get(case, 1024 * MIB)),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if case in QUIET:
        assert done.stderr == ""


def test_every_case_is_run() -> None:
    written = {
        line.removeprefix("def ").partition("(")[0]
        for line in (HERE / "cuda_cases.py").read_text().splitlines()
        if line.startswith("def ") and line.endswith("() -> None:") and line[4] != "_"
    }
    assert written - {"nothing_is_left"} <= {*QUIET, *LOST}
