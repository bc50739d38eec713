"""The one fact of EXIF and XMP that decides what a picture shows: how it is turned.

Everything else in them is left alone, so that neither its length nor its damage matters.
"""

import re
import struct

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_BYTE, _SHORT, _LONG = 1, 3, 4
_FORMATS = {_BYTE: "B", _SHORT: "H", _LONG: "I"}
_MOST_ENTRIES = 1000
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_in(exif: bytes) -> int | None:
    """Find the orientation in a block of EXIF, with or without its heading.

    Returns:
        1 to 8; `None` where it says nothing, or is damaged.
    """
    start = 0
    while exif.startswith(_EXIF, start):
        start += len(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return None
    try:
        place = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        (count,) = struct.unpack_from(order + "H", exif, place)
        for entry in range(min(count, _MOST_ENTRIES)):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, place + 2 + 12 * entry)
            if tag == _ORIENTATION and kind in _FORMATS and values == 1:
                (value,) = struct.unpack_from(order + _FORMATS[kind], exif, place + 10 + 12 * entry)
                return value if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None


def orientation_in_xmp(xmp: bytes) -> int | None:
    """Find the orientation in a packet of XMP: 1 to 8, or `None`."""
    found = _IN_XMP.search(xmp)
    return int(found[1]) if found else None


def orientation_in_profile(text: bytes) -> int | None:
    """Find the orientation in EXIF as hexadecimal digits below three lines of heading, as ImageMagick writes it."""
    try:
        return orientation_in(bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])))
    except ValueError:
        return None


def exif_of(orientation: int) -> bytes:
    """Make a block of EXIF that says how a picture is turned, 1 to 8, and nothing else."""
    entry = struct.pack(">HHIHH", _ORIENTATION, _SHORT, 1, orientation, 0)
    return _EXIF + b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
