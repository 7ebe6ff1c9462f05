"""What ONNX Runtime's providers for GPUs are given: options, profiles, plugins, caches."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from ..errors import BuildError, OutputError, TargetUnavailable
from ..files import cache_folder
from ..spec import BuildConfig, Compatibility, Gpu, ShapeRange
from .execution_providers import PROVIDERS

PLUGINS_VARIABLE = "SRDEPLOY_ORT_PLUGINS"
INPUT = "frames"


def options_of(
    config: BuildConfig, device: int, cache: Path | None
) -> list[tuple[str, dict[str, str]]]:
    """Providers for a session, first choice first, with their options.

    The precision stands in the graph: without any of its precision flags TensorRT's provider
    builds a strongly typed network.

    Args:
        config: What to build or run.
        device: Index of the GPU.
        cache: Folder for TensorRT's engines, see :func:`engine_cache`.

    Raises:
        BuildError: An option is one that the provider does not have.
    """
    tf32 = "1" if config.tensorrt.tf32 else "0"  # ONNX Runtime's own default is to round
    cuda = (PROVIDERS["cuda"].title, {"device_id": str(device), "use_tf32": tf32})
    if config.provider == "cuda":
        return [cuda]
    assert cache is not None
    wanted = config.tensorrt
    if wanted.stripped or wanted.version_compatible or wanted.compatibility == "same-cc":
        raise BuildError(
            "ONNX Runtime's tensorrt provider builds no stripped, version compatible or same-cc"
            " engines",
            "leave the option out, or use --target tensorrt",
        )
    options = {
        "device_id": str(device),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache.parent / "timing"),
        "trt_builder_optimization_level": str(wanted.optimization_level),
        **_profile_shapes(config.profiles),
    }
    if wanted.workspace_mib:
        options["trt_max_workspace_size"] = str(wanted.workspace_mib << 20)
    if wanted.compatibility is Compatibility.AMPERE_PLUS:
        options["trt_engine_hw_compatible"] = "1"
    if plugins := plugin_libraries():
        options["trt_extra_plugin_lib_paths"] = ";".join(map(str, plugins))
    return [(PROVIDERS["tensorrt"].title, options), cuda]


def _profile_shapes(profiles: tuple[ShapeRange, ...]) -> dict[str, str]:
    """Profiles in the provider's words: the input once for each of them."""

    def shapes(kind: str, batch: int) -> str:
        sizes = ((p.batches[batch], *getattr(p, kind)) for p in profiles)
        return ",".join(f"{INPUT}:{n}x{h}x{w}x3" for n, h, w in sizes)

    return {
        "trt_profile_min_shapes": shapes("minimum", 0),
        "trt_profile_opt_shapes": shapes("optimum", 1),
        "trt_profile_max_shapes": shapes("maximum", 2),
    }


def plugin_libraries() -> tuple[Path, ...]:
    """Libraries of TensorRT plugins that ``SRDEPLOY_ORT_PLUGINS`` lists, as PATH lists folders.

    Raises:
        TargetUnavailable: One is not there.
    """
    listed = os.environ.get(PLUGINS_VARIABLE, "")
    paths = tuple(Path(name).absolute() for name in listed.split(os.pathsep) if name)
    if absent := [str(path) for path in paths if not path.is_file()]:
        raise TargetUnavailable(
            f"there is no plugin library {', '.join(absent)}",
            f"correct the environment variable {PLUGINS_VARIABLE}",
        )
    return paths


def engine_cache(config: BuildConfig, gpu: Gpu, tensorrt: str) -> Path:
    """Folder of what TensorRT's provider makes of a graph on a GPU, created if it is missing.

    Its name is a digest of all that decides what is made, as the provider itself looks at the
    graph and the compute capability only.

    Args:
        config: What is built; its ``gpu`` does not count.
        gpu: What runs.
        tensorrt: Version of TensorRT that is loaded.

    Raises:
        OutputError: The folder cannot be made.
    """
    digest = hashlib.sha256(dataclasses.replace(config, gpu=gpu).digest().encode())
    digest.update(tensorrt.encode())
    for path in plugin_libraries():
        digest.update(path.read_bytes())
    machine = hashlib.sha256(f"{gpu}, TensorRT {tensorrt}".encode()).hexdigest()[:12]
    folder = cache_folder() / "onnxruntime-tensorrt" / machine
    try:
        for path in (folder / digest.hexdigest()[:32], folder / "timing"):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"the engine cache {folder} cannot be made: {exc.strerror}",
            "SRDEPLOY_CACHE names another folder",
        ) from exc
    return folder / digest.hexdigest()[:32]
