"""What srdeploy brings along: pictures, trained weights and a demo clip.

Photographs and drawings are listed in ``pictures.json`` with their digests, licences, splits and
content; ``LICENSES.md`` says the same for people. Every split holds each kind of content, and
splits are disjoint by source photograph and by motif: ``calibration`` sets the ranges of an int8
engine, ``tuning`` chooses the layers that stay in float, ``proof`` is seen by neither and measures
the drift that a manifest states.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import spec
from ..errors import DatasetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = ("calibration", "tuning", "proof")

DRAWN = ("line art", "text", "screen", "saturated", "grain", "flat", "gradient")
"""Content of the pictures that ``data/drawing`` draws."""

CONTENT = ("bright", "dark", "smooth", "textured", *DRAWN)
"""What a picture shows. A photograph is bright from a mean luma of 128 on, dark below 80, else
smooth where neighbouring pixels differ by less than 4 code values on average, else textured."""

_FOLDER = Path(__file__).resolve().parent
_REINSTALL = "the installation is damaged: install srdeploy again"


@dataclass(frozen=True)
class Picture:
    """One bundled picture.

    Attributes:
        file: Name in ``data/pictures``.
        title: Name of the work, for the attribution.
        sha256: Digest of the file.
        width: In pixels, a multiple of 12, so that scales 2, 3 and 4 need no crop.
        height: Likewise.
        source: Address of the photograph that it was made from, or the function that drew it.
        author: Whom the licence wants to be named.
        licence: Name of the licence.
        licence_address: Where the licence's text stands.
        split: One of ``SPLITS``.
        content: One of ``CONTENT``.
    """

    file: str
    title: str
    sha256: str
    width: int
    height: int
    source: str
    author: str
    licence: str
    licence_address: str
    split: str
    content: str

    @property
    def drawn(self) -> bool:
        """Whether code drew it; else it is a photograph, or a piece of one."""
        return self.content in DRAWN

    @property
    def name(self) -> str:
        """The file's name without its ending, for reports."""
        return Path(self.file).stem

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return _FOLDER / "pictures" / self.file

    def read(self) -> NDArray[np.uint8]:
        """The pixels as H×W×3 uint8, RGB; grey photographs have three equal channels.

        Raises:
            DatasetError: The file is missing, or is not the one that the manifest names.
        """
        try:
            content = self.path.read_bytes()
        except OSError as exc:
            raise DatasetError(f"{self.path} cannot be read: {exc}", _REINSTALL) from exc
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise DatasetError(
                f"{self.path} was altered: expected SHA-256 {self.sha256}, got {digest}",
                _REINSTALL,
            )
        return self._decode(content)

    def _decode(self, content: bytes) -> NDArray[np.uint8]:
        # here, so that ``srdeploy models`` looks for bundled weights without them
        import numpy as np
        from PIL import Image

        try:
            with Image.open(io.BytesIO(content)) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        except (OSError, Image.DecompressionBombError) as exc:
            raise DatasetError(f"{self.path} is no picture: {exc}", _REINSTALL) from exc
        if pixels.shape != (self.height, self.width, 3):
            height, width = pixels.shape[:2]
            raise DatasetError(
                f"{self.path}: expected {self.width}×{self.height} pixels, got {width}×{height}",
                _REINSTALL,
            )
        return pixels


@dataclass(frozen=True)
class _Gallery:
    """The form of ``pictures.json``."""

    pictures: tuple[Picture, ...]


def pictures(split: str) -> tuple[Picture, ...]:
    """The bundled pictures of a split, photographs first; files are not opened.

    Raises:
        DatasetError: The split is not one of ``SPLITS``, or the manifest is damaged.
    """
    if split not in SPLITS:
        raise DatasetError(
            f"no split of the bundled pictures is called {split!r}",
            f"the splits are {', '.join(SPLITS)}",
        )
    return tuple(p for p in _gallery(_FOLDER / "pictures.json") if p.split == split)


def weights_folder() -> Path:
    """Folder of the bundled weights, ``data/weights``; it may not exist."""
    return _FOLDER / "weights"


def bundled_weights(variant: str) -> Path | None:
    """The bundled checkpoint of a variant such as ``vapsr-s-x4``, None where there is none."""
    return _bundled(f"{variant}.safetensors")


def bundled_onnx(variant: str) -> Path | None:
    """The bundled ONNX file of a variant, for machines without torch; None if there is none."""
    return _bundled(f"{variant}.onnx")


def bundled_psnr(variant: str) -> dict[str, float]:
    """PSNR on Y of a bundled checkpoint by data set, dB; empty where nothing was measured."""
    return _measured(weights_folder() / "measured.json").get(variant, {})


@lru_cache(maxsize=1)
def _measured(file: Path) -> dict[str, dict[str, float]]:
    try:
        found: dict[str, dict[str, float]] = json.loads(file.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as exc:
        raise DatasetError(f"{file} cannot be used: {exc}", _REINSTALL) from exc


def _bundled(file: str) -> Path | None:
    path = weights_folder() / file
    # A variant may come from a checkpoint that nobody vouches for: it must not leave the folder.
    return path if path.parent == weights_folder() and path.is_file() else None


@lru_cache(maxsize=1)
def _gallery(manifest: Path) -> tuple[Picture, ...]:
    """Read and check the manifest."""
    try:
        listed = spec.load(_Gallery, manifest.read_text(encoding="utf-8")).pictures
    except (OSError, ValueError) as exc:
        raise DatasetError(f"{manifest} cannot be used: {exc}", _REINSTALL) from exc
    split_of: dict[str, str] = {}
    for picture in listed:
        _check(picture, manifest)
        if split_of.setdefault(picture.source, picture.split) != picture.split:
            raise DatasetError(f"{manifest}: {picture.source} is in two splits", _REINSTALL)
    return listed


def _check(picture: Picture, manifest: Path) -> None:
    """Refuse an entry that no release of srdeploy holds."""
    if picture.split not in SPLITS or Path(picture.file).name != picture.file:
        raise DatasetError(
            f"{manifest}: {picture.file!r} in split {picture.split!r}: expected a plain "
            f"file name in one of {', '.join(SPLITS)}",
            _REINSTALL,
        )
    if picture.content not in CONTENT:
        raise DatasetError(
            f"{manifest}: {picture.file!r} shows {picture.content!r}: expected one of "
            f"{', '.join(CONTENT)}",
            _REINSTALL,
        )
