"""Rebuilding an engine for this machine from the graph that it was built from."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib

from ..errors import BuildError, EngineError, StaleEngine
from ..spec import Manifest
from .engine import why_stale
from .store import EngineStore
from .store_entry import StoredEngine
from .store_lock import Say
from .targets import open_target

NOT_MEASURED = "its drift was not measured on this machine"


def rebuild(manifest: Manifest, graph: bytes, store: EngineStore, say: Say) -> StoredEngine:
    """Build what a stale engine was built from, for this machine; from the store if it is there.

    Precision, Q/DQ and pixels are in the graph, so that neither torch nor calibration is needed.
    What was measured of the stale engine is not said of the new one.

    Args:
        manifest: Of the stale engine.
        graph: Of the digest ``manifest.build.graph_sha256``.
        store: Where the new engine is kept.
        say: Takes lines for the user.

    Raises:
        StaleEngine: It cannot be built here either.
        TargetUnavailable: Its target is not installed.
    """
    target = open_target(manifest.build.target)
    here = dataclasses.replace(
        manifest.build, target_version=target.version(), gpu=None, plugins=()
    )
    try:
        config = target.settle(here, graph)
        if reason := why_stale(config):
            raise StaleEngine(f"the engine {reason}")
        built = store.obtain(
            target,
            graph,
            config,
            manifest.model,
            say,
            manifest.int8_mac_share,
            manifest.calibration_pictures,
        )
    except BuildError as exc:
        raise StaleEngine(f"it cannot be rebuilt here: {exc.message}", exc.hint) from exc
    fresh = dataclasses.replace(
        manifest,
        build=config,
        engine_sha256=hashlib.sha256(built.content).hexdigest(),
        device=built.device,
        milliseconds=None,
        timed_on="",
        drift=(),
        kernel_difference=None,
        kernel_bound=None,
        kernel_groups=(),
        notes=built.notes,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    try:
        kept = store.get(config.digest())
    except EngineError:
        kept = None
    if kept and not kept.imported and kept.manifest.engine_sha256 == fresh.engine_sha256:
        fresh = kept.manifest  # with what build-engine measured of it, where it did
    return with_note(StoredEngine(built.content, fresh, graph, built.log))


def with_note(stored: StoredEngine) -> StoredEngine:
    """The same engine; where its drift is unknown, its manifest says so."""
    manifest = stored.manifest
    if manifest.drift or NOT_MEASURED in manifest.notes:
        return stored
    noted = dataclasses.replace(manifest, notes=(*manifest.notes, NOT_MEASURED))
    return dataclasses.replace(stored, manifest=noted)
