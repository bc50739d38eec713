"""Operations on pictures and masks as tensors: contours, box filters, cuts and resizing."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .boxes import Box

BAND_PIXELS = 2_000_000
"""Of pictures larger than this, planes of numbers are computed part by part: memory is bounded."""

_WHOLE_PIXELS = 8 * BAND_PIXELS
"""Pictures up to this are resized in one piece, which takes a few bytes of each pixel."""


def nonzero_pixels(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns `(n,)` int64 of the pixels that are set in `(H, W)` bool, in reading order."""
    parts = row_bands(*plane.shape)
    if len(parts) > 1:
        found = [(rows.start, *nonzero_pixels(plane[rows])) for rows in parts]
        return torch.cat([y + start for start, y, _ in found]), torch.cat([x for _, _, x in found])
    if plane.is_cuda:
        rows, columns = plane.nonzero(as_tuple=True)
        return rows, columns
    # On a CPU a fifth of the time of `nonzero`.
    flat = torch.from_numpy(np.flatnonzero(plane.numpy()))
    rows = flat // plane.shape[1]
    return rows, flat - rows * plane.shape[1]


def contour(mask: Tensor) -> Tensor:
    """Pixels of `(H, W)` bool that have a 3x3 neighbour in the other state."""
    parts = row_bands(*mask.shape)
    if len(parts) == 1:
        return _contour(mask)
    result = torch.empty_like(mask)
    for rows in parts:
        first = max(0, rows.start - 1)
        result[rows] = _contour(mask[first : rows.stop + 1])[rows.start - first :][: rows.stop - rows.start]
    return result


def _contour(mask: Tensor) -> Tensor:
    height, width = mask.shape
    framed = mask.new_empty(height + 2, width + 2)
    framed[1:-1, 1:-1] = mask
    framed[0], framed[-1] = framed[1], framed[-2]
    framed[:, 0], framed[:, -1] = framed[:, 1], framed[:, -2]
    some, all_ = framed[:-2] | framed[1:-1], framed[:-2] & framed[1:-1]
    some, all_ = some.bitwise_or_(framed[2:]), all_.bitwise_and_(framed[2:])
    set_, whole = some[:, :-2] | some[:, 1:-1], all_[:, :-2] & all_[:, 1:-1]
    return set_.bitwise_or_(some[:, 2:]).bitwise_xor_(whole.bitwise_and_(all_[:, 2:]))


def box_max(planes: Tensor, side: int) -> Tensor:
    """The largest value in each square of `side` pixels that is inside of `(…, H, W)`.

    By maxima of shifted planes, which on a CPU take a tenth of the time of PyTorch's pooling or SciPy's filter.

    Returns:
        `(…, H - side + 1, W - side + 1)`.
    """
    for dim in (-2, -1):
        reach = 1
        while reach < side:
            step = min(reach, side - reach)
            left = planes.shape[dim] - step
            planes = torch.maximum(planes.narrow(dim, 0, left), planes.narrow(dim, step, left))
            reach += step
    return planes


def box_mean(planes: Tensor, radius: int) -> Tensor:
    """Means over squares of `2 * radius + 1` pixels around each pixel of `(…, H, W)` whose square is inside.

    By sums of shifted planes, which on a CPU take a tenth of the time of PyTorch's pooling.

    Returns:
        `(…, H - 2 * radius, W - 2 * radius)`.
    """
    side = 2 * radius + 1
    for dim in (-2, -1):
        planes = _neighbour_sums(planes, side, dim)
    return planes / side**2


def _neighbour_sums(planes: Tensor, side: int, dim: int) -> Tensor:
    """Sums of each `side` neighbours along a dimension, put together from sums of one, two, four, … of them."""
    length = planes.shape[dim] - side + 1
    total, start, run = None, 0, 1
    while True:
        if side & run:
            part = planes.narrow(dim, start, length)
            total = part if total is None else total + part
            start += run
        if 2 * run > side:
            assert total is not None
            return total
        left = planes.shape[dim] - run
        planes = planes.narrow(dim, 0, left) + planes.narrow(dim, run, left)
        run *= 2


def row_bands(height: int, width: int, multiple: int = 1) -> list[slice]:
    """Rows of a picture in bands of at most about `BAND_PIXELS`, so that what is computed of each stays small.

    All but the last are a multiple of `multiple` rows.
    """
    rows = multiple * max(1, BAND_PIXELS // max(1, width) // multiple)
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Anti-aliased bilinear resize of `(C, H, W)`, float or uint8, to float `(C, height, width)`.

    On a CPU, uint8 that is made smaller is rounded, which takes a third of the time, unless it is so large that it
    goes band by band.
    """
    return crop_resized(picture, Box(0, 0, picture.shape[-1], picture.shape[-2]), height, width)


def crop_resized(picture: Tensor, box: Box, height: int, width: int, fill: Sequence[float] | float = 0.0) -> Tensor:
    """`resize` of what `Box.crop` cuts out."""
    if (box.height, box.width) == (height, width):
        return box.crop(picture, fill).float()
    if box.height * box.width <= max(_WHOLE_PIXELS, 4 * height * width):
        return _resize(box.crop(picture, fill), height, width)
    # Across first, band by band, so that no large picture is copied or becomes float; the filter is separable.
    across = torch.empty(len(picture), box.height, width, dtype=torch.float32, device=picture.device)
    for rows in row_bands(box.height, box.width):
        part = Box(box.x0, box.y0 + rows.start, box.x1, box.y0 + rows.stop)
        across[:, rows] = _resize(part.crop(picture, fill).float(), part.height, width)
    return _resize(across, height, width)


def _resize(picture: Tensor, height: int, width: int) -> Tensor:
    shrunk = height < picture.shape[-2] or width < picture.shape[-1]
    # PyTorch 2.13 errs where uint8 shrinks to a single column.
    if picture.dtype != torch.uint8 or picture.is_cuda or not shrunk or width == 1:
        picture = picture.float()
    size = (height, width)
    # Enlarging needs no filter, and is faster without one.
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=shrunk, align_corners=False)[0].float()
