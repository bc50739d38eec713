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

from .geometry import Box, box_mean, contour

_BLOCK = 48
_BLOCKS_AT_ONCE = 12

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

    Windows are `2 * radius + 1` pixels wide and lie inside the image, so that results are smaller than what is given.

    Args:
        image: `(B, 3, H, W)` float, in [0, 1].
        radius: Of the windows, in pixels.
        smoothness: Variance of colours, in squares of the image's unit, below which a window counts as flat (the
            paper's epsilon).
    """

    def __init__(self, image: Tensor, radius: int, smoothness: float) -> None:
        self._image, self._radius = image, radius
        r, g, b = image.split(1, dim=1)
        products = torch.cat([image, r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
        self._colour, products = box_mean(products, radius).split([3, 6], dim=1)
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
        """Filters values.

        Args:
            values: `(B, 1, h, w)` float, of the middle of the image.

        Returns:
            `(B, 1, h - 4 * radius, w - 4 * radius)` float, of the middle of that.
        """
        height, width = values.shape[-2:]
        products = torch.cat([values, _middle(self._image, height, width) * values], dim=1)
        value, shared = box_mean(products, self._radius).split([1, 3], dim=1)
        height, width = value.shape[-2:]
        colour = _middle(self._colour, height, width)
        shared = torch.addcmul(shared, colour, value, value=-1)
        # The inverse is symmetric: its rows are its columns.
        first, second, third = (_middle(column, height, width) for column in self._inverse)
        slope = (first * shared[:, :1]).addcmul_(second, shared[:, 1:2]).addcmul_(third, shared[:, 2:])
        line = torch.cat([slope, value], dim=1)
        _add_products(line[:, 3:], slope, colour, -1)
        smooth = box_mean(line, self._radius)
        return _add_products(smooth[:, 3:], smooth[:, :3], _middle(self._image, *smooth.shape[-2:]), 1)

    def contour(self, values: Tensor) -> Tensor:
        """The filtered probability, its contour where it ends up when values are filtered and sharpened in turns.

        Filtered once, a contour that is off by a pixel or two goes a part of the way to the edge; sharpened in
        between, it goes on. Where that changes a pixel's state, its probability is the other state's.

        Args:
            values: `(B, 1, H, W)` float, in [0, 1].

        Returns:
            `(B, 1, H - 2 * m, W - 2 * m)` float, in [0, 1], of the middle; `m` is `2 * radius` for each round.
        """
        once = self(values).clamp_(0, 1)
        moved = once
        for _ in range(_ROUNDS - 1):
            moved = self(_sharper(moved))
        once = _middle(once, *moved.shape[-2:])
        return torch.where((moved >= 0.5) ^ (once >= 0.5), 1 - once, once)


def _middle(planes: Tensor, height: int, width: int) -> Tensor:
    """The middle `(…, height, width)` of planes."""
    top, left = (planes.shape[-2] - height) // 2, (planes.shape[-1] - width) // 2
    return planes[..., top : top + height, left : left + width]


def _add_products(total: Tensor, one: Tensor, other: Tensor, sign: float) -> Tensor:
    """Adds the product of two planes' channels, summed over the channels, to `(B, 1, H, W)` in place."""
    for a, b in zip(one.split(1, dim=1), other.split(1, dim=1), strict=True):
        total.addcmul_(a, b, value=sign)
    return total


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
        The blocks of at most 48 pixels that the contour passes through or comes near, so that the cost grows with its
        length, and the probability `(height, width)` float in [0, 1] in each.
    """
    margin = 2 * radius * _ROUNDS
    # Contours hardly move farther than one round reaches: blocks beyond that are not worth their time.
    corners = _touched(contour(probability >= 0.5), _BLOCK, 2 * radius)
    blocks = []
    for cores, photos, values in _crops(corners, margin, image, probability[None]):
        drawn = GuidedFilter(photos / 255, radius, smoothness).contour(values)
        blocks += [(core, block[0, : core.height, : core.width]) for core, block in zip(cores, drawn, strict=True)]
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
    for cores, photos, *both in _crops(corners, EDGE_REACH + 1, image, refined[None], coarse[None]):
        states = torch.cat(both, dim=1).to(torch.uint8)
        rims = _largest_within(states, 1) & _largest_within(1 - states, 1)
        near = _largest_within(rims.flip(1), EDGE_REACH)
        weights = near.bitwise_and_(_middle(rims, *near.shape[-2:]))
        for core, weight in zip(cores, weights, strict=True):
            weight[:, core.height :] = 0
            weight[:, :, core.width :] = 0
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
        `(B, 1, H - 2 * m, W - 2 * m)` float in [0, 1), of the pixels that have `m = EDGE_REACH + 1` others around them:
        the magnitude of the Sobel gradient of all colours; low everywhere where nothing around exceeds what noise may
        be.
    """
    down = image[..., :-2, :] + 2 * image[..., 1:-1, :] + image[..., 2:, :]
    along = image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]
    gradient = (down[..., 2:] - down[..., :-2]).square_() + (along[..., 2:, :] - along[..., :-2, :]).square_()
    magnitude = gradient.sum(dim=1, keepdim=True).sqrt_()
    largest = _largest_within(magnitude, EDGE_REACH)
    return _middle(magnitude, *largest.shape[-2:]) / (largest + _NO_EDGE)


def _largest_within(planes: Tensor, radius: int) -> Tensor:
    """The largest value in the square of `2 * radius + 1` pixels around each of `(…, H, W)` whose square is inside.

    By maxima of shifted planes, which on a CPU take a tenth of the time of PyTorch's pooling.
    """
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
        margin: How much around a block is cut with it, in pixels.
        planes: `(C, H, W)` each; beyond them their border is repeated.

    Yields:
        The blocks' boxes inside the planes, and of each of the planes the cut parts `(B, C, side, side)`, `side` being
        that of a block and both margins.
    """
    height, width = planes[0].shape[-2:]
    for start in range(0, len(corners), _BLOCKS_AT_ONCE):
        blocks = [Box(x, y, x + _BLOCK, y + _BLOCK) for y, x in corners[start : start + _BLOCKS_AT_ONCE]]
        around = [Box(b.x0 - margin, b.y0 - margin, b.x1 + margin, b.y1 + margin) for b in blocks]
        cut = (torch.stack([_with_border(plane, box) for box in around]) for plane in planes)
        yield [block.clip(height, width) for block in blocks], *cut


def _with_border(plane: Tensor, box: Box) -> Tensor:
    """The pixels `(C, height, width)` in a box; beyond the plane its border is repeated."""
    height, width = plane.shape[-2:]
    if box.clip(height, width) == box:
        return box.crop(plane)
    rows = torch.arange(box.y0, box.y1, device=plane.device).clamp(0, height - 1)
    columns = torch.arange(box.x0, box.x1, device=plane.device).clamp(0, width - 1)
    return plane[:, rows[:, None], columns]


def _touched(plane: Tensor, side: int, margin: int) -> list[tuple[int, int]]:
    """Corners (y, x) of the blocks of `(H, W)` bool that have a pixel set in them or within `margin` of them."""
    height, width = plane.shape
    rows, columns = plane.nonzero(as_tuple=True)
    blocks = torch.zeros(-(-height // side), -(-width // side), dtype=torch.bool, device=plane.device)
    # No margin is longer than a block, so that a pixel is near its own and those that these places around it lie in.
    for down, right in product((-margin, 0, margin), repeat=2):
        blocks[(rows + down).clamp(0, height - 1) // side, (columns + right).clamp(0, width - 1) // side] = True
    return [(y * side, x * side) for y, x in blocks.nonzero().tolist()]
