"""The TensorRT plugins against the real bindings of TensorRT 10 and 11.

libnvinfer cannot be installed everywhere: small stub libraries take its place, so that the
Python half of TensorRT runs and no engine can be built. ``make setup`` puts the bindings of both
versions beside the environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from srdeploy.errors import BuildError
from srdeploy.installation import install
from srdeploy.plugins import VERSION, plugin_versions
from srdeploy.runtime.nvinfer import apart
from srdeploy.runtime.nvinfer.build import BuildJob
from srdeploy.runtime.targets import tensorrt_rtx
from srdeploy.spec import BuildConfig, Precision
from tensorrt_stubs import bootstrap, build_stubs

DRIVER = Path(__file__).with_name("tensorrt_driver.py")
DTYPES = {"HALF": "fp16", "BF16": "bf16", "FLOAT": "fp32"}


@pytest.fixture(scope="module", params=["10", "11"])
def found(request, tmp_path_factory, repository) -> dict[str, Any]:
    """What the driver found with one version of the bindings."""
    bindings = Path(sys.prefix) / f"tensorrt-{request.param}" / "tensorrt_bindings"
    if not bindings.is_dir():
        pytest.skip(f"no bindings of TensorRT {request.param}: make setup installs them")
    if not shutil.which("cc"):
        pytest.skip("no C compiler for the stub libraries")
    folder = tmp_path_factory.mktemp("stubs")
    code = bootstrap(bindings, build_stubs(bindings, folder))
    code += f"exec(compile(open({str(DRIVER)!r}).read(), {str(DRIVER)!r}, 'exec'))"
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": str(repository / ".src"),
        "SRDEPLOY_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["version"].startswith(request.param)
    return result


def test_they_are_registered_once_and_for_one_gpu(found) -> None:
    assert found["plugins"] == plugin_versions()
    assert found["again"]
    assert "for compute capability 8.6, not 9.0" in found["other gpu"]
    fields = {name: {f for f, _ in fields} for name, (_, fields) in found["creators"].items()}
    assert fields == {
        "srdeploy::oca": {"window", "overlap", "heads"},
        "srdeploy::enla_context": {"eps"},
        "srdeploy::enla_apply": {"eps"},
    }
    assert {version for version, _ in found["creators"].values()} == {VERSION}


def test_a_parser_can_make_them(found) -> None:
    """From a node's attributes; where this numpy breaks the bindings, registration refuses."""
    created = {p: found.get(f"created {p}") for p in ("oca", "enla_context", "enla_apply")}
    if found["version"].startswith("10.") and np.lib.NumpyVersion(found["numpy"]) >= "2.4.0":
        assert "do not get on with numpy" in found["this numpy"]
        assert found["this numpy"].endswith(f" {install('numpy<2.4')}, or use TensorRT 11")
        assert "TypeError" in found["creating oca"]
        return
    assert found["this numpy"] == "none"
    assert created == {
        "oca": {"window": 16, "overlap": 8, "heads": 2},
        "enla_context": {"eps": 0.25},
        "enla_apply": {"eps": 0.25},
    }


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_shapes_and_launches(found, dtype: str) -> None:
    oca, context, apply = (found[f"{p} {dtype}"] for p in ("oca", "enla_context", "enla_apply"))
    assert (oca["shape"], oca["dtype"]) == ([2, 50, 33, 60], dtype)
    # 4×3 windows, 2 heads, and 256 queries by 128 or 64
    assert oca["launch"]["grid_x"] == 4 * 3 * 2 * (4 if dtype == "FLOAT" else 2)
    assert oca["scalars"] == [50, 33, 60]
    assert (context["shape"], context["dtype"]) == ([2, 2, 201, 100], "FLOAT")
    # 2 chunks of 1024 pixels, 200 channels by 128, 100 features by 64
    assert context["launch"]["grid_x"] == 2 * 2 * 2
    assert (apply["shape"], apply["dtype"]) == ([2, 200, 50, 33], dtype)
    assert apply["launch"]["grid_x"] == -(-1650 // (32 if dtype == "FLOAT" else 64)) * 2
    for answer in (oca, context, apply):
        assert answer["launch"]["grid_y"] == 2
        assert answer["launch"]["block_x"] == 128
        assert answer["launch"]["shared_mem"] <= 48 << 10
    assert context["scalars"] == apply["scalars"] == [1650]


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_kernel_takes_what_tensorrt_passes(found, dtype: str) -> None:
    """Inputs, scalars and outputs in this order and no more, as the PTX itself says."""
    for plugin, inputs, scalars in (("oca", 4, 3), ("enla_context", 3, 1), ("enla_apply", 3, 1)):
        answer = found[f"{plugin} {dtype}"]
        entry = re.search(rf"\.entry {answer['kernel']}\((.*?)\n\)", answer["ptx"], re.DOTALL)
        assert entry is not None
        types = re.findall(r"\.param \.(u64|u32)", entry.group(1))
        assert types == ["u64"] * inputs + ["u32"] * scalars + ["u64"]
        assert ".target sm_86" in answer["ptx"]
        assert "/" not in "".join(re.findall(r"\.file.*", answer["ptx"]))  # no paths


def test_types_and_layouts(found) -> None:
    """All inputs and outputs of one type but the sums, which are float32; dense."""
    for plugin, sums in (("oca", None), ("enla_context", 3), ("enla_apply", 2)):
        answer = found[f"{plugin} HALF"]
        assert answer["layouts"] == ["LINEAR"]
        rest = [[t for i, t in enumerate(c) if i != sums] for c in answer["types"]]
        assert sorted(c[0] for c in rest) == sorted(DTYPES)
        assert all(len(set(c)) == 1 for c in rest)
        if sums is not None:
            assert {c[sums] for c in answer["types"]} == {"FLOAT"}


def test_what_cannot_be_compiled_is_refused(found) -> None:
    assert "channels of q must not be dynamic" in found["dynamic channels"]
    assert "PluginError: oca: heads must divide" in found["heads"]
    assert "float16, bfloat16, float32" in found["int8"]


RTX_WITH_A_PLUGIN = """
import tensorrt_rtx as trt
from srdeploy.runtime.nvinfer.build import BuildJob, build
from srdeploy.runtime.nvinfer.library import library_of
from srdeploy.spec import BuildConfig, Precision

class Creator(trt.IPluginCreatorV3One):
    def __init__(self):
        super().__init__()
        self.name, self.plugin_namespace, self.plugin_version = "oca", {namespace!r}, "1"
        self.field_names = trt.PluginFieldCollection([])

    def create_plugin(self, *arguments):
        raise AssertionError

trt.get_plugin_registry().register_creator(Creator(), {namespace!r})
config = BuildConfig("", "tensorrt-rtx", "", Precision.FP32)
try:
    build(library_of(trt), BuildJob(b"no ONNX", config, ("8.6",)))
except RuntimeError as exc:
    print(exc)
"""


def test_tensorrt_rtx_never_parses_with_a_plugin(repository) -> None:
    """Its parser aborts the process on one: so it is not asked where one is registered."""
    environment = {**os.environ, "PYTHONPATH": str(repository / ".src")}
    for namespace, expected in (("srdeploy", "plugins are registered with it"), ("other", "")):
        done = subprocess.run(
            [sys.executable, "-c", RTX_WITH_A_PLUGIN.format(namespace=namespace)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert ("plugins are registered" in done.stdout) == (namespace == "srdeploy")


def test_tensorrt_rtx_builds_in_a_process_of_its_own(monkeypatch) -> None:
    """A fresh one, not a fork: nothing that this process registers can reach it."""
    methods: list[str] = []
    real = apart.multiprocessing.get_context

    def remembered(method: str) -> object:
        methods.append(method)
        return real(method)

    monkeypatch.setattr(apart.multiprocessing, "get_context", remembered)
    monkeypatch.setattr(apart, "build", None)  # in this process it must not be called
    config = BuildConfig("", "tensorrt-rtx", "", Precision.FP32)
    job = BuildJob(b"no ONNX", config, ("8.6",))
    with pytest.raises(BuildError, match="refuses the fp32 graph") as caught:
        apart.build_apart(tensorrt_rtx.__name__, "TensorRT-RTX", job, 60)
    assert methods == ["spawn"]
    assert caught.value.hint
