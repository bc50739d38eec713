"""Contours drawn to the photo's edges: the guided filter of the refined probability, along the contour.

The network answers each pixel for itself; the filter makes the answer of a small window a linear function of its
colours, so that a contour runs where the colours change.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import contour

_BLOCK = 64


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

    def mean(planes: Tensor) -> Tensor:
        padded = F.pad(planes, (radius,) * 4, mode="replicate")
        return F.avg_pool2d(F.avg_pool2d(padded, (2 * radius + 1, 1), 1), (1, 2 * radius + 1), 1)

    r, g, b = image.split(1, dim=1)
    products = torch.cat([r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
    means = mean(torch.cat([image, values, products, image * values], dim=1))
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
    smooth = mean(torch.cat([slope, offset], dim=1))
    return (smooth[:, :3] * image).sum(dim=1, keepdim=True) + smooth[:, 3:]


def follow_edges(image: Tensor, probability: Tensor, radius: int, smoothness: float) -> Tensor:
    """The filtered probability `(H, W)` float in [0, 1]; away from the contour it is the given one.

    Only blocks of 64 pixels that the contour passes through are filtered, so that the cost grows with its length.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float.
        radius: As for `guided_filter`.
        smoothness: As for `guided_filter`, for colours in [0, 1].
    """
    height, width = probability.shape
    margin = 2 * radius
    # A contour beside a block moves pixels in it.
    near = F.max_pool2d(contour(probability >= 0.5)[None].float(), 2 * margin + 1, 1, margin)[0]
    result = probability.clone()
    for y, x in _touched(near, _BLOCK):
        top, left = max(0, y - margin), max(0, x - margin)
        here = (slice(top, min(height, y + _BLOCK + margin)), slice(left, min(width, x + _BLOCK + margin)))
        filtered = guided_filter(
            image[(slice(None), *here)][None] / 255, probability[here][None, None], radius, smoothness
        )[0, 0]
        core = filtered[y - top : y - top + _BLOCK, x - left : x - left + _BLOCK]
        result[y : y + _BLOCK, x : x + _BLOCK] = core
    return result.clamp_(0, 1)


def _touched(plane: Tensor, side: int) -> list[tuple[int, int]]:
    """Corners (y, x) of the blocks of `(H, W)` float that are not all zero."""
    blocks = F.max_pool2d(plane[None], side, ceil_mode=True)[0].nonzero() * side
    return [(int(y), int(x)) for y, x in blocks.tolist()]
