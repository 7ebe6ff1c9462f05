"""Calibration sets of the commands, and that nothing is judged on what it was calibrated on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import data
from ..calib.calibration_set import CalibrationSet, make_calibration_set
from ..calib.fingerprint import Fingerprint, find_same, fingerprint, read_fingerprint
from ..calib.pictures import (
    HeldPictures,
    NamedPicture,
    PictureSource,
    Together,
    load_pictures,
)
from ..errors import DatasetError
from ..spec import Manifest
from ..validate.datasets import Dataset, Picture, read_picture
from . import Say

_SHOWN = 5  # pictures that a message names


def bundled(split: str) -> tuple[NamedPicture, ...]:
    """The bundled pictures of a split."""
    return tuple(NamedPicture(p.name, p.read()) for p in data.pictures(split))


def open_calibration_set(
    paths: Sequence[Path], strict: bool, say: Say, alone: bool = False
) -> CalibrationSet:
    """Make the set of the user's pictures and the bundled drawings, or of all bundled pictures, and
    say what it is.

    Args:
        paths: Pictures, videos and folders; empty for the bundled pictures.
        strict: Whether a damaged file in a folder is an error, instead of being skipped.
        say: Takes lines for the user.
        alone: Whether the bundled drawings are left out. Their saturated and flat areas reach
            ranges that photographs rarely do.

    Raises:
        DatasetError: There is no usable picture, or the set shares one with the bundled tuning
            or proof pictures.
        MediaError: A video is damaged.
    """
    ours = [p for p in data.pictures("calibration") if p.drawn or not paths]
    held = HeldPictures([NamedPicture(p.name, p.read()) for p in ours])
    source: PictureSource = held
    if paths:
        theirs = load_pictures(paths, strict)
        source = theirs if alone else Together(theirs, held)
    made = make_calibration_set(source)
    names = {p.name for p in ours}
    count = sum(member.name not in names for member in made.members)
    if paths and not count:
        _say_left(made, say)
        raise DatasetError(
            "none of your calibration pictures can be used",
            "give pictures of at least 120×80 pixels, or leave --calib out",
        )
    refuse_shared(made.fingerprints, "--calib")
    with_ours = "" if alone else f" and {len(made.members) - count} bundled drawings"
    whose = f"{count} of your pictures{with_ours}" if paths else f"{len(names)} bundled pictures"
    say(f"calibrating on {whose} …")
    _say_left(made, say)
    # our drawings make no set of the user's rich
    covered = replace(made.coverage, pictures=count) if paths else made.coverage
    for warning in covered.warnings():
        say(f"the calibration set is poor: {warning}")
    return made


def _say_left(made: CalibrationSet, say: Say) -> None:
    """Say how many files gave nothing, and why the first of each kind did not."""
    kinds = (
        ("skipped as damaged", [f"{name}: {reason}" for name, reason in made.skipped]),
        ("left out", [f"{name}: {reason}" for name, reason in made.left_out]),
        ("left out as repeats", [f"{name} shows what {of} shows" for name, of in made.duplicates]),
    )
    for kind, lines in kinds:
        if lines:
            say(f"{len(lines)} {kind}: {_listed(lines, '; ')}")


def refuse_shared(known: Mapping[str, Fingerprint], option: str) -> None:
    """Refuse what shares a picture with those that choose layers or prove the drift.

    Args:
        known: Of the pictures, by name.
        option: What gave them.

    Raises:
        DatasetError: They do.
    """
    for split in ("tuning", "proof"):
        shared = find_shared(known, ((p.name, p.pixels) for p in bundled(split)))
        if shared:
            pairs = [f"{theirs} is {ours}" for ours, theirs in shared]
            raise DatasetError(
                f"{option} shares pictures with the bundled {split} pictures: {_listed(pairs)}",
                "take them out: the layers are chosen, or the drift is proven, on them",
            )


def refuse_calibrated(manifest: Manifest, datasets: Sequence[Dataset]) -> None:
    """Refuse to judge an engine on what it was calibrated on.

    Raises:
        DatasetError: A data set holds such pictures, or a picture is damaged.
        EngineError: The manifest holds something else than fingerprints.
    """
    known = {text: read_fingerprint(text) for text in manifest.calibration_pictures}
    if not known:
        return
    pictures = ((f"{d.name}/{p.name}", read_picture(p.hr)) for d in datasets for p in d.pairs)
    shared = find_shared(known, pictures)
    if shared:
        names = [name for name, _ in shared]
        raise DatasetError(
            f"{manifest.engine_file} was calibrated on {len(names)} of these pictures:"
            f" {_listed(names)}",
            "measure it on others, or build it with another --calib",
        )


def find_shared(
    known: Mapping[str, Fingerprint], pictures: Iterable[tuple[str, Picture]]
) -> list[tuple[str, str]]:
    """(name, name among ``known``) of the named ``pictures`` that show the same as one known."""
    found = ((name, find_same(fingerprint(pixels), known)) for name, pixels in pictures)
    return [(name, same) for name, same in found if same is not None]


def _listed(lines: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return separator.join(lines[:_SHOWN]) + more
