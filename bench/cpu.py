"""A command as it runs on a lesser x86 CPU than this one, at full speed.

    python -m srdeploy.bench.cpu avx2 srdeploy build-engine net.onnx --int8

``avx2``: AVX2 alone, as Zen 2 and 3 and Intel's desktops before 2021; ``avx512``: without an 8-bit
dot product (VNNI), as Skylake-X; ``avxvnni``: AVX2 with VNNI, as Alder Lake; ``avx512vnni``:
without bf16 and AMX, as Ice Lake. The command and its children see a processor without the rest:
bench/cpuid.c, compiled on the spot, answers the CPUID instruction for it. Libraries choose their
kernels by what they see: results are those of such a CPU, times those of this one's cores with
these instructions. Linux on x86-64, on a processor that lets CPUID fault (Intel since Ivy Bridge,
AMD since Zen 4).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("cpuid.c")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Extension:
    """An instruction set: where CPUID tells of it, and how /proc/cpuinfo names it."""

    leaf: tuple[int, int]
    register: str
    bit: int
    flag: str


_AVX512 = (
    Extension((7, 0), "ebx", 16, "avx512f"),
    Extension((7, 0), "ebx", 17, "avx512dq"),
    Extension((7, 0), "ebx", 21, "avx512ifma"),
    Extension((7, 0), "ebx", 28, "avx512cd"),
    Extension((7, 0), "ebx", 30, "avx512bw"),
    Extension((7, 0), "ebx", 31, "avx512vl"),
    Extension((7, 0), "ecx", 1, "avx512vbmi"),
    Extension((7, 0), "ecx", 6, "avx512_vbmi2"),
    Extension((7, 0), "ecx", 12, "avx512_bitalg"),
    Extension((7, 0), "ecx", 14, "avx512_vpopcntdq"),
    Extension((7, 0), "edx", 8, "avx512_vp2intersect"),
)
_AVX512_VNNI = (Extension((7, 0), "ecx", 11, "avx512_vnni"),)
_AVX_VNNI = (Extension((7, 1), "eax", 4, "avx_vnni"),)
_BF16_AND_AMX = (
    Extension((7, 0), "edx", 22, "amx_bf16"),
    Extension((7, 0), "edx", 23, "avx512_fp16"),
    Extension((7, 0), "edx", 24, "amx_tile"),
    Extension((7, 0), "edx", 25, "amx_int8"),
    Extension((7, 1), "eax", 5, "avx512_bf16"),
    Extension((7, 1), "eax", 21, "amx_fp16"),
    Extension((7, 1), "eax", 23, "avx_ifma"),
    Extension((7, 1), "edx", 4, "avx_vnni_int8"),
    Extension((7, 1), "edx", 5, "avx_ne_convert"),
    Extension((7, 1), "edx", 8, "amx_complex"),
    Extension((7, 1), "edx", 10, "avx_vnni_int16"),
    Extension((7, 1), "edx", 19, "avx10"),
)
KINDS: Mapping[str, tuple[Extension, ...]] = {
    "avx2": _AVX512 + _AVX512_VNNI + _AVX_VNNI + _BF16_AND_AMX,
    "avx512": _AVX512_VNNI + _AVX_VNNI + _BF16_AND_AMX,
    "avxvnni": _AVX512 + _AVX512_VNNI + _BF16_AND_AMX,
    "avx512vnni": _AVX_VNNI + _BF16_AND_AMX,
}
"""Kind of CPU to what it lacks."""
_REGISTERS = ("eax", "ebx", "ecx", "edx")


def masks(lacking: tuple[Extension, ...]) -> str:
    """What cpuid.c reads: bits to clear of each leaf."""
    clear: dict[tuple[int, int], list[int]] = {}
    for extension in lacking:
        words = clear.setdefault(extension.leaf, [0] * len(_REGISTERS))
        words[_REGISTERS.index(extension.register)] |= 1 << extension.bit
    return " ".join(
        " ".join(f"{word:x}" for word in (*leaf, *words)) for leaf, words in clear.items()
    )


def without(cpuinfo: str, lacking: tuple[Extension, ...]) -> str:
    """The text of /proc/cpuinfo without the flags of what is lacking."""
    flags = {extension.flag for extension in lacking}
    lines = cpuinfo.splitlines()
    for number, line in enumerate(lines):
        key, colon, value = line.partition(":")
        if key.strip() == "flags":
            kept = " ".join(flag for flag in value.split() if flag not in flags)
            lines[number] = f"{key}{colon} {kept}"
    return "\n".join(lines) + "\n"


def as_seen(kind: str, folder: Path) -> dict[str, str]:
    """The environment of a process that sees a CPU of this kind.

    Args:
        kind: of :data:`KINDS`.
        folder: for what is compiled and read by the process; it is kept while the process runs.

    Raises:
        RuntimeError: if there is no C compiler, or this processor cannot do it.
    """
    lacking = KINDS[kind]
    library, cpuinfo = folder / "cpuid.so", folder / "cpuinfo"
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"no {SOURCE.name}: {getattr(error, 'stderr', error)}") from error
    cpuinfo.write_text(without(CPUINFO.read_text(), lacking))
    seen = {
        "LD_PRELOAD": str(library),
        "CPUID_MASK": masks(lacking),
        "CPUID_CPUINFO": str(cpuinfo),
    }
    environment = os.environ | seen
    tried = subprocess.run(["true"], env=environment, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise RuntimeError(tried.stderr.strip())
    return environment


def main() -> None:
    """Run the command, and exit as it does."""
    import tempfile

    kind, *command = sys.argv[1:] or [""]
    if kind not in KINDS or not command:
        sys.exit(f"usage: python -m srdeploy.bench.cpu {{{','.join(KINDS)}}} COMMAND…")
    with tempfile.TemporaryDirectory() as folder:
        try:
            environment = as_seen(kind, Path(folder))
        except RuntimeError as error:
            sys.exit(str(error))
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
