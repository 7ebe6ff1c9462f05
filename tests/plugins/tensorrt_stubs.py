"""Stub libraries that let the TensorRT Python bindings be imported without TensorRT.

The wheel ``tensorrt-cu13-bindings`` holds one package, ``tensorrt_bindings``, with an extension
module ``tensorrt.so`` that is linked to libnvinfer, libnvinfer_plugin and libnvonnxparser. At
import it wants from them only a few C functions: all other calls go through the virtual tables
of objects that these functions return. :func:`build_stubs` compiles shared libraries of the same
sonames whose functions return a null pointer, apart from the plugin registry, which is an object
whose virtual methods all do nothing and return zero.

What then works is what lives in the extension module or in Python: enumerations, ``Dims``,
``PluginField``, ``PluginFieldCollection``, ``PluginTensorDesc``, the base classes of plugins and
of plugin creators, and all of ``tensorrt.plugin``. A builder, a parser, a runtime or an
expression builder cannot be had.

Use the stubs in a process of their own, never in one that also needs the real libraries::

    stubs = build_stubs(bindings, folder)
    subprocess.run([sys.executable, "-c", bootstrap(bindings, stubs) + code], check=True)

:func:`bootstrap` loads the stubs by path before the import: the loader does not search for a
library when one of its soname is loaded already, so neither RTLD_GLOBAL nor an environment
variable is needed. ``LD_LIBRARY_PATH`` set to ``folder`` before the start of the process works as
well. ``import tensorrt`` needs no further package: the name is given to ``tensorrt_bindings``,
which is what the package ``tensorrt`` of the wheel ``tensorrt-cu13`` re-exports.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

VENDOR_PREFIX = "libnv"
"""How the names of the libraries begin for which stubs are made."""

REGISTRY_FUNCTIONS = frozenset({"getPluginRegistry", "getBuilderPluginRegistry"})
"""The functions that return the plugin registry."""

_PREAMBLE = """\
#include <stddef.h>

/* Any virtual method: every argument is ignored, the answer is 0, false or a null pointer. */
static void *nothing(void) { return NULL; }

/* The Itanium C++ ABI: offset to the top, the type information (none), then the methods. */
static void *table[2 + 64] = {NULL, NULL, [2 ... 65] = (void *)nothing};
static void *registry[8] = {table + 2};
"""

_SECTION_DYNAMIC = 6
_SECTION_DYNSYM = 11
_SECTION_VERSYM = 0x6FFFFFFF
_TAG_NEEDED = 1
_BIND_GLOBAL = 1
_TYPE_OBJECT = 1


class StubError(Exception):
    """The bindings cannot be read, or the compiler refused the stubs."""


class Undefined(NamedTuple):
    """A symbol that a shared library wants from another one."""

    name: str
    is_object: bool


class _Section(NamedTuple):
    kind: int
    offset: int
    size: int
    link: int


def read_dynamic(library: Path) -> tuple[list[str], list[Undefined]]:
    """Return the sonames that ``library`` needs and its undefined symbols without a version.

    Weak symbols are left out, and so are symbols with a version, which come from the C and C++
    run-time libraries. Only 64-bit little-endian ELF files are read.
    """
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise StubError(f"{library} is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [
        _Section(kind, offset, length, link)
        for kind, _, _, offset, length, link in (
            struct.unpack_from("<IQQQQI", data, table + index * size + 4) for index in range(count)
        )
    ]

    def find(kind: int) -> _Section:
        for section in sections:
            if section.kind == kind:
                return section
        raise StubError(f"{library} has no section of type {kind:#x}")

    def text(section: _Section, offset: int) -> str:
        start = sections[section.link].offset + offset
        return data[start : data.index(b"\0", start)].decode()

    dynamic = find(_SECTION_DYNAMIC)
    content = data[dynamic.offset : dynamic.offset + dynamic.size]
    needed = [
        text(dynamic, value)
        for tag, value in struct.iter_unpack("<QQ", content)
        if tag == _TAG_NEEDED
    ]

    symbols, versions = find(_SECTION_DYNSYM), find(_SECTION_VERSYM)
    content = data[symbols.offset : symbols.offset + symbols.size]
    undefined = []
    for index, symbol in enumerate(struct.iter_unpack("<IBBHQQ", content)):
        name, info, _, section_index, _, _ = symbol
        (version,) = struct.unpack_from("<H", data, versions.offset + 2 * index)
        if section_index == 0 and info >> 4 == _BIND_GLOBAL and version & 0x7FFF <= 1:
            undefined.append(Undefined(text(symbols, name), info & 0xF == _TYPE_OBJECT))
    return needed, undefined


def write_source(symbols: list[Undefined]) -> str:
    """Return C code that defines ``symbols``: functions that return null, zeroed objects."""
    lines = [_PREAMBLE]
    for name, is_object in symbols:
        if is_object:
            lines.append(f"void *{name}[64];")
        elif name in REGISTRY_FUNCTIONS:
            lines.append(f"void *{name}(void) {{ return registry; }}")
        else:
            lines.append(f"void *{name}(void) {{ return NULL; }}")
    return "\n".join(lines) + "\n"


def build_stubs(bindings: Path, folder: Path) -> list[Path]:
    """Compile the libraries that the extension module of ``bindings`` needs into ``folder``.

    ``bindings`` is the folder of the package ``tensorrt_bindings``. The first library defines
    every symbol, the others none: the loader looks for a symbol in all of them. The paths come
    back in the order in which they have to be loaded.
    """
    needed, undefined = read_dynamic(bindings / "tensorrt.so")
    process = ctypes.CDLL(None)  # the interpreter itself: the Python and the C library
    symbols = [symbol for symbol in undefined if not hasattr(process, symbol.name)]
    sonames = [soname for soname in needed if soname.startswith(VENDOR_PREFIX)]
    if not sonames:
        raise StubError(f"{bindings / 'tensorrt.so'} needs no library {VENDOR_PREFIX}*")
    folder.mkdir(parents=True, exist_ok=True)
    stubs = []
    for number, soname in enumerate(sonames):
        stub = folder / soname
        source = folder / f"{soname}.c"
        source.write_text(write_source([] if number else symbols), encoding="utf-8")
        flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{soname}"]
        done = subprocess.run(
            ["cc", *flags, "-o", str(stub), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StubError(f"cc could not build {soname}:\n{done.stderr}")
        stubs.append(stub)
    return stubs


def bootstrap(bindings: Path, stubs: list[Path]) -> str:
    """Return Python code after which ``import tensorrt`` gives the bindings, on the stubs.

    The code is meant for the start of a new interpreter that has numpy. ``bindings`` need not be
    on its path. The file of the bindings carries no version, so the interpreter has to be of the
    minor version that the wheel was made for.
    """
    return f"""\
import ctypes
import sys

for stub in {[str(stub.resolve()) for stub in stubs]!r}:
    ctypes.CDLL(stub)
sys.path.append({str(bindings.resolve().parent)!r})
import tensorrt_bindings

sys.modules["tensorrt"] = tensorrt_bindings
sys.path.pop()
"""
