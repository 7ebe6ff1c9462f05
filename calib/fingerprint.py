"""Fingerprints: whether two pictures show the same, whatever their size and compression.

A fingerprint holds the signs of the 256 slowest waves of a picture (DCT-II of its luma, averaged
to 32×32). Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010, section 3.2.1. Scaling and JPEG hardly touch slow waves, as the bits that differ of 256 say:

- one picture as HR and as published LR of x2, x3, x4 (Set5, Set14, BSD100): up to 20; as JPEG of
  quality 10: up to 12; squeezed to 97×61 pixels: up to 25;
- two pictures (those sets, BSDS500, DIV2K's test pictures, T91, the bundled ones: 722): 91 or more
  in all 260,281 pairs but three, which are one photograph each: t36 and t65 of T91 (0), ``head`` of
  Set5 and ``face`` of Set14 (15), ``woman`` of Set5 and 302003 of BSDS500 (22).

A difference hash of 16×16 parts them less well: up to 44 for one picture, from 55 on for two (of
381 of these pictures).
A cut-out of a picture is not recognised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import EngineError
from ..validate.datasets import Picture

BITS = 256
SAME_WITHIN = 48
"""Bits that may differ between two forms of one picture: twice what was seen, half of what two
pictures differ in."""

FAINT = 0.02
"""Amplitude in code values below which the sign of a wave is chance, or means nothing."""

_EDGE = 32
_FORM = re.compile(r"(dct|sha256):([0-9a-f]{64})")


@dataclass(frozen=True)
class Fingerprint:
    """What a picture is recognised by.

    Attributes:
        bits: 256 bits.
        exact: Whether they are the SHA-256 of the pixels: a picture that is flat, or varies in
            one direction only, has too few waves to be told from others by.
    """

    bits: int
    exact: bool = False

    def __str__(self) -> str:
        return f"{'sha256' if self.exact else 'dct'}:{self.bits:064x}"

    def distance(self, other: Fingerprint) -> int:
        """Bits that differ; all where only equal pictures count as the same."""
        if self.exact or other.exact:
            return 0 if self == other else BITS
        return (self.bits ^ other.bits).bit_count()


def fingerprint(picture: Picture) -> Fingerprint:
    """The fingerprint of a picture, H×W×3 uint8 RGB."""
    grey = Image.fromarray(picture).convert("L").convert("F")
    small = np.asarray(grey.resize((_EDGE, _EDGE), Image.Resampling.BOX), np.float64)
    waves = (_COSINES @ (small - small.mean()) @ _COSINES.T)[_SLOWEST]
    if np.count_nonzero(np.abs(waves) > FAINT) < BITS // 2:
        return Fingerprint(int(pixel_digest(picture), 16), exact=True)
    return Fingerprint(int.from_bytes(np.packbits(waves > 0).tobytes(), "big"))


def read_fingerprint(text: str) -> Fingerprint:
    """Read what ``str`` made of a fingerprint.

    Raises:
        EngineError: It is something else.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise EngineError(f"{text[:80]!r} is no fingerprint of a picture")
    return Fingerprint(int(found[2], 16), found[1] == "sha256")


def find_same(wanted: Fingerprint, known: Mapping[str, Fingerprint]) -> str | None:
    """Name of the nearest of ``known`` that shows the same picture, None where none does."""
    distances = ((wanted.distance(other), name) for name, other in known.items())
    nearest = min(distances, default=(BITS, ""))
    return nearest[1] if nearest[0] <= SAME_WITHIN else None


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 over shape and pixels, hexadecimal."""
    sha256 = hashlib.sha256(repr(pixels.shape).encode())
    sha256.update(np.ascontiguousarray(pixels).data)
    return sha256.hexdigest()


def _cosines() -> NDArray[np.float64]:
    """Rows are the waves of the DCT-II, so scaled that a coefficient is an amplitude."""
    wave, place = np.mgrid[:_EDGE, :_EDGE]
    scaled: NDArray[np.float64] = np.cos(np.pi * wave * (2 * place + 1) / (2 * _EDGE))
    return scaled * (2 / _EDGE)


def _slowest() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the slowest waves but the constant one, by frequency."""
    rows, columns = np.indices((_EDGE, _EDGE)).reshape(2, -1)
    order = np.lexsort((rows, rows + columns))[1 : BITS + 1]
    return rows[order], columns[order]


_COSINES = _cosines()
_SLOWEST = _slowest()
