"""Executes the graph of an engine that this machine cannot run, in a target that it can.

What is measured so is marked: it is the graph's quality, not what the engine's kernels make of it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..errors import TargetUnavailable
from ..runtime.bundle import read_bundle
from ..runtime.fitting import FittingSession
from ..runtime.session import Session
from ..runtime.store import EngineStore
from ..runtime.targets import Target, open_target, target_names
from ..spec import BuildConfig, Manifest, Precision
from . import Say
from .opening import is_bundle, manifest_of, open_or_rebuild


def stand_in_of(build: BuildConfig) -> Target | None:
    """A target that executes the graph of an engine which cannot run on this machine."""
    for name in target_names():
        try:
            target = open_target(name)
        except TargetUnavailable:
            continue
        if target.runs_here() is None and {build.precision, build.rest} <= target.precisions:
            return target
    return None


def left_out(stand_in: Target, build: BuildConfig) -> tuple[str, ...]:
    """What the figures of a graph lack that is executed in another target, one sentence each."""
    if Precision.FP16 not in (build.precision, build.rest) or stand_in.computes_fp16():
        return ()
    return (
        f"{stand_in.name} computes fp16 in float32: of fp16, only the rounding of the weights is"
        " in these figures",
    )


def open_graph(stand_in: Target, graph: bytes, manifest: Manifest) -> Session:
    """Open the graph of an engine in another target.

    Raises:
        SrDeployError: That target refuses it.
    """
    same = stand_in.build(graph, dataclasses.replace(manifest.build, capabilities=()))
    return stand_in.open(same.content, manifest)


def open_or_stand_in(engine: Path, say: Say) -> tuple[Session, Manifest, tuple[str, ...]]:
    """Open an engine or a bundle; where it cannot run here, its graph in a target that can.

    Args:
        engine: An engine, its manifest beside it, or a bundle.
        say: Takes lines for the user.

    Returns:
        The session, the manifest, and what figures of it lack, one sentence each.

    Raises:
        EngineError: It is missing or damaged.
        TargetUnavailable: It cannot run here, and its graph is not in the store, or no target
            here executes it.
    """
    try:
        return *open_or_rebuild(engine, say), ()
    except TargetUnavailable as exc:
        manifest = manifest_of(engine)
        stand_in, graph = stand_in_of(manifest.build), _graph_of(engine, manifest)
        if stand_in is None:
            raise
        if graph is None:
            raise TargetUnavailable(
                f"{engine} cannot run here: {exc.message}; and its graph, which other targets"
                " could execute, is not in the engine store",
                "build the engine on this machine, or bring it as a bundle: srdeploy engines"
                " export; --onnx FILE alone measures the ONNX",
            ) from exc
        say(f"{engine} cannot run here: {exc.message}")
        say(f"measuring its graph in {stand_in.name}: not the engine itself")
        session = FittingSession(open_graph(stand_in, graph, manifest), manifest)
        return session, manifest, left_out(stand_in, manifest.build)


def _graph_of(engine: Path, manifest: Manifest) -> bytes | None:
    if is_bundle(engine):
        return read_bundle(engine).graph
    return EngineStore().graph_of(manifest.build.graph_sha256)
