"""Contours drawn to the photo's edges: the guided filter of the refined probability, along the contour.

The network answers each pixel for itself; the filter makes the answer of a small window a linear function of its
colours, so that a contour runs where the colours change.
"""

from itertools import product

import torch
from torch import Tensor

from .geometry import Box, box_mean, contour, fit_interval

_BLOCK = 64
_BLOCKS_AT_ONCE = 16


def guided_filter(image: Tensor, values: Tensor, radius: int, smoothness: float) -> Tensor:
    """The colour guided filter (He, Sun and Tang, TPAMI 2013, equations 14 to 16).

    Args:
        image: `(B, 3, H, W)` float, in [0, 1].
        values: `(B, 1, H, W)` float.
        radius: Of the windows, which are `2 * radius + 1` pixels wide, in pixels; outside, the border is repeated.
        smoothness: Variance of colours, in squares of the image's unit, below which a window counts as flat (the
            paper's epsilon).

    Returns:
        `(B, 1, H, W)` float.
    """
    r, g, b = image.split(1, dim=1)
    products = torch.cat([r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
    means = box_mean(torch.cat([image, values, products, image * values], dim=1), radius)
    colour, value, products, shared = means.split([3, 1, 6, 3], dim=1)
    r, g, b = colour.split(1, dim=1)
    rr, rg, rb, gg, gb, bb = products.split(1, dim=1)
    rr, gg, bb = rr - r * r + smoothness, gg - g * g + smoothness, bb - b * b + smoothness
    rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
    # The inverse of the symmetric covariance by its cofactors.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    s_r, s_g, s_b = (shared - colour * value).split(1, dim=1)
    slope = torch.cat(
        [
            c_rr * s_r + c_rg * s_g + c_rb * s_b,
            c_rg * s_r + c_gg * s_g + c_gb * s_b,
            c_rb * s_r + c_gb * s_g + c_bb * s_b,
        ],
        dim=1,
    )
    slope = slope / determinant
    offset = value - (slope * colour).sum(dim=1, keepdim=True)
    smooth = box_mean(torch.cat([slope, offset], dim=1), radius)
    return (smooth[:, :3] * image).sum(dim=1, keepdim=True) + smooth[:, 3:]


def follow_edges(image: Tensor, probability: Tensor, radius: int, smoothness: float) -> list[tuple[Box, Tensor]]:
    """The filtered probability, where the contour is.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float.
        radius: As for `guided_filter`.
        smoothness: As for `guided_filter`, for colours in [0, 1].

    Returns:
        The blocks of at most 64 pixels that the contour passes through, so that the cost grows with its length, and
        the probability `(height, width)` float in [0, 1] in each.
    """
    height, width = probability.shape
    margin = 2 * radius
    blocks = []
    corners = _touched(contour(probability >= 0.5), _BLOCK, margin)
    rows, columns = min(height, _BLOCK + 2 * margin), min(width, _BLOCK + 2 * margin)
    for start in range(0, len(corners), _BLOCKS_AT_ONCE):
        part = corners[start : start + _BLOCKS_AT_ONCE]
        # Blocks with what the filter looks at around them; at the photo's border they are moved inside.
        tops = [fit_interval(y - margin, rows, height) for y, _ in part]
        lefts = [fit_interval(x - margin, columns, width) for _, x in part]
        boxes = [Box(x, y, x + columns, y + rows) for y, x in zip(tops, lefts, strict=True)]
        photos = torch.stack([box.crop(image) for box in boxes])
        values = torch.stack([box.crop(probability[None]) for box in boxes])
        filtered = guided_filter(photos / 255, values, radius, smoothness).clamp_(0, 1)
        for (y, x), top, left, block in zip(part, tops, lefts, filtered[:, 0], strict=True):
            core = Box(x, y, min(x + _BLOCK, width), min(y + _BLOCK, height))
            blocks.append((core, core.shift(-left, -top).crop(block[None])[0]))
    return blocks


def _touched(plane: Tensor, side: int, margin: int) -> list[tuple[int, int]]:
    """Corners (y, x) of the blocks of `(H, W)` bool that have a pixel set in them or within `margin` of them."""
    height, width = plane.shape
    rows, columns = plane.nonzero(as_tuple=True)
    blocks = torch.zeros(-(-height // side), -(-width // side), dtype=torch.bool, device=plane.device)
    # No margin is as long as a block, so that a pixel is near those at the corners of the square around it alone.
    for down, right in product((-margin, margin), repeat=2):
        blocks[(rows + down).clamp(0, height - 1) // side, (columns + right).clamp(0, width - 1) // side] = True
    return [(y * side, x * side) for y, x in blocks.nonzero().tolist()]
