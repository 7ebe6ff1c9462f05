"""Decoding: a file becomes RGB pictures with their times, and packets to be copied.

Pictures and packets come in the order of the file, so that what is written from them is
interleaved as the source was, and memory does not grow with the clip's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av

from ...errors import MediaError
from .colour import RgbDecoder
from .formats import Y4M
from .source import (
    Y4M_HINT,
    Picture,
    Pipe,
    choose_stream,
    describe,
    is_cover,
    losses,
    missing_of_frame,
    missing_part,
    name_of,
    open_source,
    reason_of,
)

_COPIED = frozenset({"audio", "subtitle", "data", "attachment"})


class VideoReader:
    """An open video.

    Attributes:
        name: Of the file, for messages.
        container: PyAV's container.
        stream: The video stream that is decoded.
        copied: Streams whose packets come undecoded.
        format: What the first frame says.
        total: Expected number of frames, None if unknown.
        notes: What a user should know of the source; grows while reading.
    """

    def __init__(
        self, source: Path | BinaryIO, allow_truncated: bool = False, only_keys: bool = False
    ) -> None:
        """Open a video and decode its first frame.

        Args:
            source: A file, or a binary stream of YUV4MPEG2.
            allow_truncated: Take what decodes of a damaged file.
            only_keys: Decode key frames alone, which need no other frame.

        Raises:
            MediaError: It is missing, no video, cut short, or has no frame.
        """
        self._source = source if isinstance(source, Path) else Pipe(source)
        self.name = name_of(self._source)
        self.notes: list[str] = []
        self._lenient = allow_truncated
        self._only_keys = only_keys
        self._decode_rgb = RgbDecoder()
        self._decoded = self._read = self._damaged = self._moved = 0
        self._end_of_frame = self._frame_bytes = 0
        self._last_pts: int | None = None
        if isinstance(source, Path):
            self._check_whole(missing_part(source))
        self.container = open_source(self._source)
        try:
            self.stream = choose_stream(self.container, self.name)
            self.copied = self._streams_to_copy()
            self._first_frame: av.VideoFrame | None = None
            self._items = self._demux()
            self._ahead, first = self._read_ahead()
            if isinstance(source, Path) and self.container.format.name == Y4M:
                missing = missing_of_frame(source, self._end_of_frame, self._frame_bytes)
                self._check_whole(missing)
            self.format = describe(first, self.stream, self._starts())
            self.notes += losses(first, self.stream)
            self.total = self._expected()
        except BaseException:
            self.container.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def items(self) -> Iterator[Picture | av.Packet[Any]]:
        """Pictures in order of display, and packets of ``copied``, as they lie in the file.

        Raises:
            MediaError: The file is damaged, or its frames change their size.
        """
        yield from self._ahead
        self._ahead = []
        yield from self._items
        self._check_end()

    def _check_whole(
        self, missing: str | None, advice: str = "copy or download the file again"
    ) -> None:
        if missing is None:
            return
        if not self._lenient:
            raise MediaError(
                f"{self.name} {missing}", f"{advice}; --allow-truncated takes what decodes"
            )
        self.notes.append(f"the source {missing}")

    def _check_pipe(self) -> None:
        """Find the frame that a pipe ends in, which the demuxer drops in silence."""
        source = self._source
        if isinstance(source, Pipe) and self._read and source.taken > self._end_of_frame:
            self._check_whole(
                f"is cut short: it ends in the middle of frame {self._read + 1}",
                "see what the program before the pipe says",
            )

    def _streams_to_copy(self) -> list[Any]:
        others = [s for s in self.container.streams.video if s is not self.stream]
        left_out = sum(not is_cover(s) for s in others)
        if left_out:
            self.notes.append(f"{left_out} further video stream(s) were left out")
        return [
            s
            for s in self.container.streams
            if s is not self.stream and (s.type in _COPIED or is_cover(s))
        ]

    def _read_ahead(self) -> tuple[list[Picture | av.Packet[Any]], av.VideoFrame]:
        """Everything up to the first picture, whose properties the writer needs."""
        ahead: list[Picture | av.Packet[Any]] = []
        for item in self._items:
            ahead.append(item)
            if self._first_frame is not None:
                return ahead, self._first_frame
        raise MediaError(
            f"{self.name} has no video frame that can be decoded",
            "check that it plays" if isinstance(self._source, Path) else Y4M_HINT,
        )

    def _starts(self) -> tuple[Fraction, ...]:
        video = [(self._last_pts or 0) * Fraction(self.stream.time_base or 0)]
        copied = [s.start_time * s.time_base for s in self.copied if s.start_time and s.time_base]
        return tuple(video + copied)

    def _expected(self) -> int | None:
        if self.stream.frames:
            return int(self.stream.frames)
        if self.format.rate is None:
            return None
        if self.stream.duration:
            return round(self.stream.duration * self.format.time_base * self.format.rate)
        if self.container.duration:
            return round(Fraction(self.container.duration, av.time_base) * self.format.rate)
        return None

    def _demux(self) -> Iterator[Picture | av.Packet[Any]]:
        packets = self.container.demux([self.stream, *self.copied])
        while True:
            try:
                packet = next(packets, None)
            except InterruptedError as exc:
                raise KeyboardInterrupt from exc
            except av.FFmpegError as exc:
                self._damage(f"{self.name} is damaged after frame {self._decoded}", exc)
                packets = iter(())
                packet = av.Packet()  # what the decoder still holds is good
                yield from self._decode(packet, flush=True)
                return
            if packet is None:
                self._check_pipe()
                return
            if packet.stream is not self.stream:
                if packet.dts is not None or packet.size:
                    yield packet
                continue
            last = packet.dts is None and not packet.size
            self._read += not last
            if not last:
                self._end_of_frame = (packet.pos or 0) + packet.size
                self._frame_bytes = packet.size
            if self._only_keys and not (packet.is_keyframe or last):
                continue
            if packet.size or last:  # an empty packet in between would end the decoder
                yield from self._decode(packet)

    def _decode(self, packet: av.Packet[Any], flush: bool = False) -> Iterator[Picture]:
        try:
            frames = self.stream.codec_context.decode(None if flush else packet)
        except av.FFmpegError as exc:
            self._damage(
                f"{self.name} is damaged: frame {self._decoded + 1} cannot be decoded", exc
            )
            return
        for frame in frames:
            yield self._picture(frame)

    def _picture(self, frame: av.VideoFrame) -> Picture:
        first = self._first_frame
        if first is None:
            self._first_frame = first = frame
        if (frame.width, frame.height) != (first.width, first.height):
            raise MediaError(
                f"{self.name}: frame {self._decoded + 1} is {frame.width}×{frame.height} pixels, "
                f"the frames before it {first.width}×{first.height}",
                "cut the video where its size changes and upscale the parts",
            )
        self._decoded += 1
        self._damaged += frame.is_corrupt
        return Picture(self._stamp(frame), int(frame.duration or 0), self._decode_rgb(frame))

    def _stamp(self, frame: av.VideoFrame) -> int:
        """The frame's time; where the file stores none, one step after the last."""
        pts = frame.pts if frame.pts is not None else frame.dts
        last = self._last_pts
        if pts is None:
            pts = 0 if last is None else last + self._step()
        elif last is not None and pts <= last:
            # a player would show neither of two frames of one time; encoders refuse them
            pts = last + 1
            self._moved += 1
        self._last_pts = pts
        return int(pts)

    def _step(self) -> int:
        rate, base = self.stream.average_rate, self.stream.time_base
        return max(1, round(1 / (rate * base))) if rate and base else 1

    def _damage(self, message: str, cause: Exception) -> None:
        if not self._lenient:
            raise MediaError(
                f"{message}: {reason_of(cause)}",
                "copy the file again; --allow-truncated takes what decodes",
            ) from cause
        self.notes.append(message)

    def _check_end(self) -> None:
        known = len(self.stream.index_entries)
        if self._read < known:
            self._check_whole(f"ends early: {self._decoded} of its {known} frames could be decoded")
        if self._damaged:
            self.notes.append(f"{self._damaged} frame(s) of the source are damaged")
        if self._moved:
            self.notes.append(
                f"{self._moved} frame(s) had a time not after the frame before and were moved"
            )
