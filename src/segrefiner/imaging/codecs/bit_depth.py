"""Values of photos on any scale to 0-255."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .interpretation import is_within_unit, span
from .pictures import Given
from .rasters import Array

_DEPTHS = (8, 10, 12, 14)
"""Bits of cameras and scanners whose values are often stored in sixteen, as they are."""
_HIGHLIGHT = 0.9
"""Share of the full scale that some pixel of nearly every photo reaches."""
_FEW = 16
"""Greys with which a photo shows hardly anything."""


def to_uint8(values: Array, given: Given, bits: int = 16) -> npt.NDArray[np.uint8]:
    """Bring values of any scale that `reading.read_image` documents to 0-255.

    Args:
        values: Of any shape.
        given: What they are of, for messages.
        bits: That make up the full scale of integers above 255, and of all uint16.

    Raises:
        ImageError: They are on no such scale.
    """
    if values.dtype.kind == "f" and not is_within_unit(values):
        raise given.refuse(f"has floats from {span(values)}, expected [0, 1]; divide by their full scale")
    if values.dtype.kind in "ui" and values.dtype != np.uint8:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise given.refuse(f"has values from {low} to {high}, expected 0-255 or 0-65535; rescale them")
        values = values.astype(np.uint16 if values.dtype == np.uint16 or high > 255 else np.uint8)
    return _scaled(values, bits)


def used_bits(values: Array) -> int:
    """Guess of how many bits the full scale of a photo of sixteen bits is.

    A photo whose brightest value is below a quarter of the full scale is rather one of fewer bits, stored without
    being scaled, than one so dark. But not if its values are those of fewer bits brought to sixteen, or if there is
    only one of them.

    Args:
        values: Integers, all of the photo's or each of them once.

    Returns:
        8, 10, 12 or 14 where fewer than 16 are used.
    """
    low, high = int(values.min()), int(values.max())
    fitting = [bits for bits in _DEPTHS if high < 2**bits]
    if low < 0 or low == high or not fitting:
        return 16
    bits = fitting[0]
    return 16 if not (values % 257).any() or _is_moved_up(values, bits) else bits


def _is_moved_up(values: Array, bits: int) -> bool:
    """Tell whether values that so many bits hold are rather those of a dark photo, moved to the upper ones of sixteen.

    Eight bits leave the lower eight empty, ten the lower six, and so on. But so does a photo of eight bits that became
    one of more, which shows in highlights at their end.
    """
    empty = 4 if bits == 14 else 64
    if (values % empty).any():
        return False
    is_eight = not (values % 2 ** (bits - 8)).any() and bool((values % 256).any())
    return not is_eight or bool(values.max() < _HIGHLIGHT * 2**bits)


def bits_note(bits: int) -> str:
    """Say what was guessed of a photo of sixteen bits, as the end of a sentence."""
    return f"has 16 bits but no value above {2**bits - 1}: taken as one of {bits} bits and scaled"


def levels_note(values: Array) -> str:
    """Say how few greys a photo of floats has at 0-255, as the end of a sentence; nothing where they are enough.

    Nothing says here what the full scale may have been, so they are taken as they are.
    """
    high = float(values.max())
    levels = round(255 * high) + 1
    if levels > _FEW or values.min() == high:
        return ""
    return f"has floats up to {high:.3g} of 1, which are {levels} greys at most: divide by their own full scale"


def _scaled(values: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Scale bool, uint8, uint16 or floats in [0, 1], each from its full scale, with rounding."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        wide = values.astype(np.result_type(values, np.float32))  # float16 has too few digits for the product
        return np.asarray(np.rint(np.clip(wide, 0, 1) * 255), np.uint8)
    if values.dtype == np.uint16:
        full = 2**bits - 1
        return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
    return values
