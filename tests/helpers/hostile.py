"""Small files that take decoders gigabytes or minutes, and others in which something is repeated or claimed."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image


def _saved(array: np.ndarray, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: tuple[bytes, bytes], behind: bool = False, size: tuple[int, int] | None = None) -> bytes:
    """A small PNG with other chunks before its pixels, or behind them, and another size than it has."""
    content = _saved(_noise(48, 64), "PNG")
    if size:
        header = struct.pack(">II", *size) + content[24:29]
        content = content[:8] + _chunk(b"IHDR", header) + content[33:]
    place = len(content) - 12 if behind else 33
    return content[:place] + b"".join(_chunk(*one) for one in chunks) + content[place:]


def bmp_jump(width: int = 8_000_000, height: int = 1) -> bytes:
    """A run-length encoded BMP whose one jump skips 255 rows."""
    pixels = bytes([0, 2, 255, 255, 0, 1])
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + palette + pixels


def bmp_rows(width: int, height: int) -> bytes:
    """A run-length encoded BMP of nothing but ends of rows."""
    return bmp_jump(width, height)[:-6] + bytes([1, 7, 0, 0]) * height + b"\0\1"


def tiff_tags(
    count: int = 1000, size: int = 2_000_000, *, kind: int = 1, big: bool = False, below: bool = False
) -> bytes:
    """A TIFF whose tags all name the same bytes; or the directory of its EXIF does."""
    order = "<"
    image = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 16),
             (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]  # fmt: skip
    shared = [(40_000 + index, kind, size, 200) for index in range(count)]

    def directory(entries: list[tuple[int, int, int, int]]) -> bytes:
        if big:
            packed = b"".join(struct.pack(order + "HHQQ", *entry) for entry in entries)
            return struct.pack(order + "Q", len(entries)) + packed + bytes(8)
        return (
            struct.pack(order + "H", len(entries))
            + b"".join(struct.pack(order + "HHII", *e) for e in entries)
            + bytes(4)
        )

    first = 200 + size * {1: 1, 3: 2, 4: 4, 7: 1}[kind] if count < 5000 else 200 + size
    entries = image + ([] if below else shared)
    if below:
        place = first + len(directory([*image, (34665, 4, 1, 0)]))
        content = directory([*image, (34665, 4, 1, place)]) + directory(shared)
    else:
        content = directory(entries)
    head = (b"II+\0" + struct.pack("<HHQ", 8, 0, first)) if big else b"II*\0" + struct.pack("<I", first)
    return head + bytes(first - len(head)) + content


def jpeg_scans(count: int, side: int = 512) -> bytes:
    """A progressive JPEG with so many more scans in which nothing is."""
    content = _saved(_noise(side, side), "JPEG", progressive=True, quality=30)
    last = content.rindex(b"\xff\xda")
    header = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 63, 0)
    # A table with one code, of which an end of band of 32,767 blocks is made.
    table = b"\xff\xc4" + struct.pack(">HB", 20, 0x10) + bytes([1]) + bytes(15) + bytes([0xE0])
    scan = header + bytes([0x7F, 0xFF]).replace(b"\xff", b"\xff\0")
    return content[:last] + table + scan * count + b"\xff\xd9"


def jpeg_segments(segment: bytes, count: int, marker: int = 0xE1) -> bytes:
    """A JPEG with one segment again and again."""
    content = _saved(_noise(48, 64), "JPEG")
    one = bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment
    return content[:2] + one * count + content[2:]


def exif_of_tags(count: int, size: int) -> bytes:
    """EXIF whose tags all name the same bytes."""
    entries = b"".join(struct.pack("<HHII", 40_000 + index % 20_000, 1, size, 8) for index in range(count))
    return b"II*\0" + struct.pack("<I", 8 + size) + bytes(size) + struct.pack("<H", count) + entries + bytes(4)


def webp_with(name: bytes, content: bytes) -> bytes:
    """A WebP with another chunk."""
    simple = _saved(_noise(48, 64), "WEBP")[12:]
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x0C, 0, 0, 0]) + bytes([63, 0, 0, 47, 0, 0])
    chunk = name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    body = b"WEBP" + extended + simple + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_claim(width: int = 16_383, height: int = 16_383) -> bytes:
    """A WebP film whose canvas is larger than what is in it."""
    simple = _saved(_noise(48, 64), "WEBP")[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little") + bytes(4) + simple
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + canvas
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_comment(length: int) -> bytes:
    """A GIF with a long comment before its picture."""
    content = _saved(np.zeros((48, 64), np.uint8), "GIF")
    place = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    comment = b"\x21\xfe" + (b"\xff" + bytes(range(255))) * (length // 255) + b"\0"
    return content[:place] + comment + content[place:]


def ppm_comments(count: int) -> bytes:
    """A PPM of decimal digits with more comments than digits."""
    return b"P3\n64 48\n255\n" + b"#\n" * count + b"7 " * (64 * 48 * 3)


def interleaved(count: int) -> bytes:
    """A PNG whose pixels come byte by byte between texts."""
    whole = png()
    pixels = zlib.compress(np.pad(_noise(48, 64).reshape(48, -1), ((0, 0), (1, 0))).tobytes())
    parts = [pixels[i : i + 1] for i in range(len(pixels))] + [b""] * max(0, count - len(pixels))
    chunks = b"".join(_chunk(b"IDAT", part) + _chunk(b"tEXt", b"a\0b") for part in parts)
    return whole[:33] + chunks + _chunk(b"IEND", b"")


def tiff_bomb(side: int = 5000) -> bytes:
    """A TIFF of one colour, a thousand times smaller than its pixels."""
    return _saved(np.zeros((side, side), np.uint8), "TIFF", compression="tiff_adobe_deflate")


EXIF = b"Exif\0\0"
HOSTILE: dict[str, Callable[[], bytes]] = {
    "BMP: a jump of 2 GB": bmp_jump,
    "BMP: a jump of 10 GB": lambda: bmp_jump(40_000_000),
    "BMP: rows padded byte by byte": lambda: bmp_rows(60_000, 800),
    "TIFF: 1,000 tags of the same 2 MB": tiff_tags,
    "TIFF: 4,000 tags of the same 0.5 MB": lambda: tiff_tags(4000, 500_000),
    "TIFF: 60,000 tags of the same 40 KB": lambda: tiff_tags(25_000, 40_000),
    "TIFF: the same below EXIF": lambda: tiff_tags(below=True),
    "BigTIFF: 1,000 tags of the same 2 MB": lambda: tiff_tags(big=True),
    "TIFF: a tag of 7 million numbers": lambda: tiff_tags(1, 7_000_000, kind=4),
    "PNG: EXIF heading 300,000 times": lambda: png((b"eXIf", EXIF * 300_000)),
    "PNG: EXIF heading 5 million times": lambda: png((b"eXIf", EXIF * 5_000_000)),
    "PNG: EXIF behind the pixels": lambda: png((b"eXIf", EXIF * 300_000), behind=True),
    "PNG: EXIF of the same bytes": lambda: png((b"eXIf", exif_of_tags(20_000, 1_000_000))),
    "PNG: EXIF as a text": lambda: png((b"tEXt", b"Raw profile type exif\0\n\n\n" + (EXIF * 150_000).hex().encode())),
    "PNG: EXIF packed": lambda: png(
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(EXIF.hex().encode() * 3_000_000))
    ),
    "PNG: a text that unpacks to 1 GB": lambda: png((b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28)))),
    "PNG: 200,000 texts": lambda: png(*[(b"tEXt", b"a\0b")] * 200_000),
    "PNG: pixels between 60,000 texts": lambda: interleaved(60_000),
    "PNG: of 40,000,000 x 1": lambda: png(size=(40_000_000, 1)),
    "JPEG: 20,000 empty scans": lambda: jpeg_scans(20_000),
    "JPEG: 20,000 empty scans of 4 megapixels": lambda: jpeg_scans(20_000, 2048),
    "JPEG: 200 empty scans": lambda: jpeg_scans(190, 1024),
    "JPEG: EXIF heading again and again": lambda: jpeg_segments(EXIF * 10_000, 400),
    "JPEG: EXIF of the same bytes": lambda: jpeg_segments(EXIF + exif_of_tags(3000, 24_000), 1),
    "JPEG: EXIF in many segments": lambda: jpeg_segments(EXIF + bytes(65_000), 450),
    "JPEG: EXIF behind padding": lambda: _padded_exif(),
    "JPEG: half a million segments": lambda: jpeg_segments(b"", 500_000, 0xED),
    "WebP: EXIF heading again and again": lambda: webp_with(b"EXIF", EXIF * 1_000_000),
    "WebP: EXIF of the same bytes": lambda: webp_with(b"EXIF", exif_of_tags(20_000, 1_000_000)),
    "WebP: a canvas of 268 megapixels": webp_claim,
    "GIF: a comment of 8 MB": lambda: gif_comment(8_000_000),
    "PPM: a million comments": lambda: ppm_comments(1_000_000),
    "TIFF: one colour": tiff_bomb,
}  # fmt: skip
"""By what is wrong with them; some of them are legal, and all of them small."""


def _padded_exif() -> bytes:
    content = jpeg_segments(EXIF * 10_000, 400)
    return content[:2] + b"\xff\xff\xff\0junk\xff\xd9" + content[2:]
