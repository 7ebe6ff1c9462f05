"""The check that makes an fp16 graph safe: what passes half of its range stays in float32."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ..calib.calibration_set import CalibrationSet, make_calibration_set
from ..calib.crops import CROP_SIZE, holds
from ..calib.half_range import LargeTensor, large_tensors
from ..calib.pictures import HeldPictures, NamedPicture, PictureSource, load_pictures
from ..calib.ranges import Progress
from ..errors import DatasetError
from ..export.precision import pin_touching
from ..spec import Precision
from . import Say
from .calibration import bundled

CROP_COUNT = 8
"""Seconds on two cores for VapSR-S: what passes half of the range mostly does on every picture."""


@dataclass(frozen=True)
class Checked:
    """A graph that can be lowered.

    Attributes:
        model: Float32, the islands pinned.
        islands: Names of the nodes that were pinned for it.
        notes: One sentence per tensor beyond half of the range.
    """

    model: onnx.ModelProto
    islands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class HalfRange:
    """Checks graphs on calibration pictures; one that comes again is not run again.

    Args:
        calibration: Pictures and folders; empty for the bundled pictures.
        say: Told each tensor that was found, once.
        progress: Told the crops that are done.
    """

    def __init__(
        self, calibration: Sequence[Path], say: Say, progress: Progress | None = None
    ) -> None:
        self._calibration = calibration
        self._say = say
        self._progress = progress
        self._known: dict[bytes, Checked] = {}

    def pin(self, model: onnx.ModelProto, written: Precision) -> Checked:
        """Pin what must not be stored in fp16; a graph that becomes another type is as it was.

        Args:
            model: Float32, with or without Q/DQ; it is not changed.
            written: What it will be lowered to.

        Raises:
            DatasetError: A picture cannot be read, or the network is not finite on one.
        """
        if written is not Precision.FP16:
            return Checked(model)
        key = hashlib.sha256(model.SerializeToString(deterministic=True)).digest()
        if key not in self._known:
            self._known[key] = self._checked(model)
        return self._known[key]

    def _checked(self, model: onnx.ModelProto) -> Checked:
        size, count = _crops_of(model)
        cut = self._cut(size, count)
        found = large_tensors(model, cut.crops, cut.origins, self._progress)
        pinned = onnx.ModelProto()
        pinned.CopyFrom(model)
        islands = pin_touching(pinned, {t.tensor for t in found}, {t.node for t in found})
        notes = tuple(map(sentence, found))
        for note in notes:
            self._say(note)
        return Checked(pinned, islands, notes)

    def _cut(self, size: tuple[int, int], count: int) -> CalibrationSet:
        source = self._source()
        try:
            return make_calibration_set(source, size, count, 0)
        except DatasetError:  # perhaps none is large enough
            pictures = list(source.read())
            if not pictures or any(holds(p.pixels.shape, size) for p in pictures):
                raise
            return make_calibration_set([_filled(p, size) for p in pictures], size, count, 0)

    def _source(self) -> PictureSource:
        if self._calibration:
            return load_pictures(self._calibration)
        return HeldPictures(bundled("calibration"))


def sentence(found: LargeTensor) -> str:
    """What a manifest says of a tensor beyond half of fp16's range."""
    place = f" on {found.picture}" if found.picture else ""
    if found.row is not None:
        place += f" at row {found.row}, column {found.column} (channel {found.channel})"
    return (
        f"{found.tensor} of {found.node} reaches {found.magnitude:,.0f}{place}, beyond half of"
        f" fp16's range: it stays in float32"
    )


def _crops_of(model: onnx.ModelProto) -> tuple[tuple[int, int], int]:
    """Size and number of crops; a static graph takes its own size alone, about as many pixels."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    height, width = (
        dims[axis].dim_value or edge for axis, edge in zip((2, 3), CROP_SIZE, strict=True)
    )
    pixels = CROP_COUNT * CROP_SIZE[0] * CROP_SIZE[1]
    return (height, width), min(CROP_COUNT, max(1, pixels // (height * width)))


def _filled(picture: NamedPicture, size: tuple[int, int]) -> NamedPicture:
    """A picture, mirrored at its edges to hold a crop."""
    height, width = (
        max(edge, least) for edge, least in zip(picture.pixels.shape[:2], size, strict=True)
    )
    pads = ((0, height - picture.pixels.shape[0]), (0, width - picture.pixels.shape[1]), (0, 0))
    pixels = np.pad(picture.pixels, pads, mode="symmetric")
    return NamedPicture(f"{picture.name} mirrored to {width}×{height}", pixels)
