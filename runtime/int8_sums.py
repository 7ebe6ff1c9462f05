"""How CPUs add int8 products, and which engines that suits.

x86 without an 8-bit dot product (VNNI) adds them in pairs of 16 bits, which saturate unless the
weights were made to fit (export/pair_sums.py says when they do).
"""

from __future__ import annotations

from pathlib import Path

from ..spec import BuildConfig, Precision
from .processor import CPUINFO, processor_fields

FITS_ALL = "its int8 sums fit every CPU, with an 8-bit dot product (VNNI) or without"
NEEDS_DOT_PRODUCT = (
    "its figures hold on CPUs with an 8-bit dot product, such as this one; others would saturate"
    " its int8 sums and refuse it: build-engine --portable makes one for all"
)
_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}


def pairs_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether pairs of int8 products can saturate on this machine: x86 without VNNI, as far as
    Linux tells.

    Found by execution: on an AVX2-only CPU a network of random weights was off by up to 111 of
    255 code values, a trained one by as little as on any other CPU.
    """
    flags = set(processor_fields(cpuinfo).get("flags", "").split())
    return "sse2" in flags and not flags & _DOT_PRODUCTS


def note_on(build: BuildConfig) -> tuple[str, ...]:
    """For which CPUs the figures of an engine hold; nothing of one without int8."""
    if build.precision is not Precision.INT8:
        return ()
    return (FITS_ALL if build.in_pairs else NEEDS_DOT_PRODUCT,)


def mismatch(build: BuildConfig) -> str | None:
    """What keeps an int8 engine from being exact on this CPU, or None."""
    if build.precision is Precision.INT8 and not build.in_pairs and pairs_saturate():
        return (
            "was built for CPUs with an 8-bit dot product (VNNI), which this one lacks: its int8"
            " sums would saturate"
        )
    return None
