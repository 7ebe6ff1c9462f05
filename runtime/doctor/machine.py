"""The processor, memory and disk of this machine, as Linux tells; elsewhere less."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...files import cache_folder
from ..processor import CPUINFO, processor_fields
from .findings import Finding, State

GIB = 1 << 30
LEAST_DISK = 1 * GIB
_ANOTHER_FOLDER = "export SRDEPLOY_CACHE=/a/folder/with/space"
# flag of /proc/cpuinfo -> what it is called
ABILITIES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_bf16": "AMX bf16",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "int8 dot products",
    "i8mm": "int8 matrix products",
    "bf16": "bf16",
    "sve": "SVE",
}


def machine_findings() -> tuple[Finding, ...]:
    """A line each on processor, memory and cache."""
    return (_processor(), *_memory(), _cache(cache_folder()))


def _processor(cpuinfo: Path = CPUINFO) -> Finding:
    fields = processor_fields(cpuinfo)
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    abilities = ", ".join(dict.fromkeys(ABILITIES[f] for f in ABILITIES if f in flags))
    detail = f"{name}, {os.cpu_count()} threads: {abilities or 'abilities unknown'}"
    return Finding("processor", State.OK, detail)


def _memory(
    meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> Iterator[Finding]:
    """Free memory, within the limit of the container where there is one."""
    try:
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        fields = {key: value for key, _, value in (line.partition(":") for line in lines)}
        free, total = (int(fields[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return
    try:
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        used = int((group / "memory.current").read_text(encoding="utf-8"))
        free, total = min(free, max(0, limit - used)), min(total, limit)
    except (OSError, ValueError):  # no container, or "max"
        pass
    yield Finding("memory", State.OK, f"{free / GIB:.1f} of {total / GIB:.1f} GiB free")


def _cache(folder: Path) -> Finding:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.lstat().st_size
        except OSError:  # gone in the meantime
            continue
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    detail = f"{folder}: {size / GIB:.2f} GiB used"
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return Finding("cache", State.BROKEN, f"{detail}; not writable", (_ANOTHER_FOLDER,))
    free = shutil.disk_usage(there).free
    detail = f"{detail}, {free / GIB:.1f} GiB free"
    if free < LEAST_DISK:
        return Finding("cache", State.BROKEN, f"{detail}; too little", (_ANOTHER_FOLDER,))
    return Finding("cache", State.OK, detail)
