"""ONNX Runtime on GPUs that are not here: what is refused in which words, what is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from srdeploy.errors import (
    BuildError,
    DeviceLost,
    EngineError,
    OutOfDeviceMemory,
    OutputError,
    StaleEngine,
    TargetUnavailable,
)
from srdeploy.export.pixels import with_pixels
from srdeploy.installation import install, uninstall
from srdeploy.runtime import gpu_facts, onnx_session, provider_options
from srdeploy.runtime.engine import open_engine, write_engine
from srdeploy.runtime.execution_providers import OnnxRuntime, require
from srdeploy.runtime.onnx_session import (
    OnnxRuntimeSession,
    check_placement,
    installed,
    nodes_by_provider,
    translate,
)
from srdeploy.runtime.provider_options import engine_cache, options_of
from srdeploy.runtime.shared_libraries import load_needed, needed
from srdeploy.runtime.targets import open_target
from srdeploy.spec import (
    BuildConfig,
    Compatibility,
    Gpu,
    Manifest,
    Precision,
    ShapeRange,
    TensorRtOptions,
)
from stub_driver import build_driver

GPU = Gpu("Stub RTX 3060", "8.6", "13.0")
CONFIG = BuildConfig(
    "0" * 64, "onnxruntime", "1", Precision.FP16, Precision.FP16, provider="tensorrt", gpu=GPU
)


def library(path: Path, *needs: Path) -> Path:
    """A real shared library that needs others, compiled without a path to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-nostdlib", "-Wl,--no-as-needed", f"-Wl,-soname,{path.name}"]
    command = ["cc", *flags, "-o", str(path), "-x", "c", "/dev/null", "-x", "none", *needs]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(**answers: int) -> None:
        built = build_driver(tmp_path / "driver", **answers)
        monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", str(built))

    return make


@pytest.fixture
def gpu_build(tmp_path: Path) -> OnnxRuntime:
    """An ONNX Runtime whose providers need libraries that no machine has."""
    apart = tmp_path / "apart"
    infer = library(apart / "libnvstub.so.10")
    inner = library(apart / "libcustub_inner.so.13")
    outer = library(apart / "libcustub.so.13", inner)
    folder = tmp_path / "onnxruntime"
    library(folder / "libonnxruntime_providers_cuda.so", outer)
    library(folder / "libonnxruntime_providers_tensorrt.so", outer, infer)
    return OnnxRuntime(folder, "1.31.1", "13.0")


class TestLibraries:
    def test_what_the_installed_providers_need(self) -> None:
        """Read from the files of onnxruntime-gpu as ldd would."""
        found = installed()
        if not found.cuda:
            pytest.skip("this is the ONNX Runtime without GPU providers")
        major = found.cuda.partition(".")[0]
        names = needed(found.folder / "libonnxruntime_providers_cuda.so")
        assert f"libcudart.so.{major}" in names
        assert any(
            name.startswith("libnvinfer.so.")
            for name in needed(found.folder / "libonnxruntime_providers_tensorrt.so")
        )

    def test_files_that_are_no_libraries(self, tmp_path: Path) -> None:
        for content in (b"", b"\x7fELF", b"text" * 100):
            (tmp_path / "f").write_bytes(content)
            assert needed(tmp_path / "f") == ()

    def test_what_is_missing_is_the_innermost(
        self, gpu_build: OnnxRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A library in pip's folder does not help while what it needs is missing."""
        provider = gpu_build.folder / "libonnxruntime_providers_cuda.so"
        assert load_needed(provider, ("libmore.so.1",)) == ("libcustub.so.13", "libmore.so.1")
        site = tmp_path / "site"
        pip = site / "nvidia" / "cu13" / "lib"
        pip.mkdir(parents=True)
        monkeypatch.syspath_prepend(str(site))
        (tmp_path / "apart" / "libcustub.so.13").rename(pip / "libcustub.so.13")
        assert load_needed(provider) == ("libcustub_inner.so.13",)
        (tmp_path / "apart" / "libcustub_inner.so.13").rename(pip / "libcustub_inner.so.13")
        assert load_needed(provider) == ()


class TestRequire:
    def test_without_a_driver_all_that_is_missing_is_said(
        self, gpu_build: OnnxRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", "/absent/libcuda.so.1")
        with pytest.raises(TargetUnavailable) as caught:
            require(gpu_build, "tensorrt")
        assert "cannot use its tensorrt provider: there is no NVIDIA driver" in caught.value.message
        assert caught.value.message.count("libnvstub.so.10") == 1
        assert "nvidia.com/drivers" in caught.value.hint
        assert install("tensorrt-cu13==10.*") in caught.value.hint
        assert install("onnxruntime-gpu[cuda,cudnn]==1.31.1") in caught.value.hint

    def test_with_a_driver_the_libraries_of_the_real_one(self, driver) -> None:
        """This machine, given a driver: the real provider's needs, and the line for them."""
        real = installed()
        if not real.cuda:
            pytest.skip("this is the ONNX Runtime without GPU providers")
        provider = real.folder / "libonnxruntime_providers_cuda.so"
        if not set(load_needed(provider, ("libcudnn.so.9",))) - {"libcuda.so.1"}:
            pytest.skip("the libraries are here")
        driver()
        with pytest.raises(TargetUnavailable, match=r"provider: lib.* missing$") as caught:
            require(real, "cuda")
        assert "libcuda.so.1" not in caught.value.message
        assert caught.value.hint == install(f"onnxruntime-gpu[cuda,cudnn]=={real.version}")

    def test_an_old_driver(self, driver, tmp_path: Path) -> None:
        driver(version=12090)
        library(tmp_path / "libonnxruntime_providers_cuda.so")
        with pytest.raises(
            TargetUnavailable, match=r"speaks CUDA 12\.9, needed is 13\.0"
        ) as caught:
            require(OnnxRuntime(tmp_path, "1.31.1", "13.2"), "cuda")
        assert "ubuntu-drivers" in caught.value.hint

    def test_a_build_for_cpus(self, driver, tmp_path: Path) -> None:
        driver()
        with pytest.raises(TargetUnavailable, match="was built without") as caught:
            require(OnnxRuntime(tmp_path, "1.31.1", ""), "cuda")
        # a file that both have is gone with the first, so the second is installed anew
        both = uninstall("onnxruntime", "onnxruntime-gpu")
        assert caught.value.hint == f"{both} && {install('onnxruntime-gpu')}"

    def test_a_gpu_by_its_index(self, driver, tmp_path: Path, monkeypatch) -> None:
        driver()
        monkeypatch.setattr(
            "srdeploy.runtime.shared_libraries.load_needed", lambda *_: ()
        )  # cuDNN is not here
        library(tmp_path / "libonnxruntime_providers_cuda.so")
        build = OnnxRuntime(tmp_path, "1.31.1", "13.0")
        assert require(build, "cuda") == GPU
        assert require(build, "cuda", 1).capability == "9.0"
        with pytest.raises(TargetUnavailable, match="no GPU 2, this machine has 2"):
            require(build, "cuda", 2)


class TestOptions:
    def test_tensorrt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        profiles = (
            ShapeRange((16, 17), (180, 320), (270, 480), (1, 2, 4)),
            ShapeRange.static(720, 1280),
        )
        plugins = [tmp_path / "a.so", tmp_path / "b.so"]
        for path in plugins:
            path.touch()
        monkeypatch.setenv("SRDEPLOY_ORT_PLUGINS", f"{plugins[0]}:{plugins[1]}")
        wanted = TensorRtOptions(64, 5, Compatibility.AMPERE_PLUS)
        config = dataclasses.replace(CONFIG, profiles=profiles, tensorrt=wanted)
        (name, options), (second, cuda) = options_of(config, 1, tmp_path / "m" / "digest")
        assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
        assert options == {
            "device_id": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(tmp_path / "m" / "digest"),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(tmp_path / "m" / "timing"),
            "trt_builder_optimization_level": "5",
            "trt_profile_min_shapes": "frames:1x16x17x3,frames:1x720x1280x3",
            "trt_profile_opt_shapes": "frames:2x180x320x3,frames:1x720x1280x3",
            "trt_profile_max_shapes": "frames:4x270x480x3,frames:1x720x1280x3",
            "trt_max_workspace_size": str(64 << 20),
            "trt_engine_hw_compatible": "1",
            "trt_extra_plugin_lib_paths": f"{plugins[0]};{plugins[1]}",
        }
        assert cuda == {"device_id": "1", "use_tf32": "0"}

    def test_float32_products_are_not_rounded_unasked(self) -> None:
        config = dataclasses.replace(CONFIG, provider="cuda")
        assert options_of(config, 0, None) == [
            ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})
        ]
        config = dataclasses.replace(config, tensorrt=TensorRtOptions(tf32=True))
        assert options_of(config, 0, None)[0][1]["use_tf32"] == "1"

    @pytest.mark.skipif(not installed().cuda, reason="this ONNX Runtime has no such provider")
    def test_the_provider_knows_every_option(self, tmp_path: Path) -> None:
        """Its library holds their names; a misspelt one would be an error on a GPU only."""
        content = (installed().folder / "libonnxruntime_providers_tensorrt.so").read_bytes()
        for _, options in options_of(CONFIG, 0, tmp_path)[:1]:
            assert [name for name in options if name.encode() + b"\0" not in content] == []

    @pytest.mark.parametrize(
        "wanted",
        [
            TensorRtOptions(stripped=True),
            TensorRtOptions(version_compatible=True),
            TensorRtOptions(compatibility=Compatibility.SAME_CC),
        ],
    )
    def test_options_that_the_provider_does_not_have(self, wanted, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="stripped"):
            options_of(dataclasses.replace(CONFIG, tensorrt=wanted), 0, tmp_path)

    def test_a_plugin_library_that_is_not_there(self, monkeypatch, tmp_path: Path) -> None:
        monkeypatch.setenv("SRDEPLOY_ORT_PLUGINS", "/absent/plugin.so")
        with pytest.raises(TargetUnavailable, match="/absent/plugin") as caught:
            options_of(CONFIG, 0, tmp_path)
        assert "SRDEPLOY_ORT_PLUGINS" in caught.value.hint


class TestEngineCache:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def test_one_folder_for_what_decides_the_engine(self, monkeypatch, tmp_path: Path) -> None:
        folder = engine_cache(CONFIG, GPU, "101601")
        assert folder.is_dir()
        assert (folder.parent / "timing").is_dir()
        elsewhere = dataclasses.replace(CONFIG, gpu=dataclasses.replace(GPU, name="moved"))
        assert engine_cache(elsewhere, GPU, "101601") == folder
        plugin = tmp_path / "p.so"
        plugin.write_bytes(b"1")
        others = {
            engine_cache(dataclasses.replace(CONFIG, graph_sha256="1"), GPU, "101601"),
            engine_cache(CONFIG, dataclasses.replace(GPU, name="RTX 3090"), "101601"),
            engine_cache(CONFIG, dataclasses.replace(GPU, driver="13.1"), "101601"),
            engine_cache(CONFIG, GPU, "101602"),
        }
        monkeypatch.setenv(provider_options.PLUGINS_VARIABLE, str(plugin))
        others.add(engine_cache(CONFIG, GPU, "101601"))
        plugin.write_bytes(b"2")
        others.add(engine_cache(CONFIG, GPU, "101601"))
        assert len(others | {folder}) == 7

    def test_a_cache_that_cannot_be_made(self, cache: Path) -> None:
        cache.write_text("a file")
        with pytest.raises(OutputError, match="engine cache"):
            engine_cache(CONFIG, GPU, "1")


def huge_allocation() -> Exception:
    """What ONNX Runtime's allocator says, the same on CPU and GPU, when memory is short."""
    nodes = [helper.make_node("ConstantOfShape", ["n"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with pytest.raises(Exception, match="alloc") as caught:
        session.run(None, {"n": np.array([1 << 50], np.int64)})
    return caught.value


def test_errors_of_the_gpu() -> None:
    assert type(translate(huge_allocation(), "x")) is OutOfDeviceMemory
    for text, kind in {
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc()": OutOfDeviceMemory,
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0": OutOfDeviceMemory,
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0": DeviceLost,
        "CUDA failure 719: unspecified launch failure": DeviceLost,
        "CUDA failure 214: uncorrectable ECC error encountered": DeviceLost,
        "CUDA failure 1: invalid argument": EngineError,
        "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED": EngineError,
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions": EngineError,
    }.items():
        error = translate(RuntimeError(text), "frames")
        assert type(error) is kind, text
        assert text in error.message


def test_nodes_on_the_cpu(exported) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(
        exported[0].SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = nodes_by_provider(session)
    assert set(found) == {"CPUExecutionProvider"}
    with pytest.raises(BuildError, match=r"cuda provider leaves .*\d+ Conv"):
        check_placement("cuda", found["CPUExecutionProvider"])
    assert check_placement("cuda", {}) == ()
    (note,) = check_placement("tensorrt", {"Shape": 2, "Gather": 3})
    assert note.endswith("on the CPU: 3 Gather, 2 Shape")


class TestTarget:
    @pytest.fixture(autouse=True)
    def no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_facts, "DRIVER_LIBRARY", "/absent/libcuda.so.1")

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_a_gpu_provider_is_refused_where_it_cannot_run(self, exported, provider: str) -> None:
        model, spec = exported
        target = open_target("onnxruntime")
        config = dataclasses.replace(CONFIG, provider=provider, target_version=target.version())
        graph = with_pixels(model).SerializeToString()
        manifest = Manifest(config, spec, "", "e", "")
        for attempt in (
            lambda: target.with_provider(provider),
            lambda: target.settle(config, graph),
            lambda: target.build(graph, config),
            lambda: target.open(graph, manifest),
        ):
            with pytest.raises(TargetUnavailable, match=f"its {provider} provider") as caught:
                attempt()
            assert "no NVIDIA driver" in caught.value.message
        assert target.runs_here() is None

    def test_an_engine_that_moved_to_a_machine_without(self, exported, tmp_path: Path) -> None:
        model, spec = exported
        target = open_target("onnxruntime")
        content = with_pixels(model).SerializeToString()
        config = dataclasses.replace(CONFIG, provider="cuda", target_version=target.version())
        sha256 = hashlib.sha256(content).hexdigest()
        path = tmp_path / "moved"
        write_engine(path, content, Manifest(config, spec, sha256, path.name, str(GPU)))
        with pytest.raises(StaleEngine, match=r"cuda provider on Stub RTX 3060.*8\.6") as caught:
            open_engine(path)
        assert "no NVIDIA driver" in caught.value.message
        assert "To get it: sudo ubuntu-drivers" in caught.value.message

    @pytest.mark.parametrize(("provider", "title"), [("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
    def test_ort_that_falls_back_silently_is_caught(
        self, exported, provider: str, title: str, monkeypatch, tmp_path, capfd
    ) -> None:
        """All seems to be here, but ONNX Runtime offers the CPU alone."""
        if f"{title}ExecutionProvider" not in ort.get_available_providers():
            pytest.skip("this ONNX Runtime has no such provider")
        monkeypatch.setenv("SRDEPLOY_CACHE", str(tmp_path))
        monkeypatch.setattr(onnx_session, "require", lambda *_: GPU)
        config = dataclasses.replace(CONFIG, provider=provider)
        graph = with_pixels(exported[0]).SerializeToString()
        with pytest.raises(BuildError) as caught:
            open_target("onnxruntime").build(graph, config)
        text = caught.value.message
        assert "offers CPUExecutionProvider" in text or "install TensorRT libraries" in text
        assert "Falling back" not in capfd.readouterr().out

    def test_the_cpu_is_the_provider_without_a_word(self, exported) -> None:
        model, spec = exported
        target = open_target("onnxruntime")
        assert target.with_provider("cpu").rest_precision() is Precision.FP32
        graph = with_pixels(model).SerializeToString()
        config = dataclasses.replace(CONFIG, provider="", gpu=None, target_version=target.version())
        settled = target.settle(config, graph)
        assert settled == dataclasses.replace(config, provider="cpu")
        assert target.mismatch(settled) is None
        with target.open(target.build(graph, settled).content, Manifest(settled, spec, "", "", "")):
            pass

    def test_other_targets_have_no_providers(self) -> None:
        with pytest.raises(BuildError, match="openvino has no providers"):
            open_target("openvino").with_provider("cuda")
        assert open_target("openvino").with_provider("").name == "openvino"


def test_frames_outside_all_profiles(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's provider checks sizes late; here it is the CPU's session behind the check."""
    model, spec = exported
    monkeypatch.setattr(
        onnx_session, "gpu_session", lambda content, *_: onnx_session.cpu_session(content)
    )
    profiles = (ShapeRange((8, 8), (16, 16), (32, 32)), ShapeRange.static(48, 64, 2))
    config = dataclasses.replace(CONFIG, profiles=profiles)
    session = OnnxRuntimeSession(with_pixels(model).SerializeToString(), spec.scale, config)
    for shape in ((1, 8, 32, 3), (2, 48, 64, 3)):
        assert session.upscale(np.zeros(shape, np.uint8)).shape[0] == shape[0]
    for shape in ((2, 16, 16, 3), (1, 33, 32, 3)):
        with pytest.raises(EngineError, match=r"32×32 or .*64×48, got") as caught:
            session.upscale(np.zeros(shape, np.uint8))
        assert "--tile" in caught.value.hint
