"""Boxes and what is cut and pasted with them; everything in pixels of one picture, half-open."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BAND_PIXELS = 2_000_000
"""Of pictures larger than this, planes of numbers are computed part by part: memory is bounded."""

_WHOLE_PIXELS = 8 * BAND_PIXELS
"""Pictures up to this are resized in one piece, which takes a few bytes of each pixel."""


class Box(NamedTuple):
    """A half-open box `[x0, x1) x [y0, y1)` in pixels; it may reach beyond the picture."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """In pixels."""
        return self.y1 - self.y0

    @property
    def longest(self) -> int:
        """The longer side, in pixels."""
        return max(self.width, self.height)

    def clip(self, height: int, width: int) -> "Box":
        """The part inside a picture of this size."""
        x0, y0, x1, y1 = self
        return Box(min(max(0, x0), width), min(max(0, y0), height), min(max(0, x1), width), min(max(0, y1), height))

    def grow(self, margin: int) -> "Box":
        """Larger by `margin` on every side."""
        return Box(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin)

    def shift(self, right: int, down: int) -> "Box":
        """The same box elsewhere."""
        return Box(self.x0 + right, self.y0 + down, self.x1 + right, self.y1 + down)

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def shared(self, other: "Box") -> "Box":
        """The part of two overlapping boxes that is in both."""
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def union(self, other: "Box") -> "Box":
        """The smallest box around both."""
        return Box(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def crop(self, picture: Tensor, fill: Sequence[float] | float = 0.0) -> Tensor:
        """The pixels `(C, height, width)` of `picture` `(C, H, W)`; beyond it `fill`, one value per channel."""
        inner = self.clip(*picture.shape[-2:])
        part = picture[:, inner.y0 : inner.y1, inner.x0 : inner.x1]
        if inner == self:
            return part
        # In the layout of the picture, or copying takes several times as long.
        layout = torch.channels_last if picture.stride(0) == 1 else torch.contiguous_format
        result = picture.new_tensor(fill).view(1, -1, 1, 1).expand(1, len(picture), self.height, self.width)
        result = result.clone(memory_format=layout)[0]
        if not part.numel():
            return result
        result[:, inner.y0 - self.y0 : inner.y1 - self.y0, inner.x0 - self.x0 : inner.x1 - self.x0] = part
        return result

    def paste(self, patch: Tensor, picture: Tensor) -> None:
        """Writes `patch` `(C, height, width)` into `picture` `(C, H, W)` in place; what lies beyond it is dropped."""
        inner = self.clip(*picture.shape[-2:])
        if not (inner.width and inner.height):
            return
        picture[:, inner.y0 : inner.y1, inner.x0 : inner.x1] = patch[
            :, inner.y0 - self.y0 : inner.y1 - self.y0, inner.x0 - self.x0 : inner.x1 - self.x0
        ]


def mask_box(mask: Tensor) -> Box | None:
    """The box of the pixels that are set in `(H, W)` bool; `None` for an empty mask."""
    # On a CPU a tenth of the time of `any`.
    bytes_ = mask.view(torch.uint8)
    rows, columns = bytes_.amax(dim=1).nonzero(), bytes_.amax(dim=0).nonzero()
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def places(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns `(n,)` int64 of the pixels that are set in `(H, W)` bool, in reading order."""
    parts = bands(*plane.shape)
    if len(parts) > 1:
        found = [(rows.start, *places(plane[rows])) for rows in parts]
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
    parts = bands(*mask.shape)
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


def fit_interval(start: int, length: int, limit: int) -> int:
    """Start of an interval moved inside `[0, limit)`; one longer than that is centred on it."""
    if length >= limit:
        return (limit - length) // 2
    return max(0, min(start, limit - length))


def square_around(box: Box, side: int, height: int, width: int) -> Box:
    """A square of this side, centred on `box`, moved into a picture of this size as far as it fits."""
    x0 = fit_interval((box.x0 + box.x1 - side) // 2, side, width)
    y0 = fit_interval((box.y0 + box.y1 - side) // 2, side, height)
    return Box(x0, y0, x0 + side, y0 + side)


def merge_overlapping(boxes: Sequence[Box]) -> list[Box]:
    """Boxes united until no two overlap, in reading order."""
    merged: list[Box] = []
    for box in boxes:
        current = box
        while touching := [other for other in merged if other.overlaps(current)]:
            for other in touching:
                merged.remove(other)
                current = current.union(other)
        merged.append(current)
    return sorted(merged, key=lambda b: (b.y0, b.x0))


def bands(height: int, width: int, multiple: int = 1) -> list[slice]:
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
    for rows in bands(box.height, box.width):
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


def non_maximum_suppression(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes kept, best first: greedily, without those whose IoU with a kept one exceeds `threshold`.

    Args:
        boxes: `(N, 4)` float, `x0, y0, x1, y1`.
        scores: `(N,)` float.
        threshold: In [0, 1].
    """
    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[order, :2], boxes[best, :2])
        high = torch.minimum(boxes[order, 2:], boxes[best, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        order = order[shared / (area[order] + area[best] - shared) <= threshold]
    return torch.stack(kept) if kept else order
