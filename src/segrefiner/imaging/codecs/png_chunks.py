"""Picture files without what is neither pixels nor orientation: texts, profiles and private parts are in nobody's way.

Decoders parse every part, refuse the picture where a text is long or a profile is damaged, and some of them take time
that grows with the square of its length. Here such parts are dropped before a decoder sees them, without copying the
file.
"""

from __future__ import annotations

import io
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

from .exif import orientation_in, orientation_in_profile, orientation_in_xmp

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"iTXt", b"zTXt")
_PROFILE, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCAN = 0xDA
_ALONE = (0x01, 0xD8, 0xD9)
"""Markers of JPEG without content."""

_LONGEST = 1 << 20
"""Bytes of side data, unpacked, in which an orientation is looked for."""

_JPEG_PROFILE = b"ICC_PROFILE\0"
_LARGEST_PROFILE = 5 << 20
"""Bytes of a profile that are unpacked: more than of any that is used."""

_DAMAGED = b"damaged"
"""Stands for a profile of which parts are missing."""

_GIF_CONTROL = 0xF9
_GIF_HEADER = 13


@dataclass
class SideData:
    """What is of use in a file's side data.

    Attributes:
        orientation: That the file states, 1 to 8.
        profile: ICC profile of its colours, whatever it holds; `None` where there is none, and not empty.
    """

    orientation: int
    profile: bytes | None = None


def without_side_data(stream: BinaryIO) -> tuple[BinaryIO, SideData | None]:
    """Show a PNG, JPEG or GIF file without its side data.

    Args:
        stream: At its start, seekable; other files come back as they are.

    Returns:
        The parts from which the pixels follow, and what a PNG or JPEG file states beside them, of a WebP file its
        orientation; `None` for other files, whose decoders find it. What cannot be parsed is left to the decoder.
    """
    start = stream.read(16)
    stream.seek(0)
    if start.startswith(SIGNATURE):
        return _png(stream)
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(stream)
    if start.startswith(b"GIF8"):
        return _gif(stream), None
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return stream, SideData(_webp_orientation(stream))
    return stream, None


class _Facts:
    """What a file says of its orientation: EXIF counts before a profile, and that before XMP."""

    def __init__(self) -> None:
        self.exif: int | None = None
        self.profile: int | None = None
        self.xmp: int | None = None

    def orientation(self) -> int:
        return self.exif or self.profile or self.xmp or 1


def _png(stream: BinaryIO) -> tuple[BinaryIO, SideData]:
    end = stream.seek(0, io.SEEK_END)
    kept, facts, profile = [(0, 8)], _Facts(), None
    place = 8
    while place + 8 <= end:
        stream.seek(place)
        head = stream.read(8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        after = place + 12 + length
        if not name.isalpha():
            _keep(kept, place, end)
            break
        if name in _PIXELS:
            _keep(kept, place, min(after, end))
        elif name == b"eXIf":
            facts.exif = orientation_in(stream.read(min(length, _LONGEST)))
        elif name == b"iCCP" and profile is None:
            profile = _png_profile(stream.read(min(length, _LARGEST_PROFILE)))
        elif name in _TEXTS and length <= _LONGEST:
            _read_png_text(facts, name, stream.read(length))
        if name == b"IEND":
            break
        place = after
    return _shown(stream, kept), SideData(facts.orientation(), profile)


def _png_profile(content: bytes) -> bytes:
    """The profile of a chunk: cut at the size beyond which none is used, and what cannot be unpacked as it is."""
    compressed = content.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(compressed, _LARGEST_PROFILE) or _DAMAGED
    except zlib.error:
        return _DAMAGED


def _read_png_text(facts: _Facts, name: bytes, content: bytes) -> None:
    keyword, _, rest = content.partition(b"\0")
    if keyword == _PROFILE:
        facts.profile = orientation_in_profile(_png_text(name, rest))
    elif keyword == _XMP:
        facts.xmp = orientation_in_xmp(_png_text(name, rest))


def _png_text(name: bytes, rest: bytes) -> bytes:
    """The text of a chunk after its keyword; nothing where it is damaged or unpacks to more than is looked at."""
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return _unpacked(rest[1:])
    # An international text says whether it is compressed, how, its language, and its keyword in that language.
    text = rest[2:].split(b"\0", 2)[-1]
    return _unpacked(text) if rest[:1] == b"\1" else text


def _unpacked(compressed: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(compressed, _LONGEST)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else text


def jpeg_markers(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk through the markers of a JPEG, as decoders do: what is between them is passed over.

    Args:
        content: All of the file.

    Yields:
        The marker's second byte, where it begins, and where what belongs to it ends.
    """
    place = 2
    while found := _MARKER.search(content, place):
        marker, start, place = content[found.end() - 1], found.start(), found.end()
        if marker not in _ALONE and place + 2 <= len(content):
            place = min(place + max(2, int.from_bytes(content[place : place + 2], "big")), len(content))
        yield marker, start, place


def _jpeg(stream: BinaryIO) -> tuple[BinaryIO, SideData]:
    """Drop the application segments, but those that say what the colours mean, and comments."""
    content = stream.read()
    kept, facts = [(0, 2)], _Facts()
    pieces: dict[int, bytes] = {}
    expected = 0
    for marker, start, end in jpeg_markers(content):
        if marker == _SCAN:
            _keep(kept, start, len(content))
            break
        if marker == 0xE1:
            segment = content[start + 4 : end]
            if segment.startswith(b"Exif\0\0"):
                facts.exif = facts.exif or orientation_in(segment)
            elif segment.startswith(_JPEG_XMP):
                facts.xmp = facts.xmp or orientation_in_xmp(segment)
        if marker == 0xE2 and content.startswith(_JPEG_PROFILE, start + 4):
            number, expected = (content[start + 4 + len(_JPEG_PROFILE) : start + 6 + len(_JPEG_PROFILE)] + b"\0\0")[:2]
            pieces.setdefault(number, content[start + 6 + len(_JPEG_PROFILE) : end])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            _keep(kept, start, end)
    whole = sorted(pieces) == list(range(1, expected + 1))
    profile = (b"".join(pieces[number] for number in sorted(pieces)) if whole else b"") or _DAMAGED
    return _shown(stream, kept), SideData(facts.orientation(), profile if pieces else None)


def _gif(stream: BinaryIO) -> BinaryIO:
    """Drop comments and other extensions before the first picture, but the one that says which colour is clear."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    header = stream.read(_GIF_HEADER)
    if len(header) < _GIF_HEADER:
        return _shown(stream, [(0, end)])
    place = _GIF_HEADER + (3 << (header[10] & 7) + 1 if header[10] & 0x80 else 0)
    kept = [(0, min(place, end))]
    while place + 2 <= end:
        stream.seek(place)
        head = stream.read(2)
        if head[0] != 0x21:
            break
        after = place + 2
        while True:
            size = stream.read(1)
            after += 1 + sum(size)
            if not sum(size):
                break
            stream.seek(after)
        if head[1] == _GIF_CONTROL:
            _keep(kept, place, min(after, end))
        place = after
    _keep(kept, min(place, end), end)
    return _shown(stream, kept)


def _webp_orientation(stream: BinaryIO) -> int:
    end = stream.seek(0, io.SEEK_END)
    facts, place = _Facts(), 12
    while place + 8 <= end:
        stream.seek(place)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            facts.exif = orientation_in(stream.read(min(length, _LONGEST)))
        elif head[:4] == b"XMP ":
            facts.xmp = orientation_in_xmp(stream.read(min(length, _LONGEST)))
        place += 8 + length + length % 2
    stream.seek(0)
    return facts.orientation()


def _keep(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """Add a part, united with the one before where it follows: a picture's pixels may be in thousands of chunks."""
    if start == ranges[-1][1]:
        ranges[-1] = ranges[-1][0], end
    elif start < end:
        ranges.append((start, end))


def _shown(stream: BinaryIO, kept: list[tuple[int, int]]) -> BinaryIO:
    stream.seek(0)
    return io.BufferedReader(_Ranges(stream, kept))


class _Ranges(io.RawIOBase):
    """Some parts of a file, one after the other, as a file of their own.

    Args:
        stream: The file, which is closed with this one.
        ranges: Starts and ends of the parts, in bytes.
    """

    def __init__(self, stream: BinaryIO, ranges: list[tuple[int, int]]) -> None:
        self._stream, self._ranges, self._place = stream, ranges, 0
        self._before = [0, *accumulate(end - start for start, end in ranges)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._before[-1]}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._place >= self._before[-1]:
            return 0
        index = bisect_right(self._before, self._place) - 1
        start, end = self._ranges[index]
        within = self._place - self._before[index]
        self._stream.seek(start + within)
        got = self._stream.read(min(len(buffer), end - start - within))
        buffer[: len(got)] = got
        self._place += len(got)
        return len(got)
