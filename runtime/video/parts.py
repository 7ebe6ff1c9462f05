"""A video that is encoded in parts, so that a run which was cut short goes on.

Every part is some frames from an encoder of its own, which begins with a keyframe and refers to
no other part, stored as packets in ``.OUTPUT.parts`` beside the output. At the end the packets
of all parts go into the output as they are, with audio and the rest copied from the source.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ...errors import Interrupted, MediaError, OutputError
from ...files import digest_file, write_bytes
from .options import VideoOptions
from .source import Picture, open_source
from .writer import VideoWriter

PART_FRAMES = 120
"""Frames of a part: what is lost at most, and the longest distance between keyframes."""

_FORMAT = 1


def parts_folder(output: Path) -> Path:
    """``.OUTPUT.parts`` beside the output."""
    return output.with_name(f".{output.name}.parts")


@dataclass(frozen=True)
class Part:
    """Encoded frames.

    Attributes:
        frames: How many.
        extradata: The encoder's header.
        packets: Time of display, time of decoding, duration, whether a keyframe, and bytes.
    """

    frames: int
    extradata: bytes
    packets: tuple[tuple[int, int, int, bool, bytes], ...]

    def dump(self) -> bytes:
        """As the content of a file: a line of JSON, then the packets' bytes."""
        head = {
            "frames": self.frames,
            "extradata": self.extradata.hex(),
            "packets": [(*packet[:4], len(packet[4])) for packet in self.packets],
        }
        return json.dumps(head).encode() + b"\n" + b"".join(p[4] for p in self.packets)

    @classmethod
    def load(cls, path: Path) -> Part:
        """Read a part.

        Raises:
            MediaError: It is damaged.
        """
        try:
            line, _, body = path.read_bytes().partition(b"\n")
            head = json.loads(line)
            packets, place = [], 0
            for pts, dts, duration, key, size in head["packets"]:
                packets.append((pts, dts, duration, key, body[place : place + size]))
                place += size
            if place != len(body) or len(packets) < 1:
                raise ValueError("its length is wrong")
            return cls(int(head["frames"]), bytes.fromhex(head["extradata"]), tuple(packets))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise MediaError(
                f"{path} is damaged: {exc}", f"remove the folder {path.parent} and start again"
            ) from exc


class PartsWriter:
    """Takes pictures as :class:`.VideoWriter` does, and keeps what is encoded.

    Args:
        writer: The output, which gets everything at the end.
        source: The source, whose audio and the rest are copied then.
        output: The file to write.
        scale: Upscaling factor.
        options: Of the run; ``resume`` says which engine it is.

    Attributes:
        frames: Pictures in finished parts and those taken since.
        skip: Pictures that finished parts of an earlier run hold.

    Raises:
        MediaError: A part is damaged.
        OutputError: The folder cannot be made.
    """

    takes_packets = False

    def __init__(
        self, writer: VideoWriter, source: Path, output: Path, scale: int, options: VideoOptions
    ) -> None:
        self._writer, self._source = writer, source
        self._folder = parts_folder(output)
        self.width, self.height, self.codec = writer.width, writer.height, writer.codec
        self.notes = writer.notes
        self._encoder: Any = None
        self._packets: list[av.Packet[Any]] = []
        self._frames_in_part = 0
        self._paths = self._earlier(_key(source, scale, options))
        parts = [Part.load(path) for path in self._paths]
        self.frames = self.skip = sum(part.frames for part in parts)
        if parts:
            self.notes.append(f"the first {self.skip} frames are from an earlier run")
            writer.continue_after(max(packet[0] for packet in parts[-1].packets))

    def write(self, item: Picture | av.Packet[Any]) -> None:
        """Encode a picture; every so often a part is written.

        Raises:
            MediaError: The encoder fails.
            OutputError: The disk is full.
        """
        assert isinstance(item, Picture)  # it takes no packets
        if self._encoder is None:
            self._encoder = self._writer.new_encoder()
        self._packets += self._writer.encode_with(self._encoder, self._writer.frame_of(item))
        self._frames_in_part += 1
        self.frames += 1
        if self._frames_in_part >= PART_FRAMES:
            self._end_part()

    def finish(self) -> None:
        """Write the last part, put all into the output, and remove the parts.

        Raises:
            MediaError: The muxer fails, or a part is damaged.
            OutputError: The disk is full.
        """
        if self._encoder is not None:
            self._end_part()
        self._join()
        self._writer.finish()
        shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        """Remove the output; finished parts stay for the next run."""
        self._writer.abandon()
        if not self._paths:
            shutil.rmtree(self._folder, ignore_errors=True)

    def interrupted(self) -> Interrupted:
        """What to tell of a run that was asked to end."""
        kept = self.frames - self._frames_in_part
        if not kept:
            return Interrupted(
                f"interrupted before the first {PART_FRAMES} frames were done; nothing is kept",
                "the same command begins again",
            )
        return Interrupted(
            f"interrupted; the first {kept} frames are kept in {self._folder}",
            f"the same command goes on from frame {kept + 1}",
        )

    def _earlier(self, key: str) -> list[Path]:
        """Parts of an earlier run of the same kind; those of another one are removed."""
        name = self._folder / "run.json"
        try:
            if self._folder.is_dir():
                if name.is_file() and name.read_text(encoding="utf-8") == key:
                    return sorted(self._folder.glob("*.part"))
                shutil.rmtree(self._folder)
                self.notes.append(
                    "parts of a run with other options, engine or source were removed"
                )
            self._folder.mkdir()
        except OSError as exc:
            raise OutputError(f"{self._folder} could not be made: {exc.strerror or exc}") from exc
        write_bytes(name, key.encode())
        return []

    def _end_part(self) -> None:
        packets = self._packets + self._writer.encode_with(self._encoder, None)
        part = Part(
            self._frames_in_part,
            bytes(self._encoder.extradata or b""),
            tuple(
                (p.pts or 0, p.dts or 0, p.duration or 0, bool(p.is_keyframe), bytes(p))
                for p in packets
            ),
        )
        path = self._folder / f"{len(self._paths):06}.part"
        write_bytes(path, part.dump())
        self._paths.append(path)
        self._encoder, self._packets, self._frames_in_part = None, [], 0

    def _join(self) -> None:
        """Mux all parts and what is copied, in the order of time."""
        with open_source(self._source) as container:
            streams = [container.streams[index] for index in self._writer.copied_streams]
            copied = (p for p in container.demux(streams) if p.dts is not None or p.size)
            waiting = next(copied, None) if streams else None
            for packet in self._encoded():
                while waiting is not None and _seconds(waiting) <= _seconds(packet):
                    self._writer.write(waiting)
                    waiting = next(copied, None)
                self._writer.write_encoded(packet)
            while waiting is not None:
                self._writer.write(waiting)
                waiting = next(copied, None)

    def _encoded(self) -> Iterator[av.Packet[Any]]:
        """The packets of all parts.

        An encoder guesses the times of decoding of its first packets. Where frames are not
        evenly spaced these may reach back into the part before: then they move up. There is
        room for it: as many frames as an encoder reorders lie between them and their display.
        """
        last: int | None = None
        for path in self._paths:
            part = Part.load(path)
            if part.extradata != self._writer.extradata:
                raise MediaError(
                    f"{path} was made by another version of {self.codec}",
                    f"remove the folder {self._folder} and start again",
                )
            for pts, dts, duration, key, data in part.packets:
                packet: av.Packet[Any] = av.Packet(data)
                dts = dts if last is None else max(dts, last + 1)
                packet.pts, packet.dts, packet.duration, last = pts, dts, duration, dts
                packet.is_keyframe = key
                packet.time_base = self._writer.time_base
                yield packet


def _seconds(packet: av.Packet[Any]) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction(0) if time is None else time * Fraction(packet.time_base)


def _key(source: Path, scale: int, options: VideoOptions) -> str:
    """What must be the same for parts to go together, as JSON."""
    return json.dumps(
        {
            "format": _FORMAT,
            "source": digest_file(source),
            "scale": scale,
            "options": asdict(replace(options, encoder_threads=0)),
            "libraries": av.library_versions,
        },
        sort_keys=True,
    )
