"""What the store and bundles keep of a build, as files, and the checks before any is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineError
from ..files import write_files
from ..spec import Manifest, dump
from .engine import parse_manifest

ENGINE = "engine"
MANIFEST = "engine.json"
GRAPH = "graph.onnx"
LOG = "build.log"
IMPORTED = "imported"
"""Empty; there where the engine was not built by this store's srdeploy."""
SUMS = "SHA256SUMS"
"""As ``sha256sum -c`` takes it."""
CONTENTS = (ENGINE, MANIFEST, GRAPH, LOG, IMPORTED)


@dataclass(frozen=True)
class StoredEngine:
    """An engine with what it was built from.

    Attributes:
        content: Bytes of the engine file.
        manifest: Its manifest.
        graph: The serialised ONNX that the target got.
        log: What the builder said.
        imported: Whether somebody else built it.
    """

    content: bytes
    manifest: Manifest
    graph: bytes
    log: str = ""
    imported: bool = False

    def files(self) -> dict[str, bytes]:
        """Its parts by name."""
        parts = {
            ENGINE: self.content,
            MANIFEST: dump(self.manifest, indent=1).encode(),
            GRAPH: self.graph,
        }
        if self.log:
            parts[LOG] = self.log.encode(errors="replace")
        if self.imported:
            parts[IMPORTED] = b""
        return parts

    @classmethod
    def of(cls, parts: Mapping[str, bytes], where: str) -> StoredEngine:
        """Put parts together that nobody vouches for.

        Args:
            parts: By name.
            where: What errors call the place that they are from.

        Raises:
            EngineError: One is missing, or is not what the manifest says.
        """
        if missing := [name for name in (ENGINE, MANIFEST, GRAPH) if name not in parts]:
            raise EngineError(f"{where} holds no {' and no '.join(missing)}")
        manifest = parse_manifest(parts[MANIFEST], f"{MANIFEST} of {where}")
        expected = {ENGINE: manifest.engine_sha256, GRAPH: manifest.build.graph_sha256}
        for name, sha256 in expected.items():
            found = hashlib.sha256(parts[name]).hexdigest()
            if found != sha256:
                raise EngineError(
                    f"{name} of {where} is not the one of its manifest"
                    f" (SHA-256 {found[:12]}…, expected {sha256[:12]}…)"
                )
        log = parts.get(LOG, b"").decode(errors="replace")
        return cls(parts[ENGINE], manifest, parts[GRAPH], log, IMPORTED in parts)


def _sums(parts: Mapping[str, bytes]) -> bytes:
    lines = (f"{hashlib.sha256(parts[n]).hexdigest()}  {n}\n" for n in CONTENTS if n in parts)
    return "".join(lines).encode()


def write_entry(folder: Path, stored: StoredEngine) -> None:
    """Write an entry's files into an empty folder.

    Raises:
        OSError: A file could not be written.
    """
    parts = stored.files()
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    (folder / SUMS).write_bytes(_sums(parts))


def rewrite_manifest(folder: Path, stored: StoredEngine) -> None:
    """Put the manifest of ``stored`` in the place of the one that an entry has.

    Between the two renames the entry reads as damaged, which costs a build at worst.

    Raises:
        OutputError: A file could not be written.
    """
    for partial in folder.glob(".*.partial"):  # of who was killed here
        partial.unlink(missing_ok=True)
    parts = stored.files()
    write_files({folder / SUMS: _sums(parts), folder / MANIFEST: parts[MANIFEST]})


def read_entry(folder: Path) -> StoredEngine:
    """Read an entry, every byte checked.

    Raises:
        EngineError: It is damaged: a file was changed, cut short, or is of another entry.
    """
    where = f"the entry {folder.name[:12]}"
    try:
        parts = {n: (folder / n).read_bytes() for n in CONTENTS if (folder / n).is_file()}
        written = (folder / SUMS).read_bytes()
    except OSError as exc:
        raise EngineError(f"{where} cannot be read: {exc.strerror or exc}") from exc
    stored = StoredEngine.of(parts, where)
    if written != _sums(parts):
        raise EngineError(f"{where} holds other files than {SUMS} says")
    if stored.manifest.build.digest() != folder.name:
        raise EngineError(f"{where} holds the manifest of another one")
    return stored
