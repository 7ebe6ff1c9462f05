"""Opens engines and bundles; what does not fit this machine is rebuilt from its graph."""

from __future__ import annotations

from pathlib import Path

from ..errors import StaleEngine
from ..runtime.bundle import SUFFIX, read_bundle
from ..runtime.engine import open_checked, open_engine, read_manifest, why_stale
from ..runtime.session import Session
from ..runtime.store import EngineStore
from ..runtime.store_entry import StoredEngine
from ..runtime.store_rebuild import NOT_MEASURED, rebuild
from ..spec import Manifest
from . import Say


def is_bundle(path: Path) -> bool:
    """Whether a file is a bundle, by its name."""
    return path.suffix == SUFFIX


def manifest_of(engine: Path) -> Manifest:
    """The manifest of an engine or a bundle.

    Raises:
        EngineError: It is missing or damaged.
    """
    return read_bundle(engine).manifest if is_bundle(engine) else read_manifest(engine)


def open_or_rebuild(
    engine: Path, say: Say, parallel: int = 1, device: int = 0
) -> tuple[Session, Manifest]:
    """Open an engine or a bundle; a stale one is rebuilt for this machine, its file left as it is.

    Args:
        engine: An engine, its manifest beside it, or a bundle.
        say: Takes lines for the user.
        parallel: Frames to keep in flight, see :meth:`Target.open`.
        device: Index of the GPU, for targets that run on one.

    Raises:
        EngineError: It is missing or damaged.
        StaleEngine: It was built for another machine, version or plugin, and the graph that it was
            built from is not in the store, or cannot be built here.
        TargetUnavailable: Its target cannot run here.
    """
    if is_bundle(engine):
        stored = fitting(engine, read_bundle(engine), EngineStore(), say, device)
        return _open(stored, parallel, device)
    try:
        return open_engine(engine, parallel, device)
    except StaleEngine as stale:
        manifest, store = read_manifest(engine), EngineStore()
        graph = store.graph_of(manifest.build.graph_sha256)
        if graph is None:
            raise StaleEngine(
                f"{stale.message}; the graph that it was built from is not in the store"
                f" {store.folder}",
                "build it again with srdeploy build-engine, or import a bundle of it",
            ) from stale
        return _open(_rebuilt(stale, manifest, graph, store, say, device), parallel, device)


def fitting(
    bundle: Path, stored: StoredEngine, store: EngineStore, say: Say, device: int = 0
) -> StoredEngine:
    """What is in a bundle, put into the store; rebuilt for this machine where it is stale.

    Raises:
        StaleEngine: It was built for another machine, version or plugin and cannot be built here.
        TargetUnavailable: Its target is not installed.
    """
    if reason := why_stale(stored.manifest.build, device):
        stale = StaleEngine(f"{bundle} {reason}")
        return _rebuilt(stale, stored.manifest, stored.graph, store, say, device)
    store.add(stored, say)
    return stored


def _rebuilt(
    stale: StaleEngine,
    manifest: Manifest,
    graph: bytes,
    store: EngineStore,
    say: Say,
    device: int,
) -> StoredEngine:
    say(f"{stale.message}: rebuilding it from its graph")
    try:
        made = rebuild(manifest, graph, store, say)
    except StaleEngine as exc:
        raise StaleEngine(f"{stale.message}; {exc.message}", exc.hint) from exc
    if device and (reason := why_stale(made.manifest.build, device)):
        raise StaleEngine(
            f"{stale.message}; rebuilt for the first GPU, it {reason}",
            f"CUDA_VISIBLE_DEVICES={device} srdeploy … builds and runs on GPU {device} alone",
        )
    digest = made.manifest.build.digest()[:12]
    if NOT_MEASURED in made.manifest.notes:
        say(f"note: {NOT_MEASURED}; srdeploy validate measures it")
    if any(entry.digest.startswith(digest) for entry in store.entries()):
        say(
            f"the rebuilt engine is in the store alone: srdeploy engines export {digest}"
            " --as-engine -o FILE writes it"
        )
    return made


def _open(stored: StoredEngine, parallel: int, device: int) -> tuple[Session, Manifest]:
    return open_checked(stored.content, stored.manifest, parallel, device), stored.manifest
