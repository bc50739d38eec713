"""What the photo's edges say of contours: where they should run, and which of two masks lies on them.

The network answers each pixel for itself; the guided filter makes the answer of a small window a linear function of its
colours, so that a contour runs where the colours change. And a mask whose contour lies on edges already is an exact
one, which the network, exact to a pixel or two, can only spoil.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Box, box_mean, contour, fit_interval

_BLOCK = 64
_BLOCKS_AT_ONCE = 16

EDGE_REACH = 4
"""How far from one mask's contour the other's is compared with it, and how far around a pixel the strongest edge is
looked for, in pixels."""

_LEAST_EXTENT = 64
"""Side in pixels of the square that is as large as the object, in the coarsest picture of it that is compared."""

_NO_EDGE = 0.1
"""Gradient, of colours in [0, 1] and by Sobel kernels that sum to 4 on either side, that counts as none."""

_ROUNDS = 3
_SHARPENING = 2


class GuidedFilter:
    """The colour guided filter (He, Sun and Tang, TPAMI 2013, equations 14 to 16) of one image.

    Args:
        image: `(B, 3, H, W)` float, in [0, 1].
        radius: Of the windows, which are `2 * radius + 1` pixels wide, in pixels; outside, the border is repeated.
        smoothness: Variance of colours, in squares of the image's unit, below which a window counts as flat (the
            paper's epsilon).
    """

    def __init__(self, image: Tensor, radius: int, smoothness: float) -> None:
        self._image, self._radius = image, radius
        r, g, b = image.split(1, dim=1)
        products = torch.cat([r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
        self._colour, products = box_mean(torch.cat([image, products], dim=1), radius).split([3, 6], dim=1)
        r, g, b = self._colour.split(1, dim=1)
        rr, rg, rb, gg, gb, bb = products.split(1, dim=1)
        rr, gg, bb = rr - r * r + smoothness, gg - g * g + smoothness, bb - b * b + smoothness
        rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
        # The inverse of the symmetric covariance by its cofactors.
        c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
        c_gg, c_gb, c_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
        determinant = rr * c_rr + rg * c_rg + rb * c_rb
        rows = (c_rr, c_rg, c_rb), (c_rg, c_gg, c_gb), (c_rb, c_gb, c_bb)
        self._inverse = [torch.cat(row, dim=1) / determinant for row in rows]

    def __call__(self, values: Tensor) -> Tensor:
        """The filtered values `(B, 1, H, W)` float of as many given."""
        means = box_mean(torch.cat([values, self._image * values], dim=1), self._radius)
        value, shared = means.split([1, 3], dim=1)
        shared = shared - self._colour * value
        slope = torch.cat([(row * shared).sum(dim=1, keepdim=True) for row in self._inverse], dim=1)
        offset = value - (slope * self._colour).sum(dim=1, keepdim=True)
        smooth = box_mean(torch.cat([slope, offset], dim=1), self._radius)
        return (smooth[:, :3] * self._image).sum(dim=1, keepdim=True) + smooth[:, 3:]

    def contour(self, values: Tensor) -> Tensor:
        """The filtered probability, its contour where it ends up when values are filtered and sharpened in turns.

        Filtered once, a contour that is off by a pixel or two goes a part of the way to the edge; sharpened in
        between, it goes on. Where that changes a pixel's state, its probability is the other state's.

        Args:
            values: `(B, 1, H, W)` float, in [0, 1].

        Returns:
            `(B, 1, H, W)` float, in [0, 1].
        """
        once = self(values).clamp_(0, 1)
        moved = once
        for _ in range(_ROUNDS - 1):
            moved = self(_sharper(moved))
        return torch.where((moved >= 0.5) == (once >= 0.5), once, 1 - once)


def _sharper(values: Tensor) -> Tensor:
    return (_SHARPENING * (values - 0.5) + 0.5).clamp_(0, 1)


def follow_edges(image: Tensor, probability: Tensor, radius: int, smoothness: float) -> list[tuple[Box, Tensor]]:
    """The probability with its contour drawn to edges, where the contour is.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float.
        radius: As for `GuidedFilter`.
        smoothness: As for `GuidedFilter`, for colours in [0, 1].

    Returns:
        The blocks of at most 64 pixels that the contour passes through, so that the cost grows with its length, and
        the probability `(height, width)` float in [0, 1] in each.
    """
    margin = 2 * radius * _ROUNDS
    corners = _touched(contour(probability >= 0.5), _BLOCK, margin)
    blocks = []
    for cores, inner, photos, values in _crops(corners, margin, image, probability[None]):
        drawn = GuidedFilter(photos / 255, radius, smoothness).contour(values)
        for core, part, block in zip(cores, inner, drawn, strict=True):
            blocks.append((core, part.crop(block)[0]))
    return blocks


def edge_gain(image: Tensor, refined: Tensor, coarse: Tensor) -> float:
    """By how much better the refined contour lies on the photo's edges than the coarse one, where both are near.

    An edge's strength at a pixel is the gradient there as a share of the largest one around it. The gain is the mean
    strength along the refined contour, within `EDGE_REACH` of the coarse one, less that along the coarse contour,
    within as much of the refined one. So it asks how exact the coarse contour is, not how much the masks differ: a
    piece that is missing from an exact mask leaves it near zero. It is taken of the photo and, for the large errors of
    large objects, of every second, fourth, … pixel of it; the largest counts.

    Args:
        image: `(3, H, W)` uint8, RGB.
        refined: `(H, W)` bool.
        coarse: `(H, W)` bool.

    Returns:
        In [-1, 1]; 1 where no part of the contours is near the other.
    """
    extent = math.sqrt(max(int(torch.count_nonzero(refined)), int(torch.count_nonzero(coarse))))
    gains, step = [], 1
    while step == 1 or extent >= step * _LEAST_EXTENT:
        gains.append(_edge_gain(*(plane[..., ::step, ::step] for plane in (image, refined, coarse))))
        step *= 2
    return max((gain for gain in gains if gain is not None), default=1.0)


def _edge_gain(image: Tensor, refined: Tensor, coarse: Tensor) -> float | None:
    """`edge_gain` at one scale; `None` where no part of the contours is near the other."""
    counts, strengths = torch.zeros(2, 2, dtype=torch.float64, device=image.device)
    corners = _touched(contour(refined), _BLOCK, EDGE_REACH)
    masks = torch.stack([refined, coarse])
    for _, inner, photos, both in _crops(corners, EDGE_REACH + 1, image, masks):
        counted = torch.zeros_like(both[:, :1], dtype=torch.uint8)
        for part, plane in zip(inner, counted, strict=True):
            part.crop(plane).fill_(1)
        states = both.to(torch.uint8)
        rims = _largest_around(states, 1) & _largest_around(1 - states, 1)
        weights = rims & _largest_around(rims.flip(1), EDGE_REACH) & counted
        counts += weights.sum(dim=(0, 2, 3))
        strengths += (weights * edge_strength(photos / 255)).sum(dim=(0, 2, 3))
    if not bool((counts > 0).all()):
        return None
    on_refined, on_coarse = (strengths / counts).tolist()
    return on_refined - on_coarse


def edge_strength(image: Tensor) -> Tensor:
    """The gradient as a share of the largest one within `EDGE_REACH` of each pixel.

    Args:
        image: `(B, 3, H, W)` float, in [0, 1].

    Returns:
        `(B, 1, H, W)` float in [0, 1): the magnitude of the Sobel gradient of all colours; low everywhere where nothing
        around exceeds what noise may be.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    along = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    gradient = (down[..., 2:] - down[..., :-2]).square_() + (along[..., 2:, :] - along[..., :-2, :]).square_()
    magnitude = gradient.sum(dim=1, keepdim=True).sqrt_()
    return magnitude / (_largest_around(magnitude, EDGE_REACH) + _NO_EDGE)


def _largest_around(planes: Tensor, radius: int) -> Tensor:
    """The largest value of `(…, H, W)`, none below 0, in the square of `2 * radius + 1` pixels around each pixel.

    By maxima of shifted planes, which on a CPU take a tenth of the time of PyTorch's pooling.
    """
    planes = F.pad(planes, (radius,) * 4)
    for dim in (-2, -1):
        reach, side = 1, 2 * radius + 1
        while reach < side:
            step = min(reach, side - reach)
            left = planes.shape[dim] - step
            planes = torch.maximum(planes.narrow(dim, 0, left), planes.narrow(dim, step, left))
            reach += step
    return planes


def _crops(corners: list[tuple[int, int]], margin: int, *planes: Tensor) -> Iterator[tuple[Any, ...]]:
    """Blocks with what is around them, some at once.

    Args:
        corners: Of the blocks, (y, x).
        margin: How much around a block is cut with it, in pixels; at the border the cut is moved inside.
        planes: `(C, H, W)` each.

    Yields:
        The blocks' boxes, where they lie in what is cut, and the cut parts of each of the planes, `(B, C, h, w)`.
    """
    height, width = planes[0].shape[-2:]
    rows, columns = min(height, _BLOCK + 2 * margin), min(width, _BLOCK + 2 * margin)
    for start in range(0, len(corners), _BLOCKS_AT_ONCE):
        cores, inner, around = [], [], []
        for y, x in corners[start : start + _BLOCKS_AT_ONCE]:
            top, left = fit_interval(y - margin, rows, height), fit_interval(x - margin, columns, width)
            cores.append(Box(x, y, min(x + _BLOCK, width), min(y + _BLOCK, height)))
            inner.append(cores[-1].shift(-left, -top))
            around.append(Box(left, top, left + columns, top + rows))
        yield cores, inner, *(torch.stack([box.crop(plane) for box in around]) for plane in planes)


def _touched(plane: Tensor, side: int, margin: int) -> list[tuple[int, int]]:
    """Corners (y, x) of the blocks of `(H, W)` bool that have a pixel set in them or within `margin` of them."""
    height, width = plane.shape
    rows, columns = plane.nonzero(as_tuple=True)
    blocks = torch.zeros(-(-height // side), -(-width // side), dtype=torch.bool, device=plane.device)
    # No margin is as long as a block, so that a pixel is near those at the corners of the square around it alone.
    for down, right in product((-margin, margin), repeat=2):
        blocks[(rows + down).clamp(0, height - 1) // side, (columns + right).clamp(0, width - 1) // side] = True
    return [(y * side, x * side) for y, x in blocks.nonzero().tolist()]
