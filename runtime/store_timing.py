"""Timing caches of builders: what they measured on a device, kept from build to build."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from .store_lock import BuildLocks

DIGEST_BYTES = 32


class TimingCaches:
    """One file per key: the SHA-256 of what follows, then the builder's bytes.

    Args:
        folder: Where they are. The locks are not those of builds, as a builder holds one of these
            when it writes here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._locks = folder, BuildLocks(folder / "locks")

    def path(self, key: str) -> Path:
        """The file of a key such as ``"NVIDIA L4, TensorRT 10.16, CUDA 13.0"``."""
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def read(self, key: str) -> bytes | None:
        """What was kept last, or None where nothing was or it is damaged."""
        path = self.path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, kept = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(kept).digest() != digest:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return kept

    def write(self, key: str, content: bytes) -> None:
        """Keep a cache whole; without a place to write the next build measures again."""
        path = self.path(key)
        partial = path.with_name(f".{path.name}.partial")
        with self._locks.held(path.name, lambda _: None) as why_not, contextlib.suppress(OSError):
            if why_not:
                return
            try:
                partial.write_bytes(hashlib.sha256(content).digest() + content)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def prune(self, older_seconds: float) -> int:
        """Remove those not used for as long; returns the bytes that this freed."""
        freed = 0
        for path in self._folder.glob("*"):
            if path == self._locks.folder:
                continue
            with self._locks.free(path.name.strip(".")) as free, contextlib.suppress(OSError):
                found = path.stat()
                if free and found.st_mtime < time.time() - older_seconds:
                    path.unlink()
                    freed += found.st_size
        return freed
