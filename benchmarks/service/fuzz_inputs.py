"""What `service/fuzz.py` gives to readers: valid files and structures, and what mutation makes of them.

Everything is drawn from one `random.Random`, so a seed says what an input is.
"""

import io
import json
import random
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# The tests know small files that take decoders gigabytes or minutes.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from helpers import hostile

_FORMATS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"compress_level": 0}, {"bits": 4}, {"transparency": 0}],
    "JPEG": [{}, {"progressive": True}, {"quality": 5}, {"comment": b"x" * 300}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08"}],
    "WEBP": [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}],
    "TIFF": [
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "packbits"},
        {"save_all": True, "append_images": [Image.new("L", (9, 9))]},
    ],
    "BMP": [{}],
    "GIF": [{}, {"comment": b"x" * 300}, {"save_all": True, "append_images": [Image.new("L", (9, 9))]}],
    "PPM": [{}],
    "AVIF": [{}],
}
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I", "CMYK", "YCbCr", "F")
_MAGIC = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_REPEATED = 200_000
"""Bytes that a repeated piece grows to, at most."""

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 2**31, 2**63, -(2**63), 2**64, 10**20, 10**400, 0.5, -0.0, 1e-320, -1e300),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "1", "nan", "1e999", "٣", "a" * 1000, "\0", "\ud800"),
    *("../x", "/etc/passwd", ".", "a/../../b", "C:\\x", "\\\\host\\x", "http://127.0.0.1/", "-", "0" * 5000, "\x1b[2J"),
)
_KEYS = ("size", "counts", "id", "image_id", "file_name", "segmentation", "width", "height", "a", "", "iscrowd", "bbox")

_HOSTILE = [
    *(lambda: hostile.bmp_jump(60_000), lambda: hostile.bmp_rows(3000, 80), lambda: hostile.tiff_tags(40, 4000)),
    *(lambda: hostile.tiff_tags(40, 4000, big=True), lambda: hostile.tiff_tags(9, 4000, below=True)),
    lambda: hostile.png((b"eXIf", hostile.EXIF * 5000)),
    lambda: hostile.png((b"zTXt", b"a\0\0" + zlib.compress(bytes(9999)))),
    *(lambda: hostile.jpeg_scans(90, 128), lambda: hostile.jpeg_segments(hostile.EXIF * 99, 40)),
    *(lambda: hostile.webp_claim(999, 999), lambda: hostile.webp_with(b"EXIF", hostile.exif_of_tags(40, 4000))),
    *(lambda: hostile.gif_comment(5000), lambda: hostile.ppm_comments(500), lambda: hostile.interleaved(300)),
]  # fmt: skip


def picture_file(draw: random.Random) -> bytes:
    """A file for the readers of pictures: mutated, or one of run lengths that say anything."""
    kind = draw.random()
    if kind < 0.05:
        return _run_lengths(draw)
    content = draw.choice(_HOSTILE)() if kind < 0.15 else _picture(draw)
    made = mutated(draw, content)
    # With sums that are wrong, a decoder stops before it meets what was changed.
    return _with_right_sums(made) if draw.random() < 0.5 else made


def _picture(draw: random.Random) -> bytes:
    """A small file of any format and mode."""
    format = draw.choice(list(_FORMATS))
    height, width = draw.randint(1, 90), draw.randint(1, 90)
    array = np.random.default_rng(draw.getrandbits(32)).integers(0, draw.choice((2, 2, 5, 256)), (height, width, 3))
    made = Image.fromarray(array.astype(np.uint8))
    mode = draw.choice(_MODES)
    stream = io.BytesIO()
    try:
        made = Image.fromarray((array[..., 0] * 257).astype(np.uint16)) if mode == "I;16" else made.convert(mode)
        made.save(stream, format, **draw.choice(_FORMATS[format]))
    except (OSError, ValueError, KeyError, TypeError, struct.error):  # A format does not have every mode.
        stream = io.BytesIO()
        Image.fromarray(array.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _run_lengths(draw: random.Random) -> bytes:
    """A BMP of run lengths."""
    width, height = draw.randint(1, 300), draw.randint(1, 300)
    pixels = b"".join(
        bytes([draw.choice((0, 0, 1, 200, 255)), draw.choice((0, 1, 2, 3, 255))]) for _ in range(draw.randrange(2000))
    )
    header = b"(\0\0\0" + b"".join(n.to_bytes(4, "little") for n in (width, height)) + b"\1\0"
    header += draw.choice((b"\x08\0\1\0\0\0", b"\x04\0\2\0\0\0")) + bytes(20)
    palette = bytes(1024)
    offset = 14 + len(header) + len(palette)
    return b"BM" + bytes(8) + offset.to_bytes(4, "little") + header + palette + pixels


def mutated(draw: random.Random, content: bytes) -> bytes:
    """Bytes of which some are changed, moved, repeated, or cut off; mostly near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(draw.choice((0, 1, 1, 2, 4, 16))):
        if not data:
            break
        reach = len(data) if draw.random() < 0.4 else min(len(data), 128)
        place = draw.randrange(reach)
        kind = draw.randrange(7)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(_MAGIC) % 256**size
            data[place : place + size] = number.to_bytes(size, draw.choice(("big", "little")))
        elif kind == 2:
            del data[place : place + draw.choice((1, 4, 64, 4096))]
        elif kind == 3:
            piece = bytes(data[place : place + draw.choice((1, 4, 12, 64, 512))])
            data[place:place] = (piece * draw.choice((1, 2, 100, 5000)))[:_REPEATED]
        elif kind == 4:
            data[place:place] = draw.randbytes(draw.choice((1, 8, 100)))
        elif kind == 5:
            del data[place:]
        else:
            other = draw.randrange(len(data))
            data[place : place + 16], data[other : other + 16] = data[other : other + 16], data[place : place + 16]
    return bytes(data)


def _with_right_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the sums that their content has; other files as they are."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    data, place = bytearray(content), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def anything(draw: random.Random, depth: int = 0) -> Any:
    """JSON of any shape."""
    kind = draw.randrange(11 if depth < 4 else 8)
    if kind < 8:
        return draw.choice(_VALUES)
    if kind == 8:
        return [anything(draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 6, 50)))]
    return {draw.choice(_KEYS): anything(draw, depth + 1) for _ in range(draw.choice((0, 1, 3)))}


def changed(draw: random.Random, value: Any, share: float = 0.15) -> Any:
    """JSON in which some values are others, keys are absent, and lists are longer."""
    if draw.random() < share / 3:
        return anything(draw)
    if isinstance(value, dict):
        return {
            (name if draw.random() > share / 4 else "x"): changed(draw, one, share)
            for name, one in value.items()
            if draw.random() > share / 4
        }
    if isinstance(value, list):
        more = value * draw.choice((1, 1, 1, 2)) if len(value) < 100 else value
        return [changed(draw, one, share) for one in more]
    return anything(draw) if draw.random() < share else value


def json_file(draw: random.Random, document: Any, share: float) -> bytes:
    """A document of which values are changed, and sometimes bytes."""
    text = json.dumps(changed(draw, document, share)).encode()
    if draw.random() < 0.02:
        return b"[" * 100_000
    return mutated(draw, text) if draw.random() < 0.2 else text


def rle_document(draw: random.Random) -> dict[str, Any]:
    """A run-length encoding, and the size that it should have."""
    from segrefiner.imaging.coco_masks import encode_rle

    size = (draw.randint(1, 60), draw.randint(1, 60))
    mask = np.random.default_rng(draw.getrandbits(32)).random(size) < draw.random()
    good = encode_rle(mask, compressed=draw.random() < 0.5)
    if isinstance(good["counts"], str) and draw.random() < 0.5:
        good["counts"] = mutated(draw, good["counts"].encode()).decode("latin-1")
    return {"size": size, "given": changed(draw, good)}


def polygon_document(draw: random.Random) -> dict[str, Any]:
    """Polygons inside, outside and of other things, few or thousands, and the size of their picture."""
    size = (draw.randint(1, 300), draw.randint(1, 300))
    reach = draw.choice((1, 300, 300, 600, 1e6, 1e300))
    corners, count = draw.choice((0, 2, 6, 7, 8, 400)), draw.randrange(4)
    if draw.random() < 0.05:
        corners, count, size = 6, 3000, (1000, 1000)
    elif draw.random() < 0.05:
        corners, count, size, reach = 20_000, 1, (2000, 1000), 1000
    given = [[draw.uniform(-reach / 2, reach) for _ in range(corners)] for _ in range(count)]
    return {"size": size, "given": changed(draw, given, 0.02 if corners * count < 1000 else 0)}


def coco_document(draw: random.Random) -> dict[str, Any]:
    """Annotations of instances and of panoptic maps in one."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(2)]
    shape: Any = draw.choice(([[1.0, 1, 30, 1, 30, 30]], {"size": [40, 60], "counts": [100, 200, 2100]}))
    rows = [
        {"id": n, "image_id": n % 2, "category_id": 1, "iscrowd": 0, "bbox": [1, 1, 9, 9], "segmentation": shape}
        | {"segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}], "file_name": f"{n % 2}.png"}
        | {"area": 9, "score": 0.5}
        for n in range(3)
    ]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a", "isthing": 1}]}


def manifest_rows(draw: random.Random) -> bytes:
    """A manifest, some of whose lines are damaged."""
    row = {"key": "0.png", "config": "1", "payload": "x", "inputs": [{"size": 3, "modified_ns": 5, "sha256": "a"}]}
    row |= {"outputs": {"0.png": 9}, "result": {"a": 1}, "failures": {}, "notes": ["n"], "left_out": {"a": "b"}}
    lines = [json.dumps(changed(draw, row, 0.1)) for _ in range(draw.randrange(5))]
    text = "\n".join(lines).encode() + b"\n"
    return mutated(draw, text) if draw.random() < 0.3 else text
