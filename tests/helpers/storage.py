"""Ways of storing pictures that Pillow does not write: PNGs of any depth, interlaced, with any chunks; simple TIFFs."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and the steps of both, of Adam7."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    samples: NDArray[Any],
    depth: int,
    colour: int,
    *,
    before: tuple[tuple[bytes, bytes], ...] = (),
    after: tuple[tuple[bytes, bytes], ...] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG of samples `(H, W)` or `(H, W, C)` as they are stored.

    Args:
        samples: Integers below `2 ** depth`.
        depth: Bits per sample.
        colour: The colour type.
        before: Chunks before the pixels, such as `(b"PLTE", …)`.
        after: Chunks behind them.
        interlaced: By Adam7.
    """
    height, width = samples.shape[:2]
    passes = [samples]
    if interlaced:
        passes = [samples[row::rows, column::columns] for row, column, rows, columns in _PASSES]
    lines = b"".join(_lines(one, depth) for one in passes if one.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(lines)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def _lines(samples: NDArray[Any], depth: int) -> bytes:
    lines = []
    for row in samples.reshape(len(samples), -1):
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = (row.astype(np.uint8)[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            data = np.packbits(bits.ravel().astype(np.uint8)).tobytes()
        lines.append(b"\0" + data)
    return b"".join(lines)


def tiff(samples: NDArray[Any], photometric: int, *, extra: int | None = None, big_endian: bool = False) -> bytes:
    """An uncompressed TIFF of samples `(H, W)` or `(H, W, C)`, uint8 or uint16.

    Args:
        samples: As they are stored.
        photometric: 0 where least is white, 1 where least is black, 2 for RGB.
        extra: What the last channel is: 1 premultiplied, 2 plain opacity.
        big_endian: The order of bytes.
    """
    order = ">" if big_endian else "<"
    height, width = samples.shape[:2]
    channels = samples[0, 0].size
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8 * samples.itemsize] * channels),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8]),
        (277, 3, [channels]),
        (278, 4, [height]),
        (279, 4, [len(data)]),
    ]
    if extra is not None:
        tags.append((338, 3, [extra]))
    start = 8 + len(data) + len(data) % 2
    behind = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, kind, numbers in tags:
        packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(numbers), *numbers)
        if len(packed) > 4:
            values, packed = values + packed, struct.pack(order + "I", behind + len(values))
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head + data + bytes(len(data) % 2) + directory + values
