"""Label Studio's brush masks: the RGBA pixels of a canvas, row by row, packed bit by bit (thi.ng's rle-pack).

The head says how many values there are (32 bits), how many bits each has (5), and how long four kinds of lengths are
(4 each). Then follow runs: one bit says whether one value is repeated or several stand one by one, two which kind of
length comes, and the length less one. The object is where the canvas is opaque.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MaskError
from ..imaging.coco_masks import encode_rle, is_whole

_LENGTHS = (3, 4, 8, 16)
"""Bits of lengths as Label Studio writes them."""
_OPAQUE = 128
"""Of 255: what a stroke's soft edge has at least where it is object."""


class _Bits:
    def __init__(self, content: bytes) -> None:
        self._content, self.place, self.end = content, 0, 8 * len(content)

    def read(self, count: int) -> int:
        start, self.place = self.place, self.place + count
        if self.place > self.end:
            raise MaskError("its bytes end in the middle of a run: the mask is cut off")
        piece = int.from_bytes(self._content[start // 8 : (self.place + 7) // 8], "big")
        return piece >> (-self.place % 8) & ((1 << count) - 1)

    def read_bytes(self, count: int) -> NDArray[np.uint8]:
        start, self.place = self.place, self.place + 8 * count
        if self.place > self.end:
            raise MaskError("its bytes end in the middle of a run: the mask is cut off")
        piece = np.frombuffer(self._content[start // 8 : (self.place + 7) // 8], np.uint8)
        return np.packbits(np.unpackbits(piece)[start % 8 : start % 8 + 8 * count])


def decode_brush(rle: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a brush.

    Args:
        rle: What stands in the file, of any type: a list of bytes.
        size: `(height, width)` that it must have.

    Raises:
        MaskError: It is damaged or of another size.

    >>> from segrefiner.formats.brush import decode_brush
    >>> try:
    ...     decode_brush([1, 2, 3], (4, 6))
    ... except MaskError as error:
    ...     print(error)
    its bytes end in the middle of a run: the mask is cut off
    """
    if not isinstance(rle, list) or not all(is_whole(value) and 0 <= value < 256 for value in rle):
        raise MaskError("rle is no list of bytes: expected whole numbers from 0 to 255")
    bits = _Bits(bytes(map(int, rle)))
    count, word = bits.read(32), bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    if count != 4 * size[0] * size[1]:
        raise MaskError(f"rle holds {count / 4:.10g} pixels, but the photo has {size[1]}x{size[0]}")
    if word != 8:
        raise MaskError(f"rle has values of {word} bits: expected 8")
    canvas = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        repeated = bits.read(1)
        length = bits.read(lengths[bits.read(2)]) + 1
        if place + length > count:
            raise MaskError("a run is longer than the rest of the picture: the mask is damaged")
        canvas[place : place + length] = bits.read(8) if repeated else bits.read_bytes(length)
        place += length
    return canvas.reshape(*size, 4)[..., 3] >= _OPAQUE


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask `(H, W)` bool, as Label Studio's own converter writes them.

    >>> from segrefiner.formats.brush import decode_brush, encode_brush
    >>> mask = np.eye(4, 6, dtype=bool)
    >>> decode_brush(encode_brush(mask), (4, 6)).tolist() == mask.tolist()
    True
    """
    parts = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in _LENGTHS)]
    for index, run in enumerate(encode_rle(mask.T, compressed=False)["counts"]):
        value = "11111111" if index % 2 else "00000000"
        left = 4 * run
        while left:
            piece = min(left, 1 << _LENGTHS[-1])
            kind = next(number for number, length in enumerate(_LENGTHS) if piece <= 1 << length)
            parts.append(f"1{kind:02b}{piece - 1:0{_LENGTHS[kind]}b}{value}")
            left -= piece
    text = "".join(parts)
    # Label Studio's converter fills up the last byte, and adds one that is empty where it was full.
    text += "0" * (8 - len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
