"""The file that FFmpeg's muxer writes into: whole under its name, or not there at all.

The muxer gets a Python file instead of a path because then every failed write is an
``OSError`` with its reason, and the file is closed, and its space free, whatever the muxer's
state is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ...errors import MediaError
from ...interruption import interrupt_again


class PartialFile:
    """A file under a temporary name beside its final one."""

    def __init__(self, output: Path) -> None:
        """Create the temporary file.

        Raises:
            MediaError: The folder is missing or cannot be written.
        """
        self._output = output
        # the ending stays, so that a leftover of a killed process still opens
        self._path = output.with_name(f".{output.stem}.{os.getpid()}.partial{output.suffix}")
        self.name = str(self._path)
        try:
            # without Python's buffer: the muxer has its own, and seeking must not fail late
            self._file = self._path.open("w+b", buffering=0)
        except OSError as exc:
            raise self.error(exc) from exc

    def write(self, data: bytes) -> int:
        """Write all of ``data``; a raw file may take only a part when the disk is nearly full."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._file.write(rest) :]
            except KeyboardInterrupt:
                # PyAV, which calls this, would lose it: ask again when it is through
                interrupt_again()
        return len(data)

    def read(self, size: int) -> bytes:
        """Read back, as some muxers do when they finish."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Current position."""
        return self._file.tell()

    @property
    def closed(self) -> bool:
        """Whether it is closed; PyAV then writes no trailer."""
        return self._file.closed

    def commit(self) -> None:
        """Give the file its final name.

        Raises:
            MediaError: The last bytes could not be stored, or the name not be given.
        """
        try:
            self._file.close()
            self._path.replace(self._output)
        except OSError as exc:
            raise self.error(exc) from exc

    def discard(self) -> None:
        """Close and remove the file; nothing happens where it was committed."""
        try:
            self._file.close()
        finally:
            self._path.unlink(missing_ok=True)

    def error(self, exc: OSError) -> MediaError:
        """What to tell of a failed write."""
        return MediaError(
            f"{self._output} could not be written: {exc.strerror or exc}",
            "check that the folder exists, is writable and has space",
        )


class PipeFile:
    """A binary stream, such as standard output, that can only be written to."""

    name = "standard output"
    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Write all of ``data``."""
        self._stream.write(data)
        return len(data)

    def commit(self) -> None:
        """Flush what was written.

        Raises:
            MediaError: The reader is gone.
        """
        try:
            self._stream.flush()
        except OSError as exc:
            raise self.error(exc) from exc

    def discard(self) -> None:
        """Nothing can be taken back from a stream; PyAV must not add a trailer to it."""
        self.closed = True

    def error(self, exc: OSError) -> MediaError:
        """What to tell of a failed write."""
        return MediaError(
            f"standard output could not be written: {exc.strerror or exc}",
            "the program that reads it has ended, or its disk is full",
        )
