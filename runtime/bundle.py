"""Bundles: an engine with its manifest, graph and log in one file, hostile until shown otherwise.

A ``.srbundle`` is a ZIP file of at most four members with fixed names, none compressed, so that it
cannot unpack to more than its own size. The same engine always gives the same bytes.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

from ..errors import EngineError
from .engine import LARGEST_MANIFEST
from .store_entry import ENGINE, GRAPH, LOG, MANIFEST, StoredEngine

SUFFIX = ".srbundle"
LARGEST_BUNDLE = 2**31 - 1
"""Bytes; below it no ZIP file needs the 64-bit records, which are refused."""
LARGEST_MEMBER = {
    ENGINE: LARGEST_BUNDLE,
    MANIFEST: LARGEST_MANIFEST,
    GRAPH: LARGEST_BUNDLE,
    LOG: 64 << 20,
}
HINT = "srdeploy engines export writes bundles; get this one again from where it was made"

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UTF8_NAME = 0x800
# Of the ZIP format (APPNOTE.TXT, 4.3.16): what ends a file, with the number of members and the
# size of their directory.
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_LARGEST_DIRECTORY = 4096
_ZIP64_LOCATOR_BYTES = 20
_ZIP64_SIGNATURE = b"PK\x06\x07"


def bundle_bytes(stored: StoredEngine) -> bytes:
    """An engine as a bundle.

    Raises:
        EngineError: It is too large for one.
    """
    parts = {n: c for n, c in stored.files().items() if n in LARGEST_MEMBER}
    too_large = [n for n, content in parts.items() if len(content) > LARGEST_MEMBER[n]]
    if too_large or sum(map(len, parts.values())) > LARGEST_BUNDLE - _LARGEST_DIRECTORY:
        raise EngineError("the engine is too large for a bundle of 2 GiB", "copy its files instead")
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as file:
        for name, content in parts.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # Unix, wherever it is written
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            file.writestr(member, content)
    return written.getvalue()


def read_bundle(path: Path) -> StoredEngine:
    """Read a bundle that nobody vouches for.

    Raises:
        EngineError: It is missing, damaged, larger or other than a bundle can be, or its parts are
            not what its manifest says.
    """
    try:
        with path.open("rb") as file:
            _check_end(path, file)
            with zipfile.ZipFile(file) as archive:
                parts = _members(path, archive)
    except EngineError:
        raise
    except OSError as exc:
        raise EngineError(f"{path} cannot be read: {exc.strerror or exc}", HINT) from exc
    except Exception as exc:  # of damaged files zipfile raises a dozen kinds
        raise EngineError(f"{path} is damaged: {exc}", HINT) from exc
    return StoredEngine.of(parts, str(path))


def _check_end(path: Path, file: io.BufferedReader) -> None:
    """Bound what zipfile reads when it opens the file: size, members and their directory."""
    size = file.seek(0, io.SEEK_END)
    if size > LARGEST_BUNDLE:
        raise EngineError(f"{path} is larger than 2 GiB, which no bundle is", HINT)
    length = min(size, _ZIP64_LOCATOR_BYTES + _END.size)
    file.seek(-length, io.SEEK_END)
    tail = file.read(length)
    if len(tail) < _END.size:
        raise EngineError(f"{path} is no bundle, or was cut short", HINT)
    signature, disk, first_disk, here, members, directory, _, comment = _END.unpack(
        tail[-_END.size :]
    )
    if signature != _END_SIGNATURE or comment:
        raise EngineError(f"{path} is no bundle, or was cut short", HINT)
    if (
        disk
        or first_disk
        or here != members
        or members > len(LARGEST_MEMBER)
        or directory > _LARGEST_DIRECTORY
        or tail.startswith(_ZIP64_SIGNATURE)
    ):
        raise EngineError(f"{path} is a ZIP file, but not one that srdeploy wrote", HINT)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    for member in archive.infolist():
        name = member.orig_filename
        if reason := _refusal(member, parts):
            raise EngineError(f"{path}: the member {name!r} {reason}", HINT)
        with archive.open(member) as file:
            content = file.read(member.file_size + 1)
        if len(content) != member.file_size:
            raise EngineError(f"{path}: the member {name!r} is not as long as it says", HINT)
        parts[name] = content
    return parts


def _refusal(member: zipfile.ZipInfo, seen: dict[str, bytes]) -> str:
    """Why a member is not read, or nothing."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    name = member.orig_filename
    if name not in LARGEST_MEMBER:
        return "has no place in a bundle"
    if name in seen:
        return "is there twice"
    if kind not in (0, stat.S_IFREG):
        return "is no plain file"
    if member.flag_bits & ~_UTF8_NAME:
        return "is encrypted or written in a way that bundles are not"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "is compressed, which no member of a bundle is"
    if member.file_size > LARGEST_MEMBER[name]:
        return f"is too large: {member.file_size} bytes"
    return ""
