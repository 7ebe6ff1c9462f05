"""Files: digests, and writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from .errors import OutputError


def digest_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, then give it its own.

    Raises:
        OutputError: The folder is missing or read-only, or the disk is full; what was at
            ``path`` before is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as exc:
        raise OutputError(
            f"{path} could not be written: {exc.strerror or exc}",
            "check that the folder exists, is writable and has space",
        ) from exc
    finally:
        with contextlib.suppress(OSError):  # where the folder itself is missing or unreadable
            partial.unlink(missing_ok=True)
