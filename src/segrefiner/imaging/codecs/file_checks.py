"""Small files that take gigabytes or minutes to decode, told by their structure before a decoder is asked.

What is read here is headers and directories. A file that is legal, however large its texts, passes; so does one that
is only damaged, which is the decoder's to say.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from .png_chunks import jpeg_markers

SCANS = 200
"""Of a JPEG, each of which goes through the whole picture. Encoders write a dozen."""

_SEGMENTS = 20_000
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG that a picture's size follows."""

_WIDEST_RUNS = 65_535
"""Columns of a run-length encoded BMP: one jump in it skips up to 255 rows."""

_TAG_VALUES = 1 << 21
"""Numbers of one TIFF tag: each becomes an object of Python."""

_TAGS = 4096
_COMMENTS = 1000
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTES = (1, 2, 6, 7)
_SUB_DIRECTORIES = (34665, 34853, 40965)
_WIDTH, _HEIGHT = 256, 257

Refuse = Callable[[str], Exception]


@dataclass(frozen=True)
class Size:
    """What a file's header says of its picture."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Of the picture."""
        return self.width * self.height


def check_file(stream: BinaryIO, refuse: Refuse) -> Size | None:
    """Look at a file's structure.

    Args:
        stream: At its start, seekable; it is there again afterwards.
        refuse: Makes the error of a sentence that says what is wrong with the file.

    Returns:
        The size that its header states; `None` where it says none that is found here.

    Raises:
        Exception: What `refuse` makes, if decoding the file would take more than its picture.
    """
    start = stream.read(32)
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return Size(*struct.unpack(">II", start[16:24]))
        if start.startswith(b"\xff\xd8"):
            return _check_jpeg(stream, refuse)
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _check_tiff(stream, refuse)
        if start.startswith(b"BM"):
            return _check_bmp(stream, refuse)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp_size(start)
        if start.startswith(b"GIF8"):
            return Size(*struct.unpack("<HH", start[6:10]))
        if start[:2] in (b"P1", b"P2", b"P3"):
            _check_plain(stream, refuse)
        elif start[4:8] == b"ftyp":
            _check_avif(stream, refuse)
        return None
    except struct.error:
        return None
    finally:
        stream.seek(0)


def _check_jpeg(stream: BinaryIO, refuse: Refuse) -> Size | None:
    content = _all_of(stream)
    size, scans = None, 0
    for segment, (marker, start, end) in enumerate(jpeg_markers(content)):
        if segment > _SEGMENTS:
            raise refuse(f"has more than {_SEGMENTS} segments")
        if marker in _FRAMES and end - start >= 9:
            height, width = struct.unpack_from(">HH", content, start + 5)
            size = Size(width, height)
        elif marker == 0xDA:
            scans += 1
            if scans > SCANS:
                raise refuse(f"is stored in more than {SCANS} scans, each of which goes through the whole picture")
        elif marker == 0xD9 and scans:
            break
    return size


def _check_tiff(stream: BinaryIO, refuse: Refuse) -> Size | None:
    end = stream.seek(0, io.SEEK_END)
    return _check_directories(stream, end, refuse)


def _check_directories(stream: BinaryIO, end: int, refuse: Refuse, most_tags: int = _TAGS) -> Size | None:
    """Check the first directory and those below it: their values may not be much more than the file holds."""
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    shape = ("Q", 8, "HHQ", 20, 12, "Q") if big else ("H", 2, "HHI", 12, 8, "I")
    counting, count_size, entry, entry_size, value_place, offset = shape
    waiting = [struct.unpack_from(order + offset, head, 8 if big else 4)[0]]
    size: dict[int, int] = {}
    total = seen = 0
    while waiting and seen < 8:
        place, seen = waiting.pop(), seen + 1
        stream.seek(min(place, end))
        (count,) = struct.unpack(order + counting, stream.read(count_size))
        if count > most_tags:
            raise refuse(f"has {count} tags")
        content = stream.read(entry_size * count)
        for index in range(len(content) // entry_size):
            tag, kind, values = struct.unpack_from(order + entry, content, index * entry_size)
            if kind not in _TIFF_SIZES:
                continue
            if values > _TAG_VALUES and kind not in _BYTES:
                raise refuse(f"has a tag of {values} numbers")
            total += values * _TIFF_SIZES[kind]
            if total > 2 * end + 65536:
                raise refuse("has tags that are more than the file holds: they share their bytes")
            at = index * entry_size + value_place
            if tag in _SUB_DIRECTORIES:
                waiting.append(struct.unpack_from(order + offset, content, at)[0])
            elif seen == 1 and tag in (_WIDTH, _HEIGHT) and kind in (3, 4, 16):
                number = {3: "H", 4: "I", 16: "Q"}[kind]
                (size[tag],) = struct.unpack_from(order + number, content, at)
    return Size(size[_WIDTH], size[_HEIGHT]) if len(size) == 2 else None


def _check_bmp(stream: BinaryIO, refuse: Refuse) -> Size | None:
    stream.seek(0)
    head = stream.read(34)
    if struct.unpack_from("<I", head, 14)[0] == 12:
        return Size(*struct.unpack_from("<HH", head, 18))
    width, height = struct.unpack_from("<ii", head, 18)
    (compression,) = struct.unpack_from("<I", head, 30)
    if compression in (1, 2) and not 0 <= width <= _WIDEST_RUNS:
        raise refuse(f"is a run-length encoded BMP of {width} columns, expected up to {_WIDEST_RUNS}")
    return Size(abs(width), abs(height))


def _webp_size(start: bytes) -> Size | None:
    if start[12:16] == b"VP8X":
        return Size(*(int.from_bytes(start[place : place + 3], "little") + 1 for place in (24, 27)))
    if start[12:16] == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    width, height = struct.unpack_from("<HH", start, 26)
    return Size(width & 0x3FFF, height & 0x3FFF)


def _check_plain(stream: BinaryIO, refuse: Refuse) -> None:
    """Of pictures as decimal digits: each comment moves all that follows it."""
    if _all_of(stream).count(b"#") > _COMMENTS:
        raise refuse(f"has more than {_COMMENTS} comments")


_AVIF_EXIF = re.compile(rb"II\*\0|MM\0\*")


def _check_avif(stream: BinaryIO, refuse: Refuse) -> None:
    """Of EXIF anywhere in the file, which its decoder parses; pixels that look like it are most likely damaged EXIF."""
    content = _all_of(stream)
    if b"Exif\0\0Exif\0\0" in content:
        raise refuse("has EXIF whose heading is repeated")
    for found in list(_AVIF_EXIF.finditer(content))[:8]:
        try:
            _check_directories(io.BytesIO(content[found.start() :]), len(content) - found.start(), refuse, 65535)
        except struct.error:
            continue


def _all_of(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()
