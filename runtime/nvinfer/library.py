"""What the members of the TensorRT family have and lack: the one table of differences."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distributions
from types import ModuleType
from typing import Any

from ...errors import BuildError
from ...spec import BuildConfig, Compatibility


@dataclass(frozen=True)
class Traits:
    """One row of the table, found by looking into the bindings and by building with them.

    Attributes:
        name: For people.
        always_typed: Whether networks are strongly typed without being asked.
        ahead_of_time: Whether it builds for compute capabilities that are named, without a GPU;
            otherwise it builds on the GPU that runs the engine.
        plugins: Whether nodes may become plugins; TensorRT-RTX aborts on a registered one.
        times_kernels: Whether the builder times kernels, so that a timing cache helps.
        version_compatible: Whether it builds engines that later versions run.
        strips_weights: Whether it builds engines without weights.
        runtime_cache: Whether kernels are compiled when the engine runs, and kept in a cache.
    """

    name: str
    always_typed: bool
    ahead_of_time: bool
    plugins: bool
    times_kernels: bool
    version_compatible: bool
    strips_weights: bool
    runtime_cache: bool


TENSORRT_10 = Traits("TensorRT", False, False, True, True, True, True, False)
TENSORRT_11 = Traits("TensorRT", True, False, True, True, True, True, False)
# Without a GPU it fails to strip weights ("CHECK(status == CUDA_SUCCESS)"), and its wheel has no
# libnvinfer_lean, which version-compatible engines carry (1.7.1, tried).
TENSORRT_RTX = Traits("TensorRT-RTX", True, True, False, False, False, False, True)


@dataclass(frozen=True)
class Library:
    """A module of bindings with its row of the table.

    Attributes:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        traits: What it has and lacks.
    """

    trt: ModuleType
    traits: Traits

    @property
    def version(self) -> str:
        """Such as ``11.4.0.106``."""
        return str(self.trt.__version__)

    @property
    def cuda(self) -> str:
        """Least version of CUDA that the driver must speak; empty where pip does not know."""
        package = self.trt.__name__.partition(".")[0]
        known = {d.name.lower().replace("-", "_") for d in distributions() if d.name}
        for major in ("13", "12"):
            if f"{package}_cu{major}_bindings" in known or f"{package}_cu{major}" in known:
                return f"{major}.0"
        return ""

    def __str__(self) -> str:
        return f"{self.traits.name} {self.version}"

    def network_flags(self, with_plugins: bool) -> int:
        """Flags of a strongly typed network."""
        flags = self.trt.NetworkDefinitionCreationFlag
        chosen: list[Any] = []
        if not self.traits.always_typed:
            chosen.append(flags.STRONGLY_TYPED)
        if with_plugins:
            chosen.append(flags.PREFER_AOT_PYTHON_PLUGINS)
        return sum(1 << int(flag) for flag in chosen)

    def check_options(self, config: BuildConfig) -> None:
        """Refuse what this member of the family lacks.

        Raises:
            BuildError: An option is one of these.
        """
        traits, options = self.traits, config.tensorrt
        if config.capabilities and not traits.ahead_of_time:
            raise BuildError(
                f"{self} builds for the GPU that is here, not for --cc or --for",
                "--compat same-cc or --compat ampere+ makes an engine that other GPUs run;"
                " --target tensorrt-rtx builds for GPUs by name",
            )
        if options.compatibility is not Compatibility.SAME_GPU and traits.ahead_of_time:
            raise BuildError(
                f"{self} takes no --compat",
                "name the GPUs with --for rtx30,rtx40,rtx50 or --cc",
            )
        if options.version_compatible and not traits.version_compatible:
            raise BuildError(
                f"{self} does not build engines that other versions run",
                "leave --version-compatible out, or use --target tensorrt",
            )
        if options.stripped and not traits.strips_weights:
            raise BuildError(
                f"{self} does not build engines without weights",
                "leave --strip-weights out, or use --target tensorrt",
            )


def library_of(trt: ModuleType) -> Library:
    """The row of the table for bindings.

    Raises:
        ImportError: They are of a version that srdeploy was never checked against.
    """
    if trt.__name__.startswith("tensorrt_rtx"):
        return Library(trt, TENSORRT_RTX)
    major = str(trt.__version__).partition(".")[0]
    known = {"10": TENSORRT_10, "11": TENSORRT_11}
    if major not in known:
        raise ImportError(f"TensorRT {trt.__version__} is here, srdeploy knows 10 and 11")
    return Library(trt, known[major])
