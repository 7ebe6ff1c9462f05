"""Encoding: upscaled pictures and copied packets become a file.

Times are kept exactly wherever the container can store them: the encoder counts in the
source's time base, and frame durations go through it, so a last frame that stays long does so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.codec.context import Flags

from ...errors import Interrupted, MediaError
from .colour import SITING, YuvEncoder
from .formats import EQUAL_TIMES, FIXED_RATE, Y4M, encoder_of, encoder_options, muxer_of
from .options import VideoOptions
from .partial import PartialFile, PipeFile
from .reader import VideoReader
from .scheduling import ordinary_scheduling
from .source import Picture
from .streams import (
    check_rotation,
    declare,
    declare_pixels,
    muxer_options,
    pixel_format_for,
    still_true,
)

# given up in this order where the muxer refuses the header
_OPTIONAL = ("data", "attachment", "video", "subtitle")
_SAFE_RATE = Fraction(25)


class VideoWriter:
    """A video being written.

    Attributes:
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        codec: Encoder in use.
        frames: Pictures taken so far.
        notes: What the output lacks of the source.
        skip: Pictures of the source that are not to be written; none.
    """

    skip = 0
    takes_packets = True

    def __init__(
        self, output: Path | BinaryIO, reader: VideoReader, scale: int, options: VideoOptions
    ) -> None:
        """Write the header.

        Args:
            output: A file, or a binary stream that takes YUV4MPEG2.
            reader: The source, whose properties are taken over.
            scale: Upscaling factor.
            options: Codec and quality.

        Raises:
            MediaError: The container, codec, folder or size is impossible.
        """
        self.notes: list[str] = []
        self.frames = 0
        self._last_pts: int | None = None
        self._last_dts: dict[int, int] = {}
        self._source = reader.format
        self.width, self.height = self._source.width * scale, self._source.height * scale
        self._scale = scale
        self._muxer = muxer_of(output) if isinstance(output, Path) else Y4M
        self._options = options
        check_rotation(output, self._source, self._muxer)
        self._encoder = encoder_of(options.codec, self._muxer)
        if self._encoder.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # its only switch; else it prints on stderr
        self.codec = "rawvideo" if self._muxer == Y4M else self._encoder.name
        self._pixel_format = pixel_format_for(
            self._encoder, self._muxer, (self.width, self.height), self.notes
        )
        self._to_yuv = YuvEncoder(self._source.colour, self._pixel_format)
        self._start(output, reader)

    def write(self, item: Picture | av.Packet[Any]) -> None:
        """Encode a picture or copy a packet.

        Raises:
            MediaError: The encoder or the muxer fails, or the disk is full.
        """
        if isinstance(item, Picture):
            self._write_picture(item)
            return
        target = self._copies.get(item.stream.index)
        if target is not None:
            self._order(item)
            item.stream = target
            self._mux([item])

    def finish(self) -> None:
        """Flush the encoder, write the trailer and give the file its name.

        Raises:
            MediaError: The encoder or the muxer fails, or the disk is full.
        """
        self._mux(self._encode(None))
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as exc:
            raise self._failure("the end of the file", exc) from exc
        self._file.commit()

    def abandon(self) -> None:
        """Stop and remove the file, in whatever state it is."""
        self._file.discard()  # first: PyAV writes no trailer to a closed file
        with suppress(av.FFmpegError, OSError):  # the error that led here is the one to tell
            self._container.close()

    def interrupted(self) -> Interrupted:
        """What to tell of a run that was asked to end."""
        return Interrupted()

    def _order(self, packet: av.Packet[Any]) -> None:
        """Move a copied packet that does not come after the one before it, where it must."""
        if packet.dts is None or self._muxer in EQUAL_TIMES:
            return
        index, last = packet.stream.index, self._last_dts.get(packet.stream.index)
        if last is not None and packet.dts <= last:
            packet.dts = last + 1
            packet.pts = max(packet.dts, packet.dts if packet.pts is None else packet.pts)
            note = f"packets of stream {index} had times out of order and were moved"
            if note not in self.notes:
                self.notes.append(note)
        self._last_dts[index] = packet.dts

    @property
    def extradata(self) -> bytes:
        """Header of the encoder."""
        return bytes(self._stream.codec_context.extradata or b"")

    @property
    def time_base(self) -> Fraction:
        """Unit of the encoder's times, in seconds."""
        return self._base

    @property
    def copied_streams(self) -> tuple[int, ...]:
        """Indices of the source's streams whose packets are taken."""
        return tuple(self._copies)

    def new_encoder(self) -> Any:
        """Another encoder like that of the output, opened.

        Raises:
            MediaError: It refuses to be.
        """
        context: Any = av.CodecContext.create(self.codec, "w")
        context.framerate = self._source.rate or _SAFE_RATE
        context.options = self._codec_options
        self._set_up(context)
        context.flags = self._stream.codec_context.flags  # where the muxer wants the header
        try:
            with ordinary_scheduling():
                context.open()
        except av.FFmpegError as exc:
            raise self._failure(f"frame {self.frames + 1}", exc) from exc
        return context

    def encode_with(self, encoder: Any, frame: av.VideoFrame | None) -> list[av.Packet[Any]]:
        """Packets of an encoder of :meth:`new_encoder`; None for the frame ends it.

        Raises:
            MediaError: It fails.
        """
        try:
            return list(encoder.encode(frame))
        except av.FFmpegError as exc:
            raise self._failure("a frame", exc) from exc

    def write_encoded(self, packet: av.Packet[Any]) -> None:
        """Take a packet that another encoder made.

        Raises:
            MediaError: The muxer fails, or the disk is full.
        """
        packet.stream = self._stream
        self._mux([packet])

    def continue_after(self, pts: int) -> None:
        """Let frames be numbered after this one where the container counts them."""
        self._last_pts = pts

    def frame_of(self, picture: Picture) -> av.VideoFrame:
        """A picture as its encoder takes it."""
        frame = self._to_yuv(picture.pixels)
        frame.time_base = self._base
        if self._base == self._source.time_base:
            frame.pts, frame.duration = picture.pts, picture.duration
        else:
            frame.pts = self._frame_number(picture.pts)
        return frame

    def _write_picture(self, picture: Picture) -> None:
        self._mux(self._encode(self.frame_of(picture)))
        self.frames += 1

    def _frame_number(self, pts: int) -> int:
        """Place of a time among the frames of a container with a fixed rate."""
        exact = pts * self._source.time_base / self._base
        number = round(exact)
        if self._last_pts is not None and number <= self._last_pts:
            number = self._last_pts + 1
        if number != exact and not any("fixed rate" in note for note in self.notes):
            self.notes.append("uneven times were rounded: the container has a fixed rate")
        self._last_pts = number
        return number

    def _encode(self, frame: av.VideoFrame | None) -> list[av.Packet[Any]]:
        try:
            return list(self._stream.encode(frame))
        except av.FFmpegError as exc:
            raise self._failure(f"frame {self.frames + 1}", exc) from exc

    def _mux(self, packets: Iterable[av.Packet[Any]]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as exc:
            raise self._failure(f"frame {self.frames + 1}", exc) from exc

    def _failure(self, place: str, exc: Exception) -> MediaError:
        if isinstance(exc, OSError) and not isinstance(exc, av.FFmpegError):
            return self._file.error(exc)
        text = getattr(exc, "strerror", None) or exc
        return MediaError(
            f"{self._file.name}: {self.codec} or the container {self._muxer} failed at {place}: "
            f"{text}",
            "try another --codec or container",
        )

    def _start(self, output: Path | BinaryIO, reader: VideoReader) -> None:
        """Write the header, without the streams that the muxer refuses."""
        streams, refused = list(reader.copied), list(_OPTIONAL)
        if self._muxer == Y4M:
            self._drop(streams)
            streams = []
        while True:
            self._file = PartialFile(output) if isinstance(output, Path) else PipeFile(output)
            try:
                self._open(reader, streams)
                return
            except MediaError:
                self._file.discard()
                while refused and not any(s.type == refused[0] for s in streams):
                    refused.pop(0)
                if not refused:
                    raise
                self._drop([s for s in streams if s.type == refused[0]])
                streams = [s for s in streams if s.type != refused[0]]
            except BaseException:
                self._file.discard()
                raise

    def _open(self, reader: VideoReader, streams: list[Any]) -> None:
        self._container = av.open(
            self._file,
            "w",
            format=self._muxer,
            container_options=muxer_options(self._muxer, self._source),
            buffer_size=1 << 20,
        )
        self._stream = self._add_video(reader)
        self._copies = {s.index: t for s in streams if (t := self._add_copy(s)) is not None}
        self._container.metadata.update(still_true(reader.container.metadata))
        self._container.set_chapters(reader.container.chapters())
        try:
            with ordinary_scheduling():
                self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as exc:
            raise self._failure("the header", exc) from exc
        self._note_rounding()

    def _add_video(self, reader: VideoReader) -> Any:
        source = self._source
        rate = source.rate or _SAFE_RATE
        self._base = 1 / rate if self._muxer in FIXED_RATE else source.time_base
        options: dict[str, str] = {}
        if self._muxer != Y4M:
            options = encoder_options(self._encoder, self._options.crf, self._options.preset)
        if self._pixel_format == "yuv420p":
            options = options | SITING
        try:
            stream: Any = self._container.add_stream(self.codec, rate=rate, options=options)
        except (av.FFmpegError, ValueError) as exc:
            raise MediaError(
                f"the container {self._muxer} takes no {self.codec}: {exc}",
                "choose another --codec, or .mkv, which takes all",
            ) from exc
        self._codec_options = options
        stream.time_base = self._base
        self._set_up(stream.codec_context)
        declare(stream, source, self._scale)
        stream.metadata.update(still_true(reader.stream.metadata))
        stream.disposition = reader.stream.disposition
        return stream

    def _set_up(self, context: Any) -> None:
        """What every encoder of this output is told."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = self._pixel_format
        context.time_base = self._base
        context.flags |= Flags.frame_duration
        context.thread_count = self._options.encoder_threads
        context.thread_type = "AUTO"  # PyAV's default makes x264 cut every frame into slices
        if self._muxer in FIXED_RATE:
            context.max_b_frames = 0  # such a container stores no order of display
        declare_pixels(context, self._source)

    def _add_copy(self, source: Any) -> Any:
        """A stream for copied packets; None where the container does not take it."""
        try:
            copy = self._container.add_stream_from_template(source, opaque=True)
        except (av.FFmpegError, ValueError) as exc:
            if source.type == "audio":
                raise MediaError(
                    f"the container {self._muxer} cannot hold the source's {source.name} audio",
                    "keep the source's container, or choose .mkv, which takes all",
                ) from exc
            self._drop([source])
            return None
        copy.metadata.update(still_true(source.metadata))
        copy.disposition = source.disposition
        return copy

    def _drop(self, streams: Iterable[Any]) -> None:
        for stream in streams:
            name = getattr(stream, "name", None) or "unknown"
            self.notes.append(
                f"stream {stream.index} ({stream.type}, {name}) was left out: {self._muxer} "
                "does not take it"
            )

    def _note_rounding(self) -> None:
        stored = Fraction(self._stream.time_base or self._base)
        if (self._base / stored).denominator != 1:
            self.notes.append(
                f"times were rounded to {stored} s, the unit of the container {self._muxer}"
            )
