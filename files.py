"""Files: digests, writing a file whole or not at all, and where the cache is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import OutputError


def cache_folder() -> Path:
    """``SRDEPLOY_CACHE``, or srdeploy's place among the user's caches."""
    if chosen := os.environ.get("SRDEPLOY_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "srdeploy"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "srdeploy"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "srdeploy"


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write one file; see :func:`write_files`."""
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write files under temporary names beside them, then give them their own, in order.

    Raises:
        OutputError: A folder is missing or read-only, or the disk is full; what was at the
            paths before is untouched.
    """
    partials = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in contents}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            partials[path].write_bytes(content)
        for path, partial in partials.items():
            partial.replace(path)
    except OSError as exc:
        raise OutputError(f"{path} could not be written: {exc.strerror or exc}") from exc
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):  # where the folder itself is missing or unreadable
                partial.unlink(missing_ok=True)
