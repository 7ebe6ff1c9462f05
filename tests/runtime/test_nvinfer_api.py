"""The whole path of TensorRT 10, 11 and RTX against the real bindings' signatures.

The libraries behind the bindings of TensorRT 10 and 11 cannot be installed here: a façade holds
every call of the builder and the runtime against what the bindings say they take.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from srdeploy.errors import BuildError
from srdeploy.runtime.nvinfer.library import library_of
from srdeploy.spec import BuildConfig, Compatibility, Precision, TensorRtOptions
from tensorrt_stubs import bootstrap, build_stubs

DRIVER = Path(__file__).with_name("nvinfer_driver.py")
GONE_IN_11 = {"FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS"}


def real_bindings(version: str, folder: Path) -> str:
    """Code that imports the bindings as REAL, which are called NAME."""
    if version == "rtx":
        return "import tensorrt_rtx\nREAL, NAME = tensorrt_rtx, 'tensorrt_rtx'\n"
    bindings = Path(sys.prefix) / f"tensorrt-{version}" / "tensorrt_bindings"
    if not bindings.is_dir():
        pytest.skip(f"no bindings of TensorRT {version}: make setup installs them")
    if not shutil.which("cc"):
        pytest.skip("no C compiler for the stub libraries")
    code = bootstrap(bindings, build_stubs(bindings, folder))
    return f"{code}\nimport tensorrt\nREAL, NAME = tensorrt, 'tensorrt'\n"


def run(code: str, repository: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repository / ".src"), "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module", params=["10", "11", "rtx"])
def found(request, tmp_path_factory, repository) -> dict[str, Any]:
    """What the driver found with one version of the bindings."""
    code = real_bindings(request.param, tmp_path_factory.mktemp("stubs"))
    code += f"__file__ = {str(DRIVER)!r}\nexec(compile(open(__file__).read(), __file__, 'exec'))"
    done = run(code, repository)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["major"] = request.param
    return result


def test_precision_is_never_asked_for_by_a_flag(found) -> None:
    for built in found["builds"]:
        assert built["engine"] == "an engine"
        assert not GONE_IN_11 & set(built["flags"])
    # 10 has to be asked for strong typing, the others are so always
    strongly_typed = {"10": [[2]], "11": [[0]], "rtx": [[0]]}[found["major"]]
    assert all(built["network"] == strongly_typed for built in found["builds"])


def test_options(found) -> None:
    plain, tuned, *compatible = found["builds"]
    assert plain["preview"] == ["RUNTIME_ACTIVATION_RESIZE_10_10"]
    assert plain["cleared"] == ["TF32"]
    assert tuned["cleared"] == []
    assert plain["profiles"] == [
        [[1, 16, 16, 3], [1, 180, 320, 3], [1, 1080, 1920, 3]],
        [[2, 64, 64, 3]] * 3,
    ]
    if found["major"] == "rtx":
        assert plain["config"].count("set_compute_capability") == 2
        assert "set_timing_cache" not in plain["config"]
        assert not compatible
        return
    assert plain["timing"] == "an engine"
    # refused, it begins anew; what keeps none gives none
    assert found["foreign timing cache"] == [["foreign", ""], ""]
    assert plain["layers"] == [["conv", ["fp16", "fp16"], ["conv_first"]]]
    versioned, stripped = compatible
    assert versioned["flags"] == ["VERSION_COMPATIBLE"]
    assert set(stripped["flags"]) <= {"STRIP_PLAN", "WEIGHTLESS", "REFIT_IDENTICAL"}
    assert len(stripped["flags"]) == 2
    assert "hardware_compatibility_level=" in stripped["config"]


def test_what_the_parser_refuses_is_named(found) -> None:
    kind, message, hint = found["refused"]
    assert kind == "GraphRefused"
    assert message == "Gelu 'body.0/Gelu' in oca: no importer"
    assert "--opset 20" in hint


def test_workspace_steps_down(found) -> None:
    limits, notes = found["step down"]
    assert limits == [1024, 512, 256]
    assert len(notes) == 2
    assert found["no engine"][:2] == ["BuildFailed", "the builder gave no reason"]
    assert "refuses the profile" in found["no profile"][1]


def test_executions(found) -> None:
    assert found["scratch"] == 4096
    steps = [name for name, _ in found["context"]]
    shapes = [a for name, a in found["context"] if name == "set_input_shape"]
    profiles = [a for name, a in found["context"] if name == "set_optimization_profile_async"]
    assert shapes == [
        ["frames", [1, 180, 320, 3]],
        ["frames", [2, 64, 64, 3]],
        ["frames", [1, 16, 16, 3]],
    ]
    assert profiles == [[0, 7], [1, 7], [0, 7]]
    assert steps[-3:] == ["execute_async_v3"] * 3
    assert found["capturable"] is True
    assert ("is_stream_capturable" in steps) == (found["major"] == "rtx")
    assert steps.index("set_device_memory") < steps.index("execute_async_v3")
    assert ("Refitter" in found["made"]) == (found["major"] != "rtx")
    assert found["cache"] == ("an engine" if found["major"] == "rtx" else "")


def test_failures_are_ours(found) -> None:
    assert "outside the engine's profiles" in found["outside"][1]
    assert found["shape refused"][0] == "EngineError"
    assert found["not run"][0] == "EngineError"
    assert found["not opened"][0] == "EngineError"
    assert found["too large"][0] == "OutOfDeviceMemory"


def test_the_target_settles_and_judges_by_the_gpu_that_is_here(found) -> None:
    fits, no_such_gpu, version, other_gpu = found["mismatch"]
    assert fits is None
    assert no_such_gpu == "was asked to run on GPU 1, there are 1"
    assert "9.0" in version
    assert found["version"] in version
    assert "12.0" in other_gpu
    assert "a GPU (compute capability 7.5" in other_gpu
    if found["major"] == "rtx":
        assert found["settled"] == [[], None]
        assert found["MALFORMED_ENGINE"][0] == "EngineError"
        assert "is damaged" in found["MALFORMED_ENGINE"][1]
        assert found["VERSION_MISMATCH"][0] == "StaleEngine"
        return
    plugins, name = found["settled"]
    assert name == "a GPU"
    # the plugins of TensorRT 10 do not get on with the numpy that is pinned here
    assert plugins == ([] if found["major"] == "10" else ["srdeploy::oca 1"])
    assert "no bf16 arithmetic" in found["bf16 on 7.5"][0]
    assert "not in the engine store" in found["stripped"][1]


@pytest.mark.parametrize(
    ("misuse", "complaint"),
    [
        ("facade.BuilderFlag.FP64", "FP64"),
        ("facade.Builder(log).create_builder_config().set_no_flag(1)", "no attribute"),
        ("facade.Builder(log).create_network('typed')", "fits none"),
        ("facade.Builder(log).create_network(0, 1)", "fits none"),
        ("facade.Builder()", "fits none"),
        ("facade.Builder(log).create_builder_config().flags_ = 3", "cannot be set"),
        (
            "facade.Builder(log).create_builder_config().builder_optimization_level = 'x'",
            "expected",
        ),
    ],
)
@pytest.mark.parametrize("version", ["11", "rtx"])
def test_the_facade_sees_misuse(version, misuse, complaint, tmp_path, repository) -> None:
    code = real_bindings(version, tmp_path)
    code += f"""
import sys
sys.path.insert(0, {str(DRIVER.parent)!r})
from bindings_facade import Facade
facade = Facade(REAL, NAME)
class Log(facade.ILogger):
    def __init__(self): super().__init__()
    def log(self, severity, message): pass
log = Log()
facade.Builder(log).create_builder_config().builder_optimization_level = 3
print("used rightly")
{misuse}
"""
    done = run(code, repository)
    assert "used rightly" in done.stdout, done.stderr
    assert done.returncode
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tensorrt": TensorRtOptions(stripped=True)}, "without weights"),
        ({"tensorrt": TensorRtOptions(version_compatible=True)}, "other versions"),
        ({"tensorrt": TensorRtOptions(compatibility=Compatibility.SAME_CC)}, "takes no --compat"),
    ],
)
def test_what_rtx_lacks_is_refused(changes, complaint) -> None:
    import tensorrt_rtx

    config = BuildConfig("", "tensorrt-rtx", "", Precision.FP16, **changes)
    with pytest.raises(BuildError, match=complaint) as caught:
        library_of(tensorrt_rtx).check_options(config)
    assert caught.value.hint
