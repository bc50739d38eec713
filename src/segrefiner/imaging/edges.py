"""What the photo's edges say of contours: where they should run, and which of two masks lies on them.

The network answers each pixel for itself; the guided filter makes the answer of a small window a linear function of its
colours, so that a contour runs where the colours change. And a mask whose contour lies on edges already is an exact
one, which the network, exact to a pixel or two, can only spoil.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .ops import box_max, box_mean, contour, row_bands
from .shapes.blocks import BLOCK, BLOCKS_AT_ONCE, cut_blocks, touched_blocks

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


@dataclass(frozen=True)
class SnappedBlocks:
    """A probability with its contour drawn to edges, in the blocks that the contour passes through or comes near.

    Attributes:
        corners: `(B, 2)` int64, (y, x) of the blocks; no two overlap, but they may reach beyond the plane.
        blocks: `(B, side, side)` float in [0, 1].
    """

    corners: Tensor
    blocks: Tensor


def snap_to_edges(image: Tensor, probability: Tensor, radius: int, smoothness: float) -> SnappedBlocks:
    """The probability with its contour drawn to edges, where the contour is.

    Filtered once, a contour that is off by a pixel or two goes a part of the way to the edge; sharpened in between and
    filtered again, it goes on. Where that changes a pixel's state, its probability is the other state's. Beyond the
    blocks that are drawn the probability counts as it is.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float.
        radius: As for `GuidedFilter`, 12 at most.
        smoothness: As for `GuidedFilter`, for colours in [0, 1].

    Returns:
        Blocks of 24 pixels, so that the cost grows with the contour's length.
    """
    # Contours hardly move farther than one round reaches: blocks beyond that are not worth their time.
    corners = touched_blocks(contour(probability >= 0.5), 2 * radius)
    # A band of blocks is drawn with as many around it as all rounds but the first reach.
    beside = BLOCK * math.ceil(2 * radius * (_ROUNDS - 1) / BLOCK)
    blocks = [probability.new_empty(0, BLOCK, BLOCK)]
    for rows in row_bands(probability.shape[0], probability.shape[1], multiple=BLOCK):
        band = corners[(corners[:, 0] >= rows.start - beside) & (corners[:, 0] < rows.stop + beside)]
        inside = (band[:, 0] >= rows.start) & (band[:, 0] < rows.stop)
        if bool(inside.any()):
            blocks.append(_drawn(image, probability, band, radius, smoothness)[inside])
    return SnappedBlocks(corners, torch.cat(blocks))


def _drawn(image: Tensor, probability: Tensor, corners: Tensor, radius: int, smoothness: float) -> Tensor:
    """`snap_to_edges` of these blocks."""
    margin = 2 * radius
    filters = [
        GuidedFilter(cut_blocks(image, some, margin).float() / 255, radius, smoothness)
        for some in corners.split(BLOCKS_AT_ONCE)
    ]
    # From round to round, what is around a block is what has become of its neighbours.
    top, bottom = int(corners[0, 0]), int(corners[-1, 0]) + BLOCK
    first, width = max(0, top - margin), probability.shape[1]
    given = probability[first : bottom + margin]
    right = -width % BLOCK
    above, below = first - top + margin, bottom + margin - first - len(given)
    plane = F.pad(given[None], (margin, right + margin, above, below), mode="replicate")[0]
    side = BLOCK + 2 * margin
    windows = plane.unfold(0, side, BLOCK).unfold(1, side, BLOCK)
    inner = plane[margin:-margin, margin:-margin].unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    y, x = (corners[:, 0] - top) // BLOCK, corners[:, 1] // BLOCK
    once = moved = plane.new_empty(0)
    for turn in range(_ROUNDS):
        shown = windows[y, x][:, None]
        if turn:
            shown = _sharper(shown)
        parts = zip(filters, shown.split(BLOCKS_AT_ONCE), strict=True)
        moved = torch.cat([filtered(part) for filtered, part in parts])[:, 0]
        if not turn:
            once = moved.clamp_(0, 1)
        inner[y, :, x] = moved
        # Beyond the photo its border is repeated.
        plane[:above], plane[len(plane) - below :] = plane[above], plane[len(plane) - below - 1]
        plane[:, :margin], plane[:, margin + width :] = plane[:, [margin]], plane[:, [margin + width - 1]]
    return torch.where((moved >= 0.5) ^ (once >= 0.5), 1 - once, once)


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
    largest, step = None, 2 ** max(0, math.floor(math.log2(max(1.0, extent / _LEAST_EXTENT))))
    while step >= 1:
        gain = _edge_gain(*(plane[..., ::step, ::step] for plane in (image, refined, coarse)))
        largest = gain if largest is None else largest if gain is None else max(gain, largest)
        step //= 2
    return 1.0 if largest is None else largest


def _edge_gain(image: Tensor, refined: Tensor, coarse: Tensor) -> float | None:
    """`edge_gain` at one scale; `None` where no part of the contours is near the other."""
    counts, strengths = torch.zeros(2, 2, dtype=torch.float64, device=image.device)
    corners = touched_blocks(contour(refined), EDGE_REACH)
    for some in corners.split(BLOCKS_AT_ONCE) if len(corners) else ():
        states = torch.cat([cut_blocks(mask[None], some, EDGE_REACH + 1) for mask in (refined, coarse)], dim=1)
        states = states.view(torch.uint8)
        rims = box_max(states, 3) & box_max(1 - states, 3)
        near = box_max(rims.flip(1), 2 * EDGE_REACH + 1)
        weights = near.bitwise_and_(_middle(rims, *near.shape[-2:]))
        # Blocks may reach beyond the photo.
        rows, columns = (some[:, k, None] + torch.arange(BLOCK, device=some.device) < refined.shape[k] for k in (0, 1))
        weights &= (rows[:, :, None] & columns[:, None])[:, None].view(torch.uint8)
        counts += weights.sum(dim=(0, 2, 3))
        strengths += (weights * edge_strength(cut_blocks(image, some, EDGE_REACH + 1).float() / 255)).sum(dim=(0, 2, 3))
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
    down = torch.add(image[..., :-2, :], image[..., 1:-1, :], alpha=2).add_(image[..., 2:, :])
    along = torch.add(image[..., :-2], image[..., 1:-1], alpha=2).add_(image[..., 2:])
    across, upright = down[..., 2:] - down[..., :-2], along[..., 2:, :] - along[..., :-2, :]
    red, green, blue = across.square_().addcmul_(upright, upright).split(1, dim=1)
    magnitude = (red + green).add_(blue).sqrt_()
    largest = box_max(magnitude, 2 * EDGE_REACH + 1)
    return _middle(magnitude, *largest.shape[-2:]) / (largest + _NO_EDGE)
