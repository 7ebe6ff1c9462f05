"""Engines that were moved: another GPU, driver or version of TensorRT."""

from __future__ import annotations

from dataclasses import replace

import pytest
from onnx import TensorProto, helper
from srdeploy.runtime.nvinfer.plugin_choice import plugins_of
from srdeploy.runtime.nvinfer.staleness import gpu_mismatch, version_mismatch
from srdeploy.spec import BuildConfig, Compatibility, Gpu, Precision, TensorRtOptions

BUILT = Gpu("RTX 3080", "8.6", "12.4")
BUILD = BuildConfig("", "tensorrt", "10.16.1.11", Precision.FP16, gpu=BUILT)


def at(level: Compatibility) -> BuildConfig:
    return replace(BUILD, tensorrt=TensorRtOptions(compatibility=level))


@pytest.mark.parametrize(
    ("level", "here", "runs"),
    [
        (Compatibility.SAME_GPU, BUILT, True),
        (Compatibility.SAME_GPU, Gpu("RTX 3090", "8.6", "12.4"), False),
        (Compatibility.SAME_GPU, Gpu("RTX 3080", "8.6", "13.0"), False),
        (Compatibility.SAME_CC, Gpu("RTX 3090", "8.6", "12.4"), True),
        (Compatibility.SAME_CC, Gpu("RTX 3090", "8.6", "13.0"), True),
        (Compatibility.SAME_CC, Gpu("RTX 3090", "8.6", "12.2"), False),
        (Compatibility.SAME_CC, Gpu("RTX 4090", "8.9", "12.4"), False),
        (Compatibility.AMPERE_PLUS, Gpu("RTX 5090", "12.0", "13.0"), True),
        (Compatibility.AMPERE_PLUS, Gpu("RTX 2080", "7.5", "13.0"), False),
        (Compatibility.AMPERE_PLUS, Gpu("RTX 4090", "8.9", "11.8"), False),
    ],
)
def test_gpus(level: Compatibility, here: Gpu, runs: bool) -> None:
    reason = gpu_mismatch(at(level), here)
    assert (reason is None) == runs
    if reason:
        assert BUILT.name in reason
        assert here.driver in reason


def test_an_engine_that_names_no_gpu() -> None:
    assert gpu_mismatch(replace(BUILD, gpu=None), BUILT) == "does not say which GPU it was built on"


@pytest.mark.parametrize(
    ("here", "plain", "compatible"),
    [
        ("10.16.1.11", True, True),
        ("10.17.0.2", False, True),
        ("10.9.0.34", False, False),
        ("11.4.0.106", False, False),
    ],
)
def test_versions(here: str, plain: bool, compatible: bool) -> None:
    assert (version_mismatch(BUILD, here) is None) == plain
    later = replace(BUILD, tensorrt=TensorRtOptions(version_compatible=True))
    assert (version_mismatch(later, here) is None) == compatible


OPS = {"oca": "srdeploy::oca", "Relu": None}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("changes", "driver", "reason"),
    [
        ({"version_compatible": True}, "13.0", "never seen to take plugins"),
        ({}, "12.4", "want a driver that speaks CUDA 12.8, not 12.4"),
    ],
)
def test_where_no_plugin_is_called(op: str, changes: dict, driver: str, reason: str) -> None:
    """The body of the op is built in, and a note says why; no note without such an op."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    node = helper.make_node(op, ["x"], ["y"], domain="srdeploy" if OPS[op] else "")
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    build = replace(BUILD, tensorrt=TensorRtOptions(**changes))
    plugins, notes = plugins_of(model.SerializeToString(), build, Gpu("RTX 4090", "8.9", driver))
    assert plugins == ()
    if OPS[op]:
        (note,) = notes
        assert reason in note
        assert OPS[op] in note
    else:
        assert notes == ()
