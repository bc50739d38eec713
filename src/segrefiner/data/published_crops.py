"""Training crops as the published models were trained on them: an object view, and a patch, of one photo.

What the paper (arXiv 2312.12425, section 4.1) says only in part follows the published loading code: the object view is
a square around the object, placed at random, the patch a random part of it with some of the object inside; both are
brought to the patch size, whatever their shape, and flipped at random.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_TRIES = 50
"""Places for a patch, before the view that holds the object is taken instead."""


@dataclass(frozen=True)
class PublishedViews:
    """How the published models' crops are drawn.

    Attributes:
        patches: Whether each photo gives a patch of its object view, too.
        pad: Pixels added to the longer side of an object that is larger than the patch size.
        flip: Share of crops that are mirrored.
        antialias: Whether crops are shrunk without aliasing; the published code samples four pixels at most.
    """

    patches: bool = False
    pad: int = 20
    flip: float = 0.5
    antialias: bool = False

    @property
    def per_photo(self) -> int:
        """Crops of one photo."""
        return 1 + self.patches


@dataclass(frozen=True)
class Crop:
    """A part of a training photo.

    Attributes:
        image: `(H, W, 3)` uint8, RGB.
        mask: `(H, W)` bool, the truth.
        coarse: `(H, W)` bool, or None where it is still to be made.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    coarse: NDArray[np.bool_] | None

    def part(self, rows: slice, columns: slice) -> "Crop":
        """A part of this part."""
        coarse = None if self.coarse is None else self.coarse[rows, columns]
        return Crop(self.image[rows, columns], self.mask[rows, columns], coarse)


def published_object_view(crop: Crop, size: int, pad: int, random: np.random.Generator) -> Crop:
    """A square around the object, or the whole photo where that is smaller.

    Args:
        crop: The photo; its mask is not empty.
        size: Side of the square in pixels; objects that are larger have squares of their longer side plus `pad`.
        pad: Pixels that are added to the longer side of larger objects.
        random: Source of the square's place among those that hold the object.
    """
    rows, columns = (np.flatnonzero(crop.mask.any(axis=axis)) for axis in (1, 0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = int(extent) + pad if extent > size else size
    if min(crop.mask.shape) < side:
        return crop
    bounds = [
        _interval(int(found[0]), int(found[-1]) + 1, side, limit, random)
        for found, limit in zip((rows, columns), crop.mask.shape, strict=True)
    ]
    return crop.part(*bounds)


def _interval(start: int, end: int, side: int, limit: int, random: np.random.Generator) -> slice:
    """An interval of length `side` within `limit` that holds `start` to `end`."""
    first = random.integers(max(0, end - side), min(start, limit - side) + 1)
    return slice(first, first + side)


def patch(view: Crop, size: int, random: np.random.Generator) -> Crop:
    """A random square of a view that shows some of the object.

    Args:
        view: The view; its mask is not empty.
        size: Side of the square in pixels; half of the view's shorter side where the view is smaller.
        random: Source of all draws.
    """
    height, width = view.mask.shape
    side = size if min(height, width) >= size else max(1, min(height, width) // 2)
    for _ in range(_TRIES):
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        place = slice(top, top + side), slice(left, left + side)
        if view.mask[place].any():
            return Crop(view.image[place], view.mask[place], None)
    # A thin object in a large view: a patch around one of its pixels.
    row, column = np.argwhere(view.mask)[random.integers(np.count_nonzero(view.mask))]
    top, left = (int(np.clip(c - side // 2, 0, n - side)) for c, n in ((row, height), (column, width)))
    place = slice(top, top + side), slice(left, left + side)
    return Crop(view.image[place], view.mask[place], None)


def resized(crop: Crop, size: int, *, antialias: bool) -> Crop:
    """Brings a crop to `size` x `size` pixels: the photo bilinearly, masks to the nearest pixel.

    Args:
        crop: The crop, of any size.
        size: Side of the result in pixels.
        antialias: Whether shrunk pixels are means of all that they cover.
    """
    if crop.mask.shape == (size, size):
        return crop
    image = _interpolated(crop.image, size, antialias).round().clamp(0, 255)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy().astype(np.uint8))
    coarse = None if crop.coarse is None else _mask(crop.coarse, size, antialias=antialias)
    return Crop(pixels, _mask(crop.mask, size, antialias=antialias), coarse)


def _interpolated(array: NDArray[np.uint8], size: int, antialias: bool) -> Tensor:
    planes = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None].float()
    return F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)[0]


def _mask(mask: NDArray[np.bool_], size: int, *, antialias: bool) -> NDArray[np.bool_]:
    if antialias:
        result: NDArray[np.bool_] = (_interpolated(mask.astype(np.uint8)[..., None], size, True)[0] >= 0.5).numpy()
        return result
    planes = torch.from_numpy(np.ascontiguousarray(mask)).view(torch.uint8)[None, None]
    return F.interpolate(planes, size=(size, size), mode="nearest")[0, 0].numpy().astype(bool)


def mirrored(crop: Crop) -> Crop:
    """The crop, mirrored left to right."""
    coarse = None if crop.coarse is None else crop.coarse[:, ::-1]
    return Crop(crop.image[:, ::-1], crop.mask[:, ::-1], coarse)
