"""Decoded pictures, whatever the file: values, opacity and palette as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Array: TypeAlias = npt.NDArray[Any]

_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0
_EXPANDED = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies greys of fewer than eight bits, but not the transparent one among them."""


@dataclass(frozen=True)
class Raster:
    """A decoded picture, or an array that stands for one.

    Attributes:
        values: `(H, W)` bool, integers or floats; `(H, W, 3)` uint8 or uint16, RGB; with a palette its indices,
            `(H, W)` uint8. Of an array also other shapes, which `interpretation` refuses.
        alpha: `(H, W)`, the opacity from 0 to any largest value; `None` where a file stores none.
        palette: `(N, 4)` uint8, RGBA of the indices, N at most 256; `None` without a palette.
        mode: Pillow's name of how the pixels are stored; empty for arrays.
        format: Pillow's name of the kind of file; empty for arrays.
        orientation: The EXIF orientation that was undone, 1 to 8; 1 where there was none.
        bits: That make up the full scale, where a file of integers says so; otherwise `None`.
        profile: ICC profile of the colours, whatever a file holds as one.
        truncated: Whether only the upper eight of sixteen bits of a colour could be read.
    """

    values: Array
    alpha: Array | None = None
    palette: npt.NDArray[np.uint8] | None = None
    mode: str = ""
    format: str = ""
    orientation: int = 1
    bits: int | None = None
    truncated: bool = False
    profile: bytes | None = None

    @classmethod
    def of_array(cls, values: Array) -> Raster:
        """Take an array with channels last, of which the last of two or four is opacity."""
        if values.ndim == 3 and values.shape[2] in (2, 4):
            colours = values[..., :-1]
            return cls(colours[..., 0] if colours.shape[2] == 1 else colours, values[..., -1])
        return cls(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values)

    def used(self) -> npt.NDArray[np.intp]:
        """Return the distinct indices of the palette that the picture uses, in ascending order."""
        return np.flatnonzero(np.bincount(self.values.ravel(), minlength=1))

    def colours(self) -> Array:
        """Return `(H, W)` greys, or `(H, W, 3)` RGB; indices beyond the palette are black, as viewers show them."""
        if self.palette is None:
            return self.values
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette[:, :3]
        return table[self.values]

    def upright(self, orientation: int) -> Raster:
        """Undo an EXIF orientation, 1 to 8."""
        turn = _TURNS[orientation]
        alpha = None if self.alpha is None else turn(self.alpha)
        return replace(self, values=turn(self.values), alpha=alpha, orientation=orientation)


def turned(array: Array, orientation: int) -> Array:
    """Make `(H, W, …)` upright, as a view, of what is stored with an EXIF orientation, 1 to 8."""
    return _TURNS[orientation](array)


_TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda array: array,
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What makes a picture upright, by its EXIF orientation."""


def raster_of(picture: Image.Image, stored: str = "", whole: Array | None = None) -> Raster:
    """Take the pixels out of a Pillow image that is loaded, as they are stored.

    Args:
        picture: In any mode.
        stored: How its file stores pixels, by Pillow's name, where that is known: `stored_mode`.
        whole: `(H, W, 2 to 4)` uint16, in place of colours of which Pillow keeps the upper eight bits.

    Returns:
        Without turning it.
    """
    mode, format = picture.mode, str(picture.format or "")
    if mode in ("PA", "RGBa"):
        picture = picture.convert("RGBA")
    elif mode == "La":
        picture = picture.convert("LA")
    elif mode not in ("1", "L", "P", "LA", "RGB", "RGBA", "F") and not mode.startswith("I"):
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if picture.mode == "P":
        palette = _palette(picture)
        return Raster(values, palette=palette if len(palette) else None, mode=mode, format=format)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if mode == "I" and format in ("PNG", "PPM"):
        values = values.astype(np.uint16)  # how Pillow holds 16-bit PPM, once also PNG
    if mode.startswith("I;16") and _min_is_white(picture):
        values = np.iinfo(np.uint16).max - values  # Pillow inverts only files of up to eight bits.
    truncated = whole is None and values.ndim == 3 and ";16" in stored
    values = values if whole is None else whole
    bits = 12 if stored == "I;12" else None
    raster = replace(Raster.of_array(values), mode=mode, format=format, bits=bits, truncated=truncated)
    if raster.alpha is None:
        raster = replace(raster, alpha=_keyed(raster.values, picture, _EXPANDED.get(stored, 1)))
    return raster


def stored_mode(picture: Image.Image) -> str:
    """Name how the pixels of a file are stored, by Pillow's raw mode; empty once the picture is loaded."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    if isinstance(arguments, tuple) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""


def _min_is_white(picture: Image.Image) -> bool:
    tags = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE


def _palette(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Return `(N, 4)` uint8, RGBA; what a file says apart from its palette of transparent indices is in it."""
    palette = np.array(picture.getpalette("RGBA") or [], np.uint8).reshape(-1, 4)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, bytes):
        alphas = np.frombuffer(transparent, np.uint8)[: len(palette)]
        palette[: len(alphas), 3] = alphas
    elif isinstance(transparent, int) and 0 <= transparent < len(palette):
        palette[transparent, 3] = 0
    return palette


def _keyed(values: Array, picture: Image.Image, factor: int) -> npt.NDArray[np.uint8] | None:
    """Return the opacity `(H, W)` uint8 of a picture in which one grey or colour stands for transparent."""
    key = picture.info.get("transparency")
    if not isinstance(key, int | tuple):
        return None
    wanted = np.asarray(key) * factor
    if values.dtype.kind == "b":
        wanted = wanted != 0
    if wanted.shape != values.shape[2:]:
        return None
    same = values == wanted
    return np.where(same if same.ndim == 2 else same.all(axis=2), np.uint8(0), np.uint8(255))
