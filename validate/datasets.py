"""Test sets on disk: pairs of LR and HR pictures, found by the layout of the literature.

Three layouts are taken: a folder of data sets, each laid out as ``NAME/HR/*.png`` and
``NAME/LR_bicubic/X4/*x4.png``; one such data set; or a folder of HR pictures, whose LR is
then made as MATLAB's ``imresize`` makes it (:mod:`.resize`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import DatasetError
from ..runtime.picture_files import cmyk_to_rgb
from .metrics import WINDOW
from .resize import modcrop, shrink

Picture = NDArray[np.uint8]
"""H×W×3 RGB, 0…255."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Pair:
    """A picture of a data set.

    Attributes:
        name: Stem of the HR file.
        hr: High-resolution file.
        lr: Low-resolution file, or None where it is made from ``hr``.
        scale: Upscaling factor from LR to HR.
        content: Class of what it shows, such as ``line art``; empty where that is not known.
    """

    name: str
    hr: Path
    lr: Path | None
    scale: int
    content: str = ""

    def read(self) -> tuple[Picture, Picture]:
        """Read LR (H×W×3) and HR (sH×sW×3; cropped right and bottom to a multiple of s).

        Raises:
            DatasetError: A file is damaged, the sizes do not fit each other, or the picture
                is too small to be measured.
        """
        whole = read_picture(self.hr)
        hr = modcrop(whole, self.scale)
        least = WINDOW + 2 * self.scale
        if min(hr.shape[:2]) < least:
            raise DatasetError(
                f"{self.hr} has {_size(whole)} pixels, too few to be measured at scale"
                f" {self.scale}",
                f"each edge needs {least}: SSIM's window of {WINDOW} and the border of"
                f" {self.scale} on both sides; take the picture out of the data set",
            )
        lr = shrink(hr, self.scale) if self.lr is None else read_picture(self.lr)
        if (lr.shape[0] * self.scale, lr.shape[1] * self.scale) != hr.shape[:2]:
            raise DatasetError(
                f"{self.lr} has {_size(lr)} pixels, which times {self.scale} is not the"
                f" {_size(whole)} of {self.hr}",
                f"the LR picture must have {_size(hr[:: self.scale, :: self.scale])} pixels",
            )
        return lr, hr


@dataclass(frozen=True)
class Dataset:
    """A named set of pictures, at least one.

    Attributes:
        name: For messages.
        pairs: The pictures.
        hard: Whether they were chosen to be hard: a budget then holds for each, not for their mean.
    """

    name: str
    pairs: tuple[Pair, ...]
    hard: bool = False


def find_datasets(folder: Path, scale: int) -> tuple[Dataset, ...]:
    """Find the data sets that ``folder`` is or holds, in natural order of their names.

    In a folder of data sets, only sub-folders that hold an ``HR`` folder count.

    Raises:
        DatasetError: The folder is missing or holds no pictures, a data set lacks the
            scale, or HR and LR do not pair up.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder",
            "--data takes a folder of data sets (NAME/HR, NAME/LR_bicubic/X4), one of them,"
            " or a folder of HR pictures",
        )
    if (folder / "HR").is_dir():
        return (_published(folder, scale),)
    named = _natural(child for child in _children(folder) if (child / "HR").is_dir())
    if named:
        return tuple(_published(child, scale) for child in named)
    pictures = _pictures(folder)
    return (Dataset(_name(folder), tuple(Pair(n, p, None, scale) for n, p in pictures.items())),)


def read_picture(path: Path) -> Picture:
    """Read a picture as RGB, upright as its EXIF says; the first where a file holds several.

    Greyscale is repeated, alpha dropped and the colour beneath it kept, CMYK converted through
    its own profile. 16 bits give their high byte. An RGB profile is not applied.

    Raises:
        DatasetError: It is missing, damaged, too large, or has 32 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; damaged pixels are errors
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()  # what is cut short must not pass for damaged EXIF
                return _to_rgb(_upright(opened))
    except Exception as exc:  # Pillow raises many kinds for damaged files
        raise DatasetError(
            f"{path} cannot be read as a picture: {exc}",
            "replace it, or take it out of the data set",
        ) from exc


def _upright(opened: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # damaged EXIF, of which Pillow raises many kinds, says nothing
        return opened


def _to_rgb(opened: Image.Image) -> Picture:
    if opened.mode in ("I", "F"):
        raise ValueError(f"it has 32 bits a channel (mode {opened.mode}); save it with 8")
    if opened.mode.startswith("I;16"):
        # Pillow would clip these to 255. The high byte is what it takes of 16-bit colour,
        # and gives back what was 8 bits before.
        grey = (np.asarray(opened).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if opened.mode == "P" and "transparency" in opened.info:
        opened = opened.convert("RGBA")  # direct to RGB makes Pillow warn
    if opened.mode == "CMYK":
        return np.asarray(cmyk_to_rgb(opened, opened.info.get("icc_profile"), []))
    return np.asarray(opened.convert("RGB"))


def _published(folder: Path, scale: int) -> Dataset:
    """Open ``folder``/HR with its published LR pictures."""
    high = _pictures(folder / "HR")
    low_folder = folder / "LR_bicubic" / f"X{scale}"
    if not low_folder.is_dir():
        raise _scale_missing(folder, scale)
    ending = f"x{scale}"
    low = {
        stem.removesuffix(ending): path
        for stem, path in _pictures(low_folder).items()
        if stem.endswith(ending)
    }
    _check_paired(folder, high.keys() - low.keys(), f"HR pictures without LR in X{scale}")
    _check_paired(folder, low.keys() - high.keys(), f"LR pictures in X{scale} without HR")
    return Dataset(_name(folder), tuple(Pair(n, p, low[n], scale) for n, p in high.items()))


def _scale_missing(folder: Path, scale: int) -> DatasetError:
    low = folder / "LR_bicubic"
    inside = _natural(_children(low)) if low.is_dir() else []
    held = [c.name.removeprefix("X") for c in inside if re.fullmatch(r"X\d+", c.name)]
    scales = ", ".join(held) or "none"
    return DatasetError(
        f"{folder} has no LR pictures of scale {scale}; its scales: {scales}",
        f"--data {folder / 'HR'} makes the LR pictures from the HR pictures",
    )


def _check_paired(folder: Path, alone: set[str], what: str) -> None:
    if alone:
        shown = sorted(alone)[:5]
        more = f" and {len(alone) - len(shown)} more" if len(alone) > len(shown) else ""
        raise DatasetError(
            f"{folder}: {what}: {', '.join(shown)}{more}",
            "HR/NAME.png belongs to LR_bicubic/X4/NAMEx4.png; complete the data set or take"
            " the pictures out",
        )


def _pictures(folder: Path) -> dict[str, Path]:
    """Stem to file of the pictures directly in ``folder``, at least one."""
    found: dict[str, Path] = {}
    for path in _natural(_children(folder)):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise DatasetError(
                f"{folder} holds both {found[path.stem].name} and {path.name}",
                "results are named by the stem; rename one of them",
            )
        found[path.stem] = path
    if not found:
        raise DatasetError(
            f"{folder} holds no pictures and no data sets",
            f"pictures end in {', '.join(SUFFIXES)}; a data set is a folder with HR/ and"
            " LR_bicubic/X4/",
        )
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as exc:
        raise DatasetError(
            f"{folder} cannot be listed: {exc.strerror or exc}", "check its permissions"
        ) from exc


def _natural(paths: Iterable[Path]) -> list[Path]:
    """Sort so that Set5 comes before Set14."""
    return sorted(paths, key=lambda path: (_natural_key(path.name), path.name))


def _natural_key(name: str) -> list[tuple[int, str]]:
    parts = (part for part in re.split(r"(\d+)", name) if part)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _name(folder: Path) -> str:
    return folder.resolve().name or "pictures"


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
