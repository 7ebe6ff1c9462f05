"""Calibration sets: crops of one size and a few whole frames, and where each came from.

The network's input is a low-resolution frame, and so is a calibration picture: its pixels are
fed as they are, never shrunk. A set is a function of its pictures and the seed: their order and
the files that hold them do not matter. Pictures are read twice, to choose and to cut, and one is
held at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..validate.datasets import Picture
from .coverage import Coverage, cover
from .crops import CROP_COUNT, CROP_SIZE, Crops, holds, plan_crops
from .fingerprint import Fingerprint, find_same, fingerprint, pixel_digest
from .pictures import HeldPictures, NamedPicture, PictureSource

FRAME_COUNT = 2
LARGEST_FRAME = (240, 320)
"""Height and width: a frame has at most as many pixels, as its activations are held at once."""


@dataclass(frozen=True)
class Origin:
    """Name of the picture that a crop was cut from, and the crop's top and left in pixels."""

    picture: str
    top: int
    left: int


@dataclass(frozen=True)
class Frame:
    """A picture as a whole, or the centre of one that is too large for that.

    Attributes:
        origin: Where it was cut.
        pixels: H×W×3 uint8 RGB.
        whole: Whether it is all of the picture.
    """

    origin: Origin
    pixels: Picture
    whole: bool


@dataclass(frozen=True)
class Member:
    """A picture that is in a set.

    Attributes:
        name: For messages.
        sha256: Of its shape and pixels.
        height: In pixels.
        width: In pixels.
        fingerprint: What it is recognised by.
    """

    name: str
    sha256: str
    height: int
    width: int
    fingerprint: Fingerprint


@dataclass(frozen=True)
class CalibrationSet:
    """What a network is calibrated on.

    Attributes:
        crops: N×H×W×3 uint8 RGB.
        origins: Where each crop was cut, in order.
        frames: A few pictures as they are.
        members: The distinct pictures, by name; where they are more than crops, some give none.
        left_out: (name, reason) of the pictures that hold no crop.
        skipped: (name, reason) of the files that could not be read.
        duplicates: (name, name of the larger picture that shows the same), which give none.
        coverage: What is covered.
        seed: Of the choice.
        sha256: Over the shapes and pixels of crops and frames, hexadecimal.
    """

    crops: Crops
    origins: tuple[Origin, ...]
    frames: tuple[Frame, ...]
    members: tuple[Member, ...]
    left_out: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, str], ...]
    coverage: Coverage
    seed: int
    sha256: str

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """What is fed to the network: the crops, then the frames, each H×W×3 uint8."""
        return (*self.crops, *(frame.pixels for frame in self.frames))

    @property
    def used(self) -> tuple[Member, ...]:
        """The members that gave a crop or a frame."""
        names = {origin.picture for origin in (*self.origins, *(f.origin for f in self.frames))}
        return tuple(member for member in self.members if member.name in names)

    @property
    def fingerprints(self) -> dict[str, Fingerprint]:
        """Of the members, by name."""
        return {member.name: member.fingerprint for member in self.members}

    def manifest(self) -> dict[str, Any]:
        """All but the pixels, as plain JSON holds it."""
        described = {
            "sha256": self.sha256,
            "seed": self.seed,
            "crop": {"height": self.crops.shape[1], "width": self.crops.shape[2]},
            "pictures": [asdict(m) | {"fingerprint": str(m.fingerprint)} for m in self.members],
            "crops": [asdict(origin) for origin in self.origins],
            "frames": [
                asdict(f.origin)
                | {"height": f.pixels.shape[0], "width": f.pixels.shape[1], "whole": f.whole}
                for f in self.frames
            ],
            "skipped": [{"name": n, "reason": reason} for n, reason in self.skipped],
            "left_out": [{"name": n, "reason": reason} for n, reason in self.left_out],
            "duplicates": [{"name": n, "repeats": other} for n, other in self.duplicates],
            "coverage": asdict(self.coverage) | {"warnings": self.coverage.warnings()},
        }
        plain: dict[str, Any] = json.loads(json.dumps(described))
        return plain


def make_calibration_set(
    pictures: PictureSource | Sequence[NamedPicture],
    size: tuple[int, int] = CROP_SIZE,
    count: int = CROP_COUNT,
    frame_count: int = FRAME_COUNT,
    seed: int = 0,
) -> CalibrationSet:
    """Choose among pictures and cut them.

    Args:
        pictures: Of unique names; in memory, or a source such as ``load_pictures`` gives.
        size: (height, width) of a crop in pixels; smaller pictures are left out.
        count: How many crops, as many from each picture as from any other (±1).
        frame_count: How many whole frames at most. Pictures of up to 320×240 pixels are taken
            whole; where they are too few, the centres of larger ones.
        seed: Of the choice.

    Raises:
        DatasetError: No picture can be read or is large enough, one that may not be skipped is
            damaged, or one changed between the two readings.
        MediaError: Likewise, of a video.
    """
    source = HeldPictures(pictures) if isinstance(pictures, Sequence) else pictures
    found = [_member(picture) for picture in source.read()]
    _check_read(found, source)
    found.sort(key=lambda m: (-m.height * m.width, m.sha256, m.name))
    small = sorted(m.name for m in found if not holds((m.height, m.width), size))
    members, duplicates = _distinct([m for m in found if holds((m.height, m.width), size)])
    shapes = [(m.height, m.width) for m in members]
    planned = plan_crops(shapes, size, count, seed)
    origins = tuple(Origin(members[index].name, top, left) for index, top, left in planned)
    crops, frames = _cut(source, members, origins, size, _plan_frames(members, frame_count, seed))
    cut = [*crops, *(frame.pixels for frame in frames)]
    reason = f"smaller than a crop of {size[1]}×{size[0]} pixels"
    return CalibrationSet(
        crops,
        origins,
        frames,
        tuple(sorted(members, key=lambda m: m.name)),
        tuple((name, reason) for name in small),
        tuple(sorted(source.skipped.items())),
        tuple(sorted(duplicates)),
        cover(cut, len(members)),
        seed,
        _digest([crops, *(frame.pixels for frame in frames)]),
    )


def _member(picture: NamedPicture) -> Member:
    height, width = picture.pixels.shape[:2]
    digest = pixel_digest(picture.pixels)
    return Member(picture.name, digest, height, width, fingerprint(picture.pixels))


def _check_read(found: Sequence[Member], source: PictureSource) -> None:
    if found:
        return
    if not source.skipped:
        raise DatasetError("the calibration set is empty", "give at least one picture")
    raise DatasetError(
        f"none of the {len(source.skipped)} calibration files can be read, the first because:"
        f" {next(iter(source.skipped.values()))}",
        "give at least one whole picture",
    )


def _distinct(found: Sequence[Member]) -> tuple[list[Member], list[tuple[str, str]]]:
    """The first of each group of pictures that show the same, and what repeats which."""
    kept: dict[str, Member] = {}
    known: dict[str, Fingerprint] = {}
    duplicates = []
    for member in found:
        same = find_same(member.fingerprint, known)
        if same is None:
            kept[member.name] = member
            known[member.name] = member.fingerprint
        else:
            duplicates.append((member.name, same))
    return list(kept.values()), duplicates


def _plan_frames(members: Sequence[Member], count: int, seed: int) -> dict[str, bool]:
    """Names of the pictures to take a frame of, and whether as a whole."""
    order = np.random.default_rng((seed, 1)).permutation(len(members))
    most = LARGEST_FRAME[0] * LARGEST_FRAME[1]
    whole = {members[i].name: members[i].height * members[i].width <= most for i in order}
    return dict(sorted(whole.items(), key=lambda item: not item[1])[:count])


def _cut(
    source: PictureSource,
    members: Sequence[Member],
    origins: Sequence[Origin],
    size: tuple[int, int],
    whole: dict[str, bool],
) -> tuple[Crops, tuple[Frame, ...]]:
    """Read the pictures that are cut once more."""
    height, width = size
    crops = np.empty((len(origins), height, width, 3), np.uint8)
    frames: dict[str, Frame] = {}
    digests = {member.name: member.sha256 for member in members}
    wanted = {origin.picture for origin in origins} | set(whole)
    for picture in source.read(wanted):
        if pixel_digest(picture.pixels) != digests[picture.name]:
            break
        wanted.discard(picture.name)
        for index, origin in enumerate(origins):
            if origin.picture == picture.name:
                rows = slice(origin.top, origin.top + height)
                crops[index] = picture.pixels[rows, origin.left : origin.left + width]
        if picture.name in whole:
            frames[picture.name] = _frame(picture, whole[picture.name])
    if wanted:
        raise DatasetError(f"{min(wanted)} changed while it was read", "try again")
    return crops, tuple(frames[name] for name in whole)


def _frame(picture: NamedPicture, whole: bool) -> Frame:
    if whole:
        return Frame(Origin(picture.name, 0, 0), picture.pixels, True)
    shape = picture.pixels.shape
    height, width = (min(edge, most) for edge, most in zip(shape, LARGEST_FRAME, strict=False))
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    pixels = picture.pixels[top : top + height, left : left + width].copy()
    return Frame(Origin(picture.name, top, left), pixels, False)


def _digest(arrays: Sequence[Picture]) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(pixel_digest(array).encode())
    return sha256.hexdigest()
