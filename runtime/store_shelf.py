"""The folder of the engine store: entries are renamed into it and out of it, never half seen."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineError
from ..spec import Manifest
from .engine import parse_manifest
from .store_entry import MANIFEST, StoredEngine, write_entry
from .store_lock import BuildLocks

_ENTRY = re.compile(r"[0-9a-f]{64}")
_PARTIAL = re.compile(r"\.([0-9a-f]{64})(\.old)?\.partial")


@dataclass(frozen=True)
class StoreEntry:
    """A build that the store holds, as far as its folder says without being checked.

    Attributes:
        digest: Of its build input.
        folder: Where it is.
        size: Bytes of its files.
        used: When it was last made, taken or measured, in seconds of POSIX time.
        manifest: None where it cannot be read.
    """

    digest: str
    folder: Path
    size: int
    used: float
    manifest: Manifest | None


class Shelf:
    """The entries of a store.

    Args:
        folder: Where they are; it need not be there.
        locks: Those of the store.
    """

    def __init__(self, folder: Path, locks: BuildLocks) -> None:
        self.folder, self._locks = folder, locks

    def entries(self) -> tuple[StoreEntry, ...]:
        """What is here, the last used first; unchecked."""
        found = (_entry(path) for path in self._listed() if _ENTRY.fullmatch(path.name))
        return tuple(sorted((e for e in found if e), key=lambda e: (-e.used, e.digest)))

    def holds(self, digest: str) -> bool:
        """Whether there is an entry of that name."""
        return os.path.isdir(self.folder / digest)  # noqa: PTH112  unlike Path, it never raises

    def touch(self, digest: str) -> None:
        """Count an entry as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / digest)

    def write(self, stored: StoredEngine) -> None:
        """Write an entry, whose lock is held, in place of what is there.

        Raises:
            OSError: It could not be written; what was there before is as it was.
        """
        digest = stored.manifest.build.digest()
        partial = self.folder / f".{digest}.partial"
        try:
            _remove(partial)
            partial.mkdir(parents=True)
            write_entry(partial, stored)
            self.drop(digest)
            partial.rename(self.folder / digest)
        except OSError:
            _remove(partial)
            raise

    def drop(self, digest: str) -> None:
        """Remove an entry, whose lock is held: out of sight first, then file by file."""
        aside = self.folder / f".{digest}.old.partial"
        _remove(aside)
        with contextlib.suppress(OSError):
            (self.folder / digest).rename(aside)
        _remove(aside)

    def evict(self, entry: StoreEntry) -> bool:
        """Remove an entry unless another process is at work on it; whether it is gone."""
        with self._locks.free(entry.digest) as free:
            if free:
                self.drop(entry.digest)
            return free and not self.holds(entry.digest)

    def shrink(self, limit_bytes: int) -> list[StoreEntry]:
        """Remove the least recently used entries beyond a size, but none whose lock is held."""
        entries = self.entries()
        total, removed = sum(entry.size for entry in entries), []
        for entry in reversed(entries):
            if total > limit_bytes and self.evict(entry):
                total -= entry.size
                removed.append(entry)
        return removed

    def sweep(self) -> None:
        """Remove what was half written or half removed by processes that are gone."""
        for path in self._listed():
            if found := _PARTIAL.fullmatch(path.name):
                with self._locks.free(found[1]) as free:
                    if free:
                        _remove(path)

    def _listed(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except OSError:
            return []


def _entry(folder: Path) -> StoreEntry | None:
    """None where it is gone, or was never a folder."""
    manifest = None
    try:
        if folder.is_symlink() or not folder.is_dir():
            return None
        used = folder.stat().st_mtime
        size = sum(path.stat().st_size for path in folder.iterdir())
        with contextlib.suppress(EngineError, OSError):
            manifest = parse_manifest((folder / MANIFEST).read_bytes(), folder.name[:12])
    except OSError:
        return None
    return StoreEntry(folder.name, folder, size, used, manifest)


def _remove(path: Path) -> None:
    """Remove a folder, or what stands in its place."""
    if path.is_symlink() or path.is_file():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
