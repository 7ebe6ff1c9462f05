"""Which engine a run takes: the one named, the fastest here, or one that is made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EngineError, TargetUnavailable
from ..files import digest_file
from ..runtime import video
from ..runtime.engine import read_manifest, why_stale
from ..runtime.processes import ProcessSession
from ..runtime.session import Session
from ..runtime.targets import open_target
from ..runtime.tiling import TiledSession
from ..spec import Manifest
from . import Say
from .build_engine import BuildOptions, build_engine
from .newest import engine_to_run, newest_engine, newest_model
from .opening import is_bundle, manifest_of, open_or_rebuild
from .source_model import make_model
from .while_building import built_meanwhile, quick_engine

GPU_PROVIDERS = frozenset({"cuda", "tensorrt"})


@dataclass(frozen=True)
class EngineChoice:
    """Which engine upscales, and where.

    Attributes:
        engine: The file; None for the fastest here, built if there is none.
        devices: Indices of GPUs, one process each; empty for the first.
        while_building: Whether to start on a quick engine where the one to use must be built.
        resume: Whether a video goes on from the finished parts of an earlier run.
        build: How that is built.
    """

    engine: Path | None = None
    devices: tuple[int, ...] = ()
    while_building: bool = False
    resume: bool = False
    build: BuildOptions = field(default_factory=BuildOptions)


def find_or_build(engine: Path | None, say: Say) -> Path:
    """The engine that was named, else the best here, else one made with all that is missing.

    Raises:
        SrDeployError: Nothing can be found or made.
    """
    path, why = (engine, "") if engine else engine_to_run(Path())
    if path is None:
        if (other := newest_engine(Path(), runnable=False)) is not None:
            say(f"{other} is here, but this machine cannot run it")
        model = newest_model(Path()) or make_model(say)
        say(f"building an engine from {model} …")
        path = build_engine(model, BuildOptions(), None, say).path
        say(f"wrote {path}")
    elif why:
        say(f"using {path}, {why}")
    return path


def open_on(
    path: Path, devices: Sequence[int], parallel: int, say: Say
) -> tuple[Session, Manifest]:
    """Open an engine or a bundle on the GPUs that were asked for.

    Raises:
        EngineError: It runs on the CPU, or cannot be opened on one of them.
    """
    if not devices:
        return open_or_rebuild(path, say, parallel)
    manifest = manifest_of(path)
    build = manifest.build
    if not (open_target(build.target).uses_profiles or build.provider in GPU_PROVIDERS):
        raise EngineError(
            f"{path} runs on the CPU ({build.target}), --devices chooses among GPUs",
            "leave --devices out: one process uses all cores; or build for a GPU",
        )
    if len(devices) == 1:
        return open_or_rebuild(path, say, parallel, devices[0])
    if is_bundle(path):
        raise EngineError(
            f"{path} is a bundle, several GPUs need the engine as a file",
            f"srdeploy engines import {path} -o ENGINE writes it",
        )
    return ProcessSession(path, devices, parallel), manifest


@contextmanager
def opened(
    choice: EngineChoice, options: video.VideoOptions, parallel: int, say: Say
) -> Iterator[tuple[Session, video.VideoOptions]]:
    """The engine, and the options with what they take from it: halo, digest.

    Raises:
        SrDeployError: Nothing can be opened or made.
    """
    model = _to_build(choice, say) if choice.while_building else None
    if model is None:
        session, manifest = open_on(
            find_or_build(choice.engine, say), choice.devices, parallel, say
        )
        if choice.resume:
            options = dataclasses.replace(options, resume=manifest.engine_sha256)
        with session:
            yield session, _with_halo(options, manifest, say)
        return

    def tiled(session: Session, manifest: Manifest) -> Session:
        # inside the session that changes engines, so that all tiles of a frame are of one
        cut = _with_halo(options, manifest, say)
        return session if cut.tile is None else TiledSession(session, cut.tile, cut.halo)

    say(f"starting on a quick engine of {model} while a better one is built …")
    session, manifest = quick_engine(model)
    with built_meanwhile(
        tiled(session, manifest), model, choice.build, parallel, tiled, say
    ) as changing:
        yield changing, dataclasses.replace(options, tile=None)


def _to_build(choice: EngineChoice, say: Say) -> Path | None:
    """What to build an engine of while the run has begun; None where there is one to use.

    Raises:
        SrDeployError: There is no ONNX, or --devices or --resume is given.
    """
    if choice.resume:
        raise EngineError(
            "--while-building changes the engine and does not go with --resume",
            "build the engine first: srdeploy build-engine",
        )
    if choice.devices:
        raise EngineError(
            "--while-building starts on the CPU and does not go with --devices",
            "build the engine first: srdeploy build-engine",
        )
    path, model = choice.engine, newest_model(Path())
    if path is not None and (reason := _unusable(path)):
        say(f"{reason}: it is built again")
        path = None
    elif path is None:
        path, _ = engine_to_run(Path())
        if path and model and path.stat().st_mtime_ns < model.stat().st_mtime_ns:
            built = read_manifest(path)
            if built.build.onnx_sha256 != digest_file(model):
                say(f"{path} is not of {model}, which is newer")
                path = None
        if path and (reason := _unusable(path)):
            say(f"{reason}: it is built again")
            path = None
    return None if path else model or make_model(say)


def _unusable(path: Path) -> str:
    """Why an engine was built for another machine or version; empty where it was not.

    Raises:
        EngineError: It is missing or damaged.
    """
    try:
        reason = why_stale(manifest_of(path).build)
    except TargetUnavailable as exc:
        return exc.message
    return f"{path} {reason}" if reason else ""


def _with_halo(options: video.VideoOptions, manifest: Manifest, say: Say) -> video.VideoOptions:
    """Give tiles the halo that makes them exact, or say that nothing does.

    Raises:
        EngineError: The tile has no core between halos of that size.
    """
    if options.tile is None:
        return options
    radius = manifest.model.receptive_radius
    if manifest.model.global_operation:
        say(f"note: {manifest.model.variant} sees the whole frame at once: tiles change the result")
        return options
    if options.tile <= 2 * radius:
        raise EngineError(
            f"a tile of {options.tile} pixels has no core between halos of {radius}, the"
            f" receptive radius of {manifest.model.variant}",
            f"--tile {8 * radius} wastes little; {2 * radius + 1} is the least",
        )
    return dataclasses.replace(options, halo=radius)
