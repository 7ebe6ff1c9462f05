"""Which shared libraries a library of a vendor needs, and which of them are not here.

pip puts NVIDIA's libraries where the loader does not look: ``nvidia/*/lib`` and
``tensorrt_libs`` beside other packages. What lies there is loaded by its path, after which the
loader finds it by its name. Linux only; elsewhere nothing is found to be missing.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from pathlib import Path

_PIP_FOLDERS = ("nvidia/*/lib", "tensorrt_libs", "tensorrt_rtx_libs")
# Sections of an ELF file and the tag of an entry that names a library, as elf.h has them
_DYNAMIC, _NEEDED = 6, 1


def load_needed(library: Path, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Load what a library needs, and say which of it is missing.

    Args:
        library: A shared library, which itself is not loaded.
        also: Sonames that it opens later by itself.

    Returns:
        Sonames that neither the loader nor pip's folders have, each once.
    """
    if sys.platform != "linux":
        return ()
    missing = (name for soname in (*needed(library), *also) for name in _missing(soname, set()))
    return tuple(dict.fromkeys(missing))


def needed(library: Path) -> tuple[str, ...]:
    """Sonames that an ELF file of 64 bits is linked to; empty for any other file."""
    with library.open("rb") as file:
        if file.read(5) != b"\x7fELF\x02":
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _needed(content)


def _needed(content: mmap.mmap) -> tuple[str, ...]:
    (offset,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, offset + size * i) for i in range(count)]
    names = []
    for section in sections:
        if section[1] != _DYNAMIC:
            continue
        strings = sections[section[6]][4]
        entries = struct.iter_unpack("<qQ", content[section[4] : section[4] + section[5]])
        for tag, value in entries:
            if tag == _NEEDED:
                start = strings + value
                names.append(content[start : content.find(b"\0", start)].decode())
    return tuple(names)


def load(soname: str) -> bool:
    """Load a library by its soname, wherever it is; False where it is missing or broken."""
    return not _missing(soname, set())


def path_of(soname: str) -> Path | None:
    """Where a library that this process has loaded lies, as far as Linux tells."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    paths = (Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if line.count("/"))
    stem = soname.partition(".so")[0]
    # the file's own name has more digits than the soname: libnvinfer.so.10.16.1
    return next((p for p in paths if p.name.partition(".so")[0] == stem), None)


def _missing(soname: str, asked: set[str]) -> list[str]:
    """What keeps a library from being loaded: itself, or what it needs in turn."""
    if soname in asked or _loads(soname):
        return []
    asked.add(soname)
    path = _in_pip_folders(soname)
    if path is None:
        return [soname]
    missing = [name for inner in needed(path) for name in _missing(inner, asked)]
    if missing or _loads(str(path)):
        return missing
    return [soname]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _in_pip_folders(soname: str) -> Path | None:
    for entry in sys.path:
        for pattern in _PIP_FOLDERS:
            found = next(Path(entry or ".").glob(f"{pattern}/{soname}"), None)
            if found is not None:
                return found
    return None
