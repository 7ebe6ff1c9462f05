"""The engine store: every build once, under the digest of all that decides what it becomes.

An entry is a folder named by :meth:`~srdeploy.spec.BuildConfig.digest`. It is written beside its
place and renamed into it, under a lock that a killed process gives back, and nothing of it is
believed unread: docs/engines.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import math
import os
import time
from pathlib import Path

from ..errors import BuildError, EngineError, OutputError, SrDeployError
from ..files import cache_folder
from ..spec import BuildConfig, Manifest, ModelSpec
from .store_entry import GRAPH, StoredEngine, read_entry, rewrite_manifest
from .store_lock import BuildLocks, Say
from .store_shelf import Shelf, StoreEntry
from .store_timing import TimingCaches
from .targets import BuiltEngine, Target

LIMIT = "SRDEPLOY_STORE_LIMIT"
DEFAULT_LIMIT_GIB = 8.0
GIB = 1 << 30


def store_limit() -> int:
    """Bytes that the store may take: ``SRDEPLOY_STORE_LIMIT`` in GiB, 8 without it.

    Raises:
        SrDeployError: It is no such number.
    """
    text = os.environ.get(LIMIT) or str(DEFAULT_LIMIT_GIB)
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 <= gib < math.inf:
        raise SrDeployError(
            f"{LIMIT} is '{text}', expected a number of GiB",
            f"unset it for {DEFAULT_LIMIT_GIB:g} GiB; 0 builds every engine anew and keeps none",
        )
    return int(gib * GIB)


class EngineStore:
    """Engines that were built, least recently used ones removed beyond a size.

    Several processes may use it at once. Where its folder cannot be written it gives what it has,
    and builds are delivered all the same.

    Args:
        folder: Where it is; None for ``engines`` in the cache folder.
        limit_bytes: Most that the entries take together; None for :func:`store_limit`. With 0
            :meth:`obtain` always builds.

    Raises:
        SrDeployError: ``SRDEPLOY_STORE_LIMIT`` is no number.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = cache_folder() / "engines" if folder is None else folder
        self.limit_bytes = store_limit() if limit_bytes is None else limit_bytes
        self._locks = BuildLocks(self.folder / "locks")
        self._timing = TimingCaches(self.folder / "timing")
        self._shelf = Shelf(self.folder, self._locks)

    def obtain(
        self,
        target: Target,
        graph: bytes,
        config: BuildConfig,
        spec: ModelSpec,
        say: Say,
        int8_mac_share: float = 0.0,
        calibration_pictures: tuple[str, ...] = (),
    ) -> BuiltEngine:
        """Take an engine from the store, or build it and keep it.

        Who asks for what another process is building waits for it and takes its result.

        Args:
            target: What builds.
            graph: Serialised ONNX, of the digest ``config.graph_sha256``.
            config: All that decides what the engine becomes, settled.
            spec: The network.
            say: Takes lines for the user.
            int8_mac_share: For the manifest.
            calibration_pictures: For the manifest.

        Raises:
            BuildError: The target refuses the graph or an option, or this is another graph.
        """
        if hashlib.sha256(graph).hexdigest() != config.graph_sha256:
            raise BuildError("the graph to build from is another one than the build input says")
        if not self.limit_bytes:
            return _build(target, graph, config, say)
        digest = config.digest()
        with self._locks.held(digest, say) as why_not:
            kept = self._read(digest, say)
            if kept is not None and not kept.imported:
                say(f"{target.name}: {config.precision} engine {digest[:12]} taken from the store")
                self._shelf.touch(digest)
                layers = target.layers_of(kept.log, graph)
                facts = kept.manifest
                return BuiltEngine(kept.content, facts.device, facts.notes, kept.log, layers)
            built = _build(target, graph, config, say)
            manifest = Manifest(
                build=config,
                model=spec,
                engine_sha256=hashlib.sha256(built.content).hexdigest(),
                engine_file=f"{spec.variant}_{config.precision}{target.suffix}",
                device=built.device,
                int8_mac_share=int8_mac_share,
                notes=built.notes,
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                calibration_pictures=calibration_pictures,
            )
            self._keep(StoredEngine(built.content, manifest, graph, built.log), why_not, say)
        return built

    def get(self, digest: str) -> StoredEngine | None:
        """Read an entry, every byte checked, and count it as used; None where there is none.

        Raises:
            EngineError: It is damaged.
        """
        with self._locks.held(digest, _silent):
            if not self._shelf.holds(digest):
                return None
            stored = read_entry(self.folder / digest)
            self._shelf.touch(digest)
        return stored

    def add(self, stored: StoredEngine, say: Say) -> bool:
        """Keep an engine that somebody else built, unless that build is here already.

        It can be run and exported; :meth:`obtain` never takes it for a build of its own.

        Returns:
            Whether the store holds that build now.
        """
        digest = stored.manifest.build.digest()
        with self._locks.held(digest, say) as why_not:
            if self._read(digest, say) is not None:
                return True
            return self._keep(dataclasses.replace(stored, imported=True), why_not, say)

    def record(self, digest: str, manifest: Manifest) -> None:
        """Note what was measured of an entry: milliseconds and drift.

        Nothing happens where the entry is gone, damaged or another engine, or cannot be written.
        """
        with self._locks.held(digest, _silent) as why_not:
            if why_not or not self._shelf.holds(digest):
                return
            with contextlib.suppress(EngineError, OutputError):
                stored = read_entry(self.folder / digest)
                if stored.manifest.engine_sha256 != manifest.engine_sha256:
                    return
                measured = dataclasses.replace(
                    stored.manifest, milliseconds=manifest.milliseconds, drift=manifest.drift
                )
                renewed = dataclasses.replace(stored, manifest=measured)
                rewrite_manifest(self.folder / digest, renewed)

    def entries(self) -> tuple[StoreEntry, ...]:
        """What is here, the last used first; unchecked."""
        return self._shelf.entries()

    def graph_of(self, graph_sha256: str) -> bytes | None:
        """The graph of that digest that some entry was built from, or None."""
        for entry in self.entries():
            if entry.manifest is None or entry.manifest.build.graph_sha256 != graph_sha256:
                continue
            with contextlib.suppress(OSError):
                graph = (entry.folder / GRAPH).read_bytes()
                if hashlib.sha256(graph).hexdigest() == graph_sha256:
                    self._shelf.touch(entry.digest)
                    return graph
        return None

    def verify(self, say: Say, repair: bool = False) -> dict[str, str]:
        """Check every byte of every entry.

        Args:
            say: Told where an entry has to be waited for.
            repair: Whether damaged entries are removed.

        Returns:
            What is wrong, by digest.
        """
        damaged = {}
        for entry in self.entries():
            with self._locks.held(entry.digest, say):
                if not self._shelf.holds(entry.digest):
                    continue
                try:
                    read_entry(entry.folder)
                except EngineError as exc:
                    damaged[entry.digest] = exc.message
                    if repair:
                        self._shelf.drop(entry.digest)
        return damaged

    def prune(
        self, limit_bytes: int | None = None, older_seconds: float | None = None
    ) -> tuple[StoreEntry, ...]:
        """Remove what was not used for long, then the least recently used ones beyond a size.

        What killed processes left goes too. Entries that another process is at work on stay.

        Args:
            limit_bytes: Most that is to be left; None for the store's own limit.
            older_seconds: Age from which unused entries and timing caches go; None for any.

        Returns:
            The entries that were removed.
        """
        self._shelf.sweep()
        removed = []
        if older_seconds is not None:
            self._timing.prune(older_seconds)
            since = time.time() - older_seconds
            removed += [e for e in self.entries() if e.used < since and self._shelf.evict(e)]
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        return (*removed, *self._shelf.shrink(limit))

    def read_timing_cache(self, key: str) -> bytes | None:
        """The builder's timing cache that was kept last, or None."""
        return self._timing.read(key)

    def write_timing_cache(self, key: str, content: bytes) -> None:
        """Keep a builder's timing cache, if there is a place to write it."""
        self._timing.write(key, content)

    def _read(self, digest: str, say: Say) -> StoredEngine | None:
        """A whole entry; says of a damaged one that it is."""
        if not self._shelf.holds(digest):
            return None
        try:
            return read_entry(self.folder / digest)
        except EngineError as exc:
            say(f"note: the store's engine {digest[:12]} is damaged and not used: {exc.message}")
            return None

    def _keep(self, stored: StoredEngine, why_not: str, say: Say) -> bool:
        """Write an entry whose lock is held, then make room; says so where that fails."""
        size = sum(map(len, stored.files().values()))
        if size > self.limit_bytes:
            why_not = f"its {size / GIB:.3f} GiB are more than {LIMIT} allows"
        if not why_not:
            self._shelf.sweep()
            try:
                self._shelf.write(stored)
            except OSError as exc:
                why_not = exc.strerror or str(exc)
        if why_not:
            say(f"note: the engine is not kept in the store {self.folder}: {why_not}")
            return False
        self._shelf.shrink(self.limit_bytes)
        return True


def _silent(_line: str) -> None:
    """Say nothing."""


def _build(target: Target, graph: bytes, config: BuildConfig, say: Say) -> BuiltEngine:
    started = time.perf_counter()
    built = target.build(graph, config)
    say(f"{target.name}: {config.precision} engine built in {time.perf_counter() - started:.1f} s")
    return built
