"""Engines for a benchmark: built cold, taken again from the engine store, opened and described."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ..export.macs import int8_mac_share
from ..runtime.execution_providers import PROVIDERS
from ..runtime.nvinfer.target import NvinferTarget
from ..runtime.session import Session
from ..runtime.store import EngineStore
from ..runtime.targets import BuiltEngine, Target, open_target
from ..spec import BuildConfig, Manifest, ModelSpec, Precision, ShapeRange, TensorRtOptions
from .recording import NotRun

_MOST_NAMED = 20


@dataclass(frozen=True)
class Engine:
    """An engine with all that it was made from.

    Attributes:
        target: What built it.
        built: What the target told of the build.
        manifest: As an engine file has one, nothing measured.
        graph: What the target got.
        seconds: Of the build, and of taking the same engine from the store.
    """

    target: Target
    built: BuiltEngine
    manifest: Manifest
    graph: onnx.ModelProto
    seconds: tuple[float, float]

    def open(self, parallel: int = 1) -> Session:
        """Open it.

        Raises:
            TargetUnavailable: It cannot run on this machine.
            EngineError: The library refuses it.
        """
        return self.target.open(self.built.content, self.manifest, parallel)

    def open_lane(self, graphs: bool) -> Session:
        """Open it with one lane, which launches frames as a CUDA graph or one by one.

        Raises:
            NotRun: The target has no lanes.
            TargetUnavailable: It cannot run on this machine.
        """
        if not isinstance(self.target, NvinferTarget):
            raise NotRun(f"the target {self.target.name} has no CUDA graphs")
        return self.target.open_lanes(self.built.content, self.manifest, graphs=graphs)

    def describe(self) -> dict[str, Any]:
        """The build's figures and notes."""
        cold, again = self.seconds
        return {
            "seconds": {"cold": cold, "from_store": again},
            "bytes": len(self.built.content),
            "device": self.built.device,
            "rest": self.manifest.build.rest,
            "int8_mac_share": self.manifest.int8_mac_share,
            "plugins": list(self.manifest.build.plugins),
            "notes": list(self.built.notes),
        }

    def layers(self) -> dict[str, Any]:
        """Precisions that the graph asks for, against those of the layers that were built.

        Raises:
            NotRun: The target does not tell.
        """
        nodes = self.built.layers.nodes
        if not self.built.layers.layers:
            raise NotRun(f"the target {self.target.name} does not tell how its layers were built")
        counts = Counter((node.asked, node.built or "unknown") for node in nodes)
        differing = [n for n in nodes if n.differs]
        return {
            "layers": len(self.built.layers.layers),
            "counts": [{"asked": a, "built": b, "nodes": n} for (a, b), n in counts.items()],
            "differing": [[n.node, n.asked, n.built] for n in differing[:_MOST_NAMED]],
        }


@dataclass(frozen=True)
class Backend:
    """What builds engines in a benchmark.

    Attributes:
        target: Of the registry, on its provider.
        provider: Of ONNX Runtime; empty for other targets.
        store: An engine store that was empty, so that the first build is a build.
    """

    target: Target
    provider: str
    store: EngineStore

    @classmethod
    def named(cls, name: str, store: EngineStore) -> Backend:
        """A target by its id, ``tensorrt``, or with a provider, ``onnxruntime:cuda``.

        Raises:
            TargetUnavailable: It cannot be used here.
        """
        target, _, provider = name.partition(":")
        return cls(open_target(target).with_provider(provider), provider, store)

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``, as PyTorch says it."""
        on_gpu = isinstance(self.target, NvinferTarget) or self.provider in PROVIDERS
        return "cuda" if on_gpu else "cpu"

    def build(
        self,
        graph: onnx.ModelProto,
        spec: ModelSpec,
        precision: Precision,
        rest: Precision,
        profiles: Sequence[ShapeRange],
        options: TensorRtOptions | None = None,
    ) -> Engine:
        """Build a graph, then take the engine from the store.

        Args:
            graph: Uint8 in and out, in ``precision``.
            spec: Of the network.
            precision: Of the engine.
            rest: Of what an int8 engine does not compute in int8.
            profiles: Sizes that it takes.
            options: Of TensorRT.

        Raises:
            NotRun: The target builds no such precision.
            BuildError: The target refuses the graph.
        """
        target = self.target
        if precision not in target.precisions:
            raise NotRun(f"the target {target.name} builds no {precision}")
        content = graph.SerializeToString()
        config = BuildConfig(
            onnx_sha256="",
            target=target.name,
            target_version=target.version(),
            precision=precision,
            rest=rest,
            profiles=tuple(profiles),
            graph_sha256=hashlib.sha256(content).hexdigest(),
            provider=self.provider,
            tensorrt=options or TensorRtOptions(),
        )
        config = target.settle(config, content)
        built, cold = self._obtain(content, config, spec)
        _, again = self._obtain(content, config, spec)
        manifest = Manifest(
            build=config,
            model=spec,
            engine_sha256=hashlib.sha256(built.content).hexdigest(),
            engine_file=f"{spec.variant}_{precision}{target.suffix}",
            device=built.device,
            int8_mac_share=int8_mac_share(graph),
        )
        return Engine(target, built, manifest, graph, (cold, again))

    def _obtain(
        self, content: bytes, config: BuildConfig, spec: ModelSpec
    ) -> tuple[BuiltEngine, float]:
        started = time.perf_counter()
        built = self.store.obtain(self.target, content, config, spec, lambda _line: None)
        return built, time.perf_counter() - started
