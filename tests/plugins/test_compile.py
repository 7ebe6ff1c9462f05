"""Kernels compiled ahead of time, for GPUs that are not here, into the cache."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from srdeploy.errors import OutputError, PluginError
from srdeploy.plugins.compile import compile_kernel, without_hidden_arguments
from srdeploy.plugins.compiled import CompiledKernel, read_kernel, write_kernel
from srdeploy.plugins.enla import kernel as enla_kernel
from srdeploy.plugins.enla.arrays import enla
from srdeploy.plugins.enla.contract import EnlaShape
from srdeploy.plugins.oca import kernel as oca_kernel
from srdeploy.plugins.oca.arrays import oca

DRIVER = Path(__file__).with_name("compile_driver.py")
CAPABILITIES = ["7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"]
KERNEL = CompiledKernel("some_kernel", "8.6", 128, 1024, ".version 8.8\n", b"\x7fELF")


def run_driver(repository: Path, cache: Path, shapes: str, dtype: str) -> list[dict[str, Any]]:
    """All kernels for maps of these shapes and type, as JSON."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": str(repository / ".src"),
        "SRDEPLOY_CACHE": str(cache),
    }
    done = subprocess.run(
        [sys.executable, str(DRIVER), shapes, dtype, *CAPABILITIES],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: list[dict[str, Any]] = json.loads(done.stdout)
    return made


def check_kernels(made: list[dict[str, Any]]) -> None:
    assert [k["capability"] for k in made[:: len(made) // 7]] == CAPABILITIES
    for kernel in made:
        number = kernel["capability"].replace(".", "")
        assert re.search(rf"^\.target sm_{number}a?$", kernel["ptx"], re.MULTILINE)
        assert bytes.fromhex(kernel["cubin"]).startswith(b"\x7fELF")
        entry = re.search(rf"\.entry {kernel['name']}\((.*?)\n\)", kernel["ptx"], re.DOTALL)
        assert entry is not None
        types = re.findall(r"\.param \.(u64|u32)", entry.group(1))
        assert types == ["u64" if kind[0] == "*" else "u32" for kind in kernel["arguments"]]
        assert kernel["shared_bytes"] <= 48 << 10


def test_every_gpu(repository, tmp_path) -> None:
    """Compiled once; the second time they come from the cache, and a damaged file does not."""
    first = run_driver(repository, tmp_path, "small", "float16")
    check_kernels(first)
    files = sorted(tmp_path.rglob("kernel.json"))
    assert len(files) == len(first) == 21
    stamps = {path: path.stat().st_mtime_ns for path in files}
    damaged = files[0].with_name("kernel.cubin")
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    assert run_driver(repository, tmp_path, "small", "float16") == first
    assert damaged.read_bytes() == whole
    assert [p for p in files if p.stat().st_mtime_ns != stamps[p]] == [files[0]]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("widths", ["published", "widest"])
def test_every_gpu_at_other_widths(repository, tmp_path, widths: str, dtype: str) -> None:
    check_kernels(run_driver(repository, tmp_path, widths, dtype))


def test_nothing_is_compiled_where_triton_interprets() -> None:
    source = enla_kernel.apply_source(EnlaShape(1, 16, 16, 64, 32), 1e-4, "float16", "8.6")
    with pytest.raises(PluginError, match="interprets"):
        compile_kernel(source, "8.6")


PTX = """.version 8.8
.target sm_86
.visible .entry k(
	.param .u64 k_param_0,
	.param .u32 k_param_1,
	.param .u64 .ptr .global .align 1 k_param_2
)
.reqntid 128
{
	ld.param.b64 	%rd1, [k_param_0];
	ret;
}
"""


def test_hidden_arguments_are_dropped_only_where_unused() -> None:
    stripped = without_hidden_arguments(PTX, 2)
    assert "k_param_2" not in stripped
    assert "k_param_1\n)" in stripped
    assert without_hidden_arguments(PTX, 3) == PTX
    for ptx, arguments in (
        (PTX.replace("[k_param_0]", "[k_param_2]"), 2),
        (PTX.replace("[k_param_0]", "[k_param_2+8]"), 2),
        (PTX, 4),
        ("", 1),
    ):
        with pytest.raises(PluginError, match=r"argument|entry"):
            without_hidden_arguments(ptx, arguments)


def test_the_cache_keeps_whole_kernels_only(tmp_path) -> None:
    folder = tmp_path / "kernel"
    assert read_kernel(folder) is None
    write_kernel(folder, KERNEL)
    assert read_kernel(folder) == KERNEL
    for name, content in (
        ("kernel.json", b"{}"),
        ("kernel.json", b"[1]"),
        ("kernel.json", b"\xff"),
        ("kernel.ptx", b"another"),
        ("kernel.cubin", b""),
    ):
        write_kernel(folder, KERNEL)
        (folder / name).write_bytes(content)
        assert read_kernel(folder) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_kernel(tmp_path / "file" / "kernel", KERNEL)


class NoGpu:
    """Any launch is a failure of the test."""

    capability = "8.6"

    def run(self, *_: object) -> None:
        raise AssertionError("launched")


def test_bad_arrays_are_refused_before_a_launch() -> None:
    maps = [np.zeros((1, 8, 8, 12), np.float16) for _ in range(3)]
    bias = np.zeros((81, 2), np.float16)
    for arguments, named in (
        ((*(m.astype(np.float64) for m in maps), bias.astype(np.float64), 4, 2, 2), "q is float64"),
        ((*maps, bias.astype(np.float32), 4, 2, 2), "bias is float32"),
        ((*maps, bias, 4, 3, 2), "overlap"),
        ((*maps, bias, 4, 2, 5), "heads"),
        ((*(m[:, :0] for m in maps), bias, 4, 2, 2), "q is empty"),
    ):
        with pytest.raises(PluginError, match=named):
            oca(NoGpu(), *arguments)
    q, v = np.zeros((1, 4, 6, 5), np.float16), np.zeros((1, 3, 6, 5), np.float16)
    for arguments, named in (
        ((q, q, v, np.zeros((8, 5), np.float16)), "projection is 8×5"),
        ((q, q, v, np.zeros((8, 4))), "projection is float64"),
        ((q[..., :0], q, v, np.zeros((8, 4), np.float16)), "q is empty"),
    ):
        with pytest.raises(PluginError, match=named):
            enla(NoGpu(), *arguments, 1e-4)


def test_a_launch_covers_the_map() -> None:
    """Programs times what each of them does, for maps that are not whole windows."""
    shape = oca_kernel.OcaShape(3, 50, 33, 60, 16, 8, 2)
    assert oca_kernel.grid(shape, "float16") == (4 * 3 * 2 * 2, 3)
    linear = EnlaShape(2, 24, 200, 1650, 100)
    assert enla_kernel.context_grid(linear) == (2 * 2 * 2, 2)
    assert enla_kernel.apply_grid(linear, "float16", "8.6") == (26 * 2, 2)
    assert enla_kernel.apply_grid(linear, "float16", "7.5") == (52 * 2, 2)
