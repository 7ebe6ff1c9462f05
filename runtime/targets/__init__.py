"""The targets: one file per backend, found by listing this folder, imported when opened.

A file ``tensorrt_rtx.py`` is the target ``tensorrt-rtx`` and defines ``TARGET``.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ...errors import BuildError, TargetUnavailable
from ...installation import EXTRAS, ONNXRUNTIME, install, install_extra
from ...spec import BuildConfig, Manifest, Precision
from ..layers import LayerReport
from ..session import Session


@dataclass(frozen=True)
class BuiltEngine:
    """What a target makes of a graph.

    Attributes:
        content: Bytes of the engine file.
        device: What it was built on or for.
        notes: What was left out, one sentence each.
        log: What the builder said, verbose; empty where it says nothing.
        layers: As they were built; empty where the target does not tell.
    """

    content: bytes
    device: str
    notes: tuple[str, ...] = ()
    log: str = ""
    layers: LayerReport = field(default_factory=LayerReport)


class Target(ABC):
    """A backend that builds engines and, on fitting machines, runs them.

    The graph that :meth:`build` gets is the whole engine: uint8 N×H×W×3 in and out, and its
    precision written into it as tensor types, Casts and Q/DQ.

    Attributes:
        name: Id, equal to the file name with hyphens for underscores.
        suffix: Ending of its engine files.
        precisions: What it builds.
        uses_profiles: Whether its engines take no sizes but those of their profiles.
    """

    name: str
    suffix: str
    precisions: frozenset[Precision]
    uses_profiles: bool = False

    @abstractmethod
    def version(self) -> str:
        """Version of the backend's library."""

    @abstractmethod
    def runs_here(self) -> str | None:
        """None where engines of this target run on this machine, else the reason."""

    @abstractmethod
    def rest_precision(self) -> Precision:
        """Fastest safe type on this machine for what an int8 engine leaves in float."""

    def pairs_saturate(self) -> bool:
        """Whether int8 products of its engines are added in pairs of 16 bits on this machine."""
        return False

    def computes_fp16(self) -> bool:
        """Whether this machine rounds to fp16 what a graph says is fp16; else only its weights
        are, and nothing overflows that would."""
        return True

    def written_rest(self, config_rest: Precision) -> Precision:
        """Float type that an int8 graph is written in; another one only where a target lowers
        the float part itself because it cannot fuse Q/DQ in that type."""
        return config_rest

    def with_provider(self, provider: str) -> Target:
        """This target on an execution provider of its library; empty for its own choice.

        Raises:
            BuildError: It has no such provider.
            TargetUnavailable: The provider cannot run on this machine.
        """
        if provider:
            raise BuildError(
                f"the target {self.name} has no providers to choose from, got '{provider}'",
                "--provider goes with --target onnxruntime",
            )
        return self

    def check(self, config: BuildConfig) -> None:  # noqa: B027  most take any options
        """Refuse options that the target lacks, before any work is done for them.

        Args:
            config: What is asked for; what belongs to a graph is not in it yet.

        Raises:
            BuildError: There is one; it is named.
        """

    def settle(self, config: BuildConfig, graph: bytes) -> BuildConfig:
        """Fill in what of this machine decides what the engine becomes: GPU, plugins.

        Raises:
            BuildError: An option does not go on this machine.
        """
        return config

    def mismatch(self, build: BuildConfig, device: int = 0) -> str | None:
        """What keeps an engine from running here, or None: what it was built for, what is here.

        Found from the manifest alone, before anything looks into the engine.
        """
        if self.version() != build.target_version:
            return f"was built for {self.name} {build.target_version}, here is {self.version()}"
        return None

    def why_not_here(self, build: BuildConfig) -> str | None:
        """What keeps an engine of that build from running on this machine, or None."""
        return self.runs_here() or self.mismatch(build)

    @abstractmethod
    def build(self, graph: bytes, config: BuildConfig) -> BuiltEngine:
        """Build an engine from a serialised ONNX graph.

        Raises:
            BuildError: The backend refuses the graph or an option, with its own message.
        """

    def layers_of(self, log: str, graph: bytes) -> LayerReport:
        """Layers of an engine as its build log describes them, against the graph's precisions.

        Empty where the target does not tell.
        """
        return LayerReport()

    def layer_times(self, content: bytes, manifest: Manifest) -> dict[str, float]:
        """Median milliseconds of each layer of a frame of the optimum size.

        Empty where the target does not tell; for engines that run here.

        Raises:
            EngineError: The engine cannot be run.
        """
        return {}

    def open(
        self, content: bytes, manifest: Manifest, parallel: int = 1, device: int = 0
    ) -> Session:
        """Open an engine that was checked against its manifest.

        Args:
            content: The engine file.
            manifest: Its manifest.
            parallel: Frames that the caller is going to keep in flight; the session's own
                ``parallel`` says how many of them help. More than 1 trades the time of one
                frame for frames per second.
            device: Index of the GPU, for targets that run on one.

        Raises:
            TargetUnavailable: It cannot run on this machine.
            EngineError: The file is damaged.
        """
        session = self._open(content, manifest, parallel, device)
        session.minimum_size = manifest.model.minimum_size
        return session

    def open_plain(self, content: bytes, manifest: Manifest) -> Session | None:
        """An engine as a program of somebody else's opens it, with the default options of its
        library; None where :meth:`open` does just that."""
        return None

    @abstractmethod
    def _open(self, content: bytes, manifest: Manifest, parallel: int, device: int) -> Session:
        """What :meth:`open` does, by target."""


def target_names() -> tuple[str, ...]:
    """Ids of all targets, in alphabetical order."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


def open_target(name: str) -> Target:
    """Import a target by its id.

    Raises:
        TargetUnavailable: There is no such target, or its library is not installed.
    """
    if name not in target_names():
        raise TargetUnavailable(
            f"no target is called '{name}'", f"known ones: {', '.join(target_names())}"
        )
    file = name.replace("-", "_")
    try:
        module = importlib.import_module(f"{__name__}.{file}")
    except ImportError as exc:
        raise TargetUnavailable(
            f"the target {name} cannot be used: {exc}",
            f"{_install(name)}, or choose another --target",
        ) from exc
    target = module.TARGET
    if not isinstance(target, Target) or target.name != name:
        raise TargetUnavailable(f"runtime/targets/{file}.py does not define the target '{name}'")
    return target


def _install(name: str) -> str:
    """The command that adds what a target needs: its extra, or the package of the base install."""
    return install_extra(name) if name in EXTRAS else install(ONNXRUNTIME, again=True)
