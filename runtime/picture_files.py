"""Picture files: any kind in, 8-bit RGB and what surrounds it out, and back into a file."""

from __future__ import annotations

import io
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import MediaError
from .session import Frames

# file ending -> Pillow's format and how it is saved: lossless, or so good that it hardly differs
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {}),  # uncompressed: with libtiff Pillow cannot store EXIF
    ".tiff": ("TIFF", {}),
}
_WITH_ALPHA = frozenset({"PNG", "WEBP", "TIFF"})
_WITH_PROFILE = frozenset({"PNG", "JPEG", "WEBP", "TIFF"})
_EXIF_IFD, _GPS_IFD, _EXIF_WIDTH, _EXIF_HEIGHT = 0x8769, 0x8825, 0xA002, 0xA003
# EXIF 2.3 §4.6.4: who, what and when. The other tags of the first directory describe how the
# pixels are stored, which in the output is different, or the orientation, which was applied.
_DESCRIPTIVE = frozenset(
    (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298, *range(0x9C9B, 0x9CA0))
)
_DAMAGE = (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, KeyError)


@dataclass(frozen=True)
class Picture:
    """A picture taken apart.

    Attributes:
        pixels: H×W×3 uint8 RGB, upright.
        alpha: H×W opacity, None where all is opaque.
        profile: ICC profile that ``pixels`` follow.
        exif: Descriptive EXIF, without orientation and layout.
    """

    pixels: Frames
    alpha: Image.Image | None
    profile: bytes | None
    exif: Image.Exif | None


def is_picture(path: Path) -> bool:
    """Whether the ending is that of a picture which can be read and written."""
    return path.suffix.lower() in FORMATS


def read_picture(source: Path, notes: list[str]) -> Picture:
    """Read a picture; what is lost on the way is added to ``notes``.

    Raises:
        MediaError: It is missing, damaged, or cannot be turned into 8-bit RGB.
    """
    if not source.exists():
        raise MediaError(f"{source} does not exist", "check the path")
    if not source.is_file():
        raise MediaError(f"{source} is not a file", "name a picture")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(source) as image:
                image.verify()  # the checksums of PNG; it leaves the picture unusable
            with Image.open(source) as image:
                picture = _take_apart(image, source, notes)
        notes += {f"Pillow: {w.message}": 0 for w in caught if w.category is UserWarning}
        return picture
    except UnidentifiedImageError as exc:
        raise MediaError(
            f"{source} is not a picture, or of an unknown kind",
            f"known kinds: {', '.join(FORMATS)}",
        ) from exc
    except Image.DecompressionBombError as exc:
        raise MediaError(
            f"{source} is too large: {exc}", "cut it into parts of at most 178 megapixels"
        ) from exc
    except _DAMAGE as exc:
        raise MediaError(
            f"{source} is damaged or cannot be read: {getattr(exc, 'strerror', None) or exc}",
            "copy or download the picture again",
        ) from exc


def _take_apart(image: Image.Image, source: Path, notes: list[str]) -> Picture:
    deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        notes.append(f"only the first of {frames} pictures in the file was taken")
    profile = image.info.get("icc_profile")
    exif, readable = _exif(image, notes)
    image.load()
    turned = ImageOps.exif_transpose(image) if readable else image
    rgb, alpha, profile = _to_rgb(turned, profile, deep, source, notes)
    return Picture(np.asarray(rgb), alpha, profile, exif)


def _exif(image: Image.Image, notes: list[str]) -> tuple[Image.Exif | None, bool]:
    """The descriptive part of a picture's EXIF, and whether its EXIF can be read at all."""
    try:
        source, kept = image.getexif(), Image.Exif()
        kept.update({tag: value for tag, value in source.items() if tag in _DESCRIPTIVE})
        found = len(kept) > 0
        for directory in (_EXIF_IFD, _GPS_IFD):
            if entries := source.get_ifd(directory):
                kept.get_ifd(directory).update(entries)
                found = True
        return (kept if found else None), True
    except _DAMAGE:
        notes.append("the EXIF data is damaged and was left out")
        return None, False


def _to_rgb(
    image: Image.Image, profile: bytes | None, deep: bool, source: Path, notes: list[str]
) -> tuple[Image.Image, Image.Image | None, bytes | None]:
    """8-bit RGB, alpha, and the profile that the RGB values still follow."""
    mode = image.mode
    if deep or mode.startswith("I"):
        notes.append("the source has 16 bits, the output 8")
    if mode.startswith("I"):
        image = Image.fromarray(_to_8_bits(image, source))
        mode = "L"
    elif mode == "F":
        raise MediaError(
            f"{source} holds floating-point values of unknown range", "convert it to 8 bits first"
        )
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if mode == "CMYK":
        notes.append("CMYK was converted to RGB")
        return cmyk_to_rgb(image, profile, notes), None, None
    if mode in ("L", "LA", "1", "P", "PA"):
        kind = "palette" if mode.startswith("P") else "greyscale"
        notes.append(f"{kind} was converted to RGB")
    if profile is not None and profile[16:20] != b"RGB ":
        notes.append("the colour profile is not for RGB and was left out")
        profile = None
    # over RGBA, because Pillow would else paint a palette's transparent colour
    flat = image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB")
    return flat, alpha, profile


def _to_8_bits(image: Image.Image, source: Path) -> Frames:
    """H×W grey values of a 16-bit picture; Pillow's own conversion clips instead of scaling."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise MediaError(
            f"{source} holds values from {values.min()} to {values.max()}, expected 16 bits",
            "convert it to 8 bits first",
        )
    return ((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)


def cmyk_to_rgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """sRGB through the picture's own profile; without one by Pillow's plain formula.

    What is lost on the way is added to ``notes``.
    """
    if profile is not None:
        try:
            inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, inks, srgb, outputMode="RGB")
            if converted is not None:
                return converted
        except (OSError, ImageCms.PyCMSError):
            notes.append("the colour profile is damaged and was left out")
    return image.convert("RGB")


def write_picture(output: Path, pixels: Frames, picture: Picture, notes: list[str]) -> None:
    """Write upscaled pixels with what surrounded the source's, whole or not at all.

    Args:
        output: The file; its ending chooses the format.
        pixels: H×W×3 uint8 RGB.
        picture: The source; its alpha is upscaled to the size of ``pixels``.
        notes: Gets what the format cannot hold.

    Raises:
        MediaError: The format cannot hold the picture, or the file not be written.
    """
    kind, options = FORMATS[output.suffix.lower()]
    image, options = Image.fromarray(pixels), dict(options)
    if picture.alpha is not None:
        if kind in _WITH_ALPHA:
            image.putalpha(picture.alpha.resize(image.size, Image.Resampling.BICUBIC))
        else:
            notes.append(f"{kind} has no transparency: it was left out")
    for name, value in (("icc_profile", picture.profile), ("exif", _sized(picture.exif, image))):
        if value is None:
            continue
        if kind in _WITH_PROFILE:
            options[name] = value
        else:
            notes.append(f"{kind} holds no {name.replace('_', ' ')}: it was left out")
    content = io.BytesIO()
    try:
        image.save(content, kind, **options)
    except _DAMAGE as exc:
        raise MediaError(
            f"{output}: {kind} cannot hold this picture of {image.width}×{image.height}: {exc}",
            "write it as .png",
        ) from exc
    _store(output, content.getbuffer())


def _sized(exif: Image.Exif | None, image: Image.Image) -> bytes | None:
    """EXIF that names the new size, where it named the old."""
    if exif is None:
        return None
    camera = exif.get_ifd(_EXIF_IFD)
    if _EXIF_WIDTH in camera or _EXIF_HEIGHT in camera:
        camera[_EXIF_WIDTH], camera[_EXIF_HEIGHT] = image.size
    return exif.tobytes()


def _store(output: Path, content: memoryview) -> None:
    """Write a file whole or not at all."""
    partial = output.with_name(f".{output.stem}.{os.getpid()}.partial{output.suffix}")
    try:
        partial.write_bytes(content)
        partial.replace(output)
    except OSError as exc:
        raise MediaError(
            f"{output} could not be written: {exc.strerror or exc}",
            "check that the folder exists, is writable and has space",
        ) from exc
    finally:
        partial.unlink(missing_ok=True)
