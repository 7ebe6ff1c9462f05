"""Versions that do not get on with each other."""

from __future__ import annotations

import dataclasses

import pytest
from srdeploy.installation import IN_PARTS, install, uninstall
from srdeploy.runtime.doctor.clashes import Facts, clashes
from srdeploy.runtime.doctor.findings import State

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
                f"{uninstall('onnxruntime', 'onnxruntime-gpu')} && {install('onnxruntime-gpu')}",
            ),
            (
                {
                    "distributions": {"tensorrt": "11.4.0.106"},
                    "libraries": {"libnvinfer.so.11": "11.4.0"},
                },
                "ONNX Runtime and TensorRT",
                install("tensorrt-cu13==10.*"),
            ),
            (
                {"distributions": {"numpy": "2.4.0", "tensorrt-cu13": "10.16.1.11"}},
                "TensorRT and numpy",
                install("numpy<2.4"),
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
                install("tensorrt-cu13==10.16.1.11", options=IN_PARTS),
            ),
            (  # others of the family, and what uses it, do not count
                {
                    "distributions": {
                        "tensorrt-llm": "1.0",
                        "tensorrt_lean": "9.1",
                        "tensorrt_rtx": "1.7",
                        "tensorrt_cu12_libs": "10.3.0",
                    },
                    "failed_imports": {"tensorrt": "ImportError: libnvonnxparser.so.10"},
                    "libraries": {},
                },
                "TensorRT's libraries",
                install("tensorrt-cu12==10.3.0", options=IN_PARTS),
            ),
        ],
    )
    def test_one(self, changes: dict, name: str, fix: str) -> None:
        (found,) = clashes(dataclasses.replace(HEALTHY, **changes))
        assert (found.name, found.state) == (name, State.BROKEN)
        assert found.fixes[0].startswith(fix)

    def test_two_onnx_runtimes_make_way_for_that_of_the_base_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Which is another one on ARM."""
        monkeypatch.setattr("srdeploy.runtime.doctor.clashes.ONNXRUNTIME", "onnxruntime")
        both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
        (found,) = clashes(dataclasses.replace(HEALTHY, distributions=both))
        assert found.fixes[0].endswith(f" && {install('onnxruntime')}")

    def test_without_a_gpu_its_libraries_do_not_matter(self) -> None:
        facts = Facts(
            {"pycuda": "2026.1", "tensorrt": "11.4.0.106", "onnxruntime": "1", "numpy": "2.4"},
            ort_tensorrt="libnvinfer.so.10",
        )
        names = {clash.name for clash in clashes(facts)}
        assert names == {"pycuda", "ONNX Runtime and TensorRT"}
        facts = dataclasses.replace(facts, gpu=False)
        assert clashes(facts) == ()
        both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
        (found,) = clashes(dataclasses.replace(facts, distributions=both))
        assert found.name == "two ONNX Runtimes"

    def test_tensorrt_11_and_a_new_numpy_get_on(self) -> None:
        facts = Facts({"numpy": "2.4.6", "tensorrt": "11.4.0.106"})
        assert clashes(facts) == ()
