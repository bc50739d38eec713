"""PNG files without what is neither pixels nor orientation: texts, profiles and private chunks are in nobody's way.

Decoders parse every chunk, and refuse the picture where a text is long or a profile is damaged. Here chunks are dropped
before a decoder sees them, without copying the file.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_TURNS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
"""Keywords of texts that may hold an EXIF orientation."""
_TEXTS = (b"tEXt", b"iTXt", b"zTXt")
_LONGEST = 1 << 20
"""Bytes of a text, unpacked, in which an orientation is looked for. Pillow refuses pictures with longer ones."""


def without_side_data(stream: BinaryIO) -> BinaryIO:
    """Show a PNG file without its side data.

    Args:
        stream: At its start, seekable; other files come back as they are.

    Returns:
        The chunks from which the pixels and their orientation follow. What cannot be parsed is left to the decoder.
    """
    if stream.read(8) != SIGNATURE:
        stream.seek(0)
        return stream
    end = stream.seek(0, io.SEEK_END)
    kept = [(0, 8)]
    place = 8
    while place + 8 <= end:
        stream.seek(place)
        head = stream.read(8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        after = place + 12 + length
        if not name.isalpha():
            kept.append((place, end))
            break
        if name in _PIXELS or (name in _TEXTS and _may_turn(stream, name, length)):
            kept.append((place, min(after, end)))
        if name == b"IEND":
            break
        place = after
    stream.seek(0)
    return io.BufferedReader(_Ranges(stream, kept))


def _may_turn(stream: BinaryIO, name: bytes, length: int) -> bool:
    if length > _LONGEST:
        return False
    keyword, _, rest = stream.read(length).partition(b"\0")
    if keyword not in _TURNS:
        return False
    if name == b"zTXt":
        return _is_short(rest[1:])
    # An international text says whether it is compressed, how, its language, and its keyword in that language.
    return name == b"tEXt" or rest[:1] == b"\0" or _is_short(rest[2:].split(b"\0", 2)[-1])


def _is_short(compressed: bytes) -> bool:
    unpacking = zlib.decompressobj()
    try:
        return len(unpacking.decompress(compressed, _LONGEST)) < _LONGEST
    except zlib.error:
        return False


class _Ranges(io.RawIOBase):
    """Some parts of a file, one after the other, as a file of their own.

    Args:
        stream: The file, which is closed with this one.
        ranges: Starts and ends of the parts, in bytes.
    """

    def __init__(self, stream: BinaryIO, ranges: list[tuple[int, int]]) -> None:
        self._stream, self._ranges, self._place = stream, _joined(ranges), 0
        self._size = sum(end - start for start, end in ranges)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        before = 0
        for start, end in self._ranges:
            within = self._place - before
            if within < end - start:
                self._stream.seek(start + within)
                got = self._stream.read(min(len(buffer), end - start - within))
                buffer[: len(got)] = got
                self._place += len(got)
                return len(got)
            before += end - start
        return 0


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Unite parts that follow one another in the file: the pixels of one picture may be in thousands of chunks."""
    joined = [ranges[0]]
    for start, end in ranges[1:]:
        if start == joined[-1][1]:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined
