"""Boxes in pixels of one picture, half-open: made from masks, fitted, merged and chosen among."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from .codecs.option_checks import shown


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


def whole_box(values: Any, size: tuple[int, ...]) -> Box:
    """The box of whole pixels around `x0, y0, x1, y1`, inside a photo of this `(height, width)`."""
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"box is {shown(values)}: expected four numbers, x0, y0, x1, y1") from error
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise InputError(f"box is {x0:g}, {y0:g}, {x1:g}, {y1:g}: expected finite x0 < x1 and y0 < y1")
    box = Box(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)).clip(size[0], size[1])
    if not (box.width and box.height):
        raise InputError(f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside of the photo of {size[1]}x{size[0]}")
    return box
