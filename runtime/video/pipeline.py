"""The run: decoder, engine and encoder overlap, in bounded memory, and stop together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av

from ...errors import MediaError
from ...interruption import postponed
from ..session import Frames, Session
from ..tiling import upscale_tiled
from .options import Progress, VideoOptions, VideoResult
from .ordered import OrderedLine, Stopped
from .parts import PartsWriter
from .reader import VideoReader
from .source import Picture
from .streams import check_output
from .writer import VideoWriter

Item: TypeAlias = "Picture | av.Packet[Any]"
Writer: TypeAlias = VideoWriter | PartsWriter
_TICK = 0.1  # seconds between looks of the calling thread


def upscale_video(
    source: Path | BinaryIO,
    output: Path | BinaryIO,
    session: Session,
    options: VideoOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> VideoResult:
    """Upscale a video, copying its audio, subtitles, times, colour and metadata.

    Args:
        source: A video file, or a binary stream of YUV4MPEG2 such as ``sys.stdin.buffer``.
        output: The file to write, which is replaced only at the end, or a binary stream
            that takes YUV4MPEG2.
        session: The engine; ``session.parallel`` calls are kept in flight.
        options: Encoding and tiling.
        progress: Called in this thread, a few times a second and at the end.

    Raises:
        MediaError: The source cannot be read or the output not be written.
        EngineError: The engine failed.
        Interrupted: The caller was, a ``KeyboardInterrupt``; it says what is kept.

    On any of these nothing is left at ``output`` that was not there before; with
    ``options.resume`` finished parts are left beside it (:mod:`.parts`).
    """
    options = options or VideoOptions()
    began = time.perf_counter()
    check_output(source, output)
    reader = VideoReader(source, options.allow_truncated)
    try:
        writer = None
        try:
            # a pipe may wait for its reader, and leaves no file
            with postponed() if isinstance(output, Path) else nullcontext():
                writer = _writer(source, output, reader, session.scale, options)
            run = _Run(reader, writer, session, options)
            run.execute(progress)
            writer.finish()
        except KeyboardInterrupt as exc:
            if writer is None:
                raise
            writer.abandon()
            raise writer.interrupted() from exc
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
    finally:
        reader.close()
    return run.result(time.perf_counter() - began)


def _writer(
    source: Path | BinaryIO,
    output: Path | BinaryIO,
    reader: VideoReader,
    scale: int,
    options: VideoOptions,
) -> Writer:
    if options.resume is None:
        return VideoWriter(output, reader, scale, options)
    if not isinstance(source, Path) or not isinstance(output, Path):
        raise MediaError("a stream cannot be resumed", "name files to use --resume")
    writer = VideoWriter(output, reader, scale, options)
    try:
        return PartsWriter(writer, source, output, scale, options)
    except BaseException:
        writer.abandon()
        raise


class _Run:
    """Threads of one run; the calling thread only waits, so that it can be interrupted."""

    def __init__(
        self, reader: VideoReader, writer: Writer, session: Session, options: VideoOptions
    ) -> None:
        self._reader, self._writer, self._session = reader, writer, session
        self._options = options
        workers = max(1, session.parallel)
        # one frame per worker, one ready for each, one being encoded
        self._line: OrderedLine[Item] = OrderedLine(2 * workers + 1)
        self._engine = _Stopwatch()
        self._finished = threading.Event()
        stages = [self._decode, *[self._infer] * workers, self._encode]
        self._threads = [
            threading.Thread(target=self._guard, args=(stage,), name=stage.__name__, daemon=True)
            for stage in stages
        ]

    def execute(self, progress: Callable[[Progress], None] | None) -> None:
        """Run all stages to the end; raise the first error of any."""
        began = time.perf_counter()
        try:
            for thread in self._threads:
                thread.start()
            reported = -1
            while not self._finished.wait(_TICK):
                if progress is not None and self._writer.frames != reported:
                    reported = self._writer.frames
                    progress(self._progress(began))
        except BaseException as exc:
            self._line.fail(exc)
            raise
        finally:
            self._join()
        if self._line.error is not None:
            raise self._line.error
        if progress is not None:
            progress(replace(self._progress(began), total=self._writer.frames))

    def result(self, seconds: float) -> VideoResult:
        """Figures of the finished run."""
        reader, writer = self._reader, self._writer
        return VideoResult(
            frames=writer.frames,
            seconds=seconds,
            fps=(writer.frames - writer.skip) / seconds,
            width=writer.width,
            height=writer.height,
            codec=writer.codec,
            rate=reader.format.rate,
            engine_seconds=self._engine.total,
            engine_busy_seconds=self._engine.busy,
            peak_in_flight=self._line.peak,
            notes=(*reader.notes, *writer.notes, *self._session.notes),
        )

    def _progress(self, began: float) -> Progress:
        done = self._writer.frames
        made = done - self._writer.skip
        return Progress(done, self._reader.total, made / (time.perf_counter() - began))

    def _join(self) -> None:
        """Wait for every stage: none may touch the file or the engine after this."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _guard(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Stopped:
            pass
        except BaseException as exc:  # handed to the caller, whatever it is
            self._line.fail(exc)
            self._finished.set()

    def _decode(self) -> None:
        skip = self._writer.skip
        for item in self._reader.items():
            picture = isinstance(item, Picture)
            if picture and skip:
                skip -= 1
            elif picture or self._writer.takes_packets:
                self._line.put(item, picture)
        self._line.end()

    def _infer(self) -> None:
        for entry in self._line.work():
            picture = entry.item
            assert isinstance(picture, Picture)  # only pictures want work
            with self._engine:
                pixels = self._upscale(picture.pixels[None])[0]
            self._line.finish(entry, replace(picture, pixels=pixels))

    def _upscale(self, frames: Frames) -> Frames:
        if self._options.tile is None:
            return self._session.upscale(frames)
        return upscale_tiled(self._session, frames, self._options.tile, self._options.halo)

    def _encode(self) -> None:
        for item in self._line.results():
            self._writer.write(item)
        self._finished.set()


class _Stopwatch:
    """Time inside a block that several threads enter: summed, and wall-clock.

    Attributes:
        total: Seconds summed over the threads.
        busy: Seconds during which at least one was inside.
    """

    def __init__(self) -> None:
        self.total = self.busy = 0.0
        self._lock = threading.Lock()
        self._entered: dict[int, float] = {}
        self._since = 0.0

    def __enter__(self) -> None:
        with self._lock:
            now = time.perf_counter()
            if not self._entered:
                self._since = now
            self._entered[threading.get_ident()] = now

    def __exit__(self, *_: object) -> None:
        with self._lock:
            now = time.perf_counter()
            self.total += now - self._entered.pop(threading.get_ident())
            if not self._entered:
                self.busy += now - self._since
