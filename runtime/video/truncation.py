"""Whether a media file is shorter than its own headers say.

Demuxers end quietly where a file ends, so a copy that was cut would pass for a shorter video.
ISO media (MP4, MOV; ISO/IEC 14496-12), Matroska (RFC 9559) and RIFF (AVI) store the length of
their top-level boxes, so the end of a whole file is known. YUV4MPEG2 stores none, but its frames
are all of one size.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_Y4M_FRAME, _Y4M_LONGEST_LINE = b"FRAME", 80  # FFmpeg reads no longer one
_ISO_BOXES = frozenset(
    b"ftyp moov mdat free skip wide styp pnot moof mfra sidx meta uuid udta emsg".split()
)


def declared_size(path: Path) -> int | None:
    """Bytes that the file's headers ask for; None where they do not say.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == _EBML:
            return _matroska(file)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _riff(file, path.stat().st_size)
        if head[4:8] in _ISO_BOXES:
            return _iso_media(file, path.stat().st_size)
    return None


def size_in_frames(path: Path, end: int, frame_bytes: int) -> int:
    """Bytes of a YUV4MPEG2 file whose last frame were whole.

    Args:
        path: The file.
        end: Where one of its frames ends.
        frame_bytes: Of each frame, without the line before it.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while end < size:
            file.seek(end)
            line = file.read(_Y4M_LONGEST_LINE).partition(b"\n")[0]
            if not line.startswith(_Y4M_FRAME[: len(line)]):
                break  # no frame: the demuxer will say so
            end += len(line) + 1 + frame_bytes
    return end


def _iso_media(file: BinaryIO, size: int) -> int | None:
    """End of the last top-level box that starts inside the file."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8 or head[4:8] not in _ISO_BOXES:
            break  # bytes of another kind behind the last box harm nobody
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return None  # 0: this box goes on to the end, wherever that is
        position += length
    return position


def _riff(file: BinaryIO, size: int) -> int | None:
    """End of the last RIFF chunk; files beyond 1 GiB have several (OpenDML)."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or not length:
            return position or None  # a recorder that was stopped leaves 0
        position += 8 + length
    return position


def _matroska(file: BinaryIO) -> int | None:
    """End of the segment."""
    file.seek(4)
    header = _vint(file)
    if header is None:
        return None
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return None
    length = _vint(file)
    return None if length is None else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """EBML variable-size integer (RFC 8794 §4); None for 'unknown size'."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra), "big")
    return None if value == (1 << (7 * (extra + 1))) - 1 else value
