"""The paper's coarse masks: contours with few vertices, then random dilation and erosion of random parts.

As in SegRefiner (arXiv 2312.12425, section 4.1), which takes it over from CascadePSP (CVPR 2020), with the published
code's numbers. Unlike there, every draw comes from the caller's generator, and no mask becomes empty.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...imaging.shapes.contours import borders

IOU = 0.8
"""The paper's: masks are changed until they agree with the truth less than this."""

_FEWEST_VERTICES = 10
_DROPPED, _KEPT, _NEAREST = 0.1, 0.1, 0.1
_ROUNDS, _PARTS = 250, 4
_SIZES = 3, 10
_PIXEL, _DILATE = 0.25, 0.5

Mask = NDArray[np.bool_]


def published_coarse(mask: Mask, random: np.random.Generator, *, iou: float = IOU) -> Mask:
    """A coarse mask as the published models were trained on.

    Each contour loses a run of a tenth of its vertices, one whose ends lie close together, and nine tenths of the rest.
    Then rectangles anywhere in the picture are dilated or eroded, after a pixel in their middle was set at random,
    until the mask agrees less with the truth than asked for.

    Args:
        mask: `(H, W)` bool, the truth.
        random: Source of all draws.
        iou: When to stop, in [0, 1].

    Returns:
        `(H, W)` bool; a copy of the truth where that is empty, full or at most two pixels high or wide.
    """
    if min(mask.shape) <= 2 or mask.all() or not mask.any():
        return mask.copy()
    coarse = _few_vertices(mask, random)
    area = int(np.count_nonzero(mask))
    for _ in range(_ROUNDS):
        before = coarse.copy()
        for _ in range(_PARTS):
            _change_part(coarse, random)
        if not coarse.any():
            coarse = before  # the truth's own labels would be lost with the object
        common = int(np.count_nonzero(coarse & mask))
        if common < iou * (area + int(np.count_nonzero(coarse)) - common):
            break
    return coarse


def _few_vertices(mask: Mask, random: np.random.Generator) -> Mask:
    """The polygons of a few of each contour's vertices, filled; contours of fewer than ten are left out."""
    height, width = mask.shape
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    # Even-odd, as all contours of holes and objects are filled together.
    filled = np.zeros((height, width), bool)
    for border in borders(mask):
        if len(border) < _FEWEST_VERTICES:
            continue
        points = np.stack([border % (width + 2) - 1, border // (width + 2) - 1], axis=1)
        count = int(len(points) * _DROPPED)
        gaps = np.square(points[: len(points) - count] - points[count:]).sum(axis=1)
        nearest = np.argsort(gaps, kind="stable")[: max(1, int(np.ceil(_NEAREST * len(gaps))))]
        start = int(random.choice(nearest))
        rest = np.concatenate([points[:start], points[start + count :]])
        kept = np.sort(random.choice(len(rest), int(len(rest) * _KEPT), replace=False))
        if len(kept) < 2:
            continue
        draw.rectangle((0, 0, width, height), fill=0)
        draw.polygon([(int(x), int(y)) for x, y in rest[kept]], fill=1, outline=1)
        filled ^= np.asarray(picture)
    return filled if filled.any() else mask.copy()


def _change_part(coarse: Mask, random: np.random.Generator) -> None:
    """Dilates or erodes a random rectangle of a mask, in place."""
    height, width = coarse.shape
    left, top = int(random.integers(width)), int(random.integers(height))
    right, bottom = int(random.integers(left + 1, width + 1)), int(random.integers(top + 1, height + 1))
    pixel, dilate = random.random() < _PIXEL, random.random() < _DILATE
    if pixel:
        coarse[(top + bottom) // 2, (left + right) // 2] = random.random() < 0.5
    element = _structure(int(random.integers(*_SIZES)), int(random.integers(4)))
    part = coarse[top:bottom, left:right]
    # Only beside contours can anything change: a part of one value stays as it is.
    if part.all() or not part.any():
        return
    coarse[top:bottom, left:right] = _dilated(part, element) if dilate else ~_dilated(~part, element)


def _structure(size: int, kind: int) -> list[tuple[int, int]]:
    """A structuring element as runs: for each of its rows, the row's offset, and half of its length.

    A rectangle, or an ellipse that is as high as wide, half as high or half as wide.
    """
    height, width = {2: (max(1, size // 2), size), 3: (size, max(1, size // 2))}.get(kind, (size, size))
    rows = []
    for y in range(height):
        offset = y - height // 2
        ratio = 0.0 if kind == 0 or height == 1 else offset / (height / 2)
        rows.append((offset, round(width // 2 * max(0.0, 1 - ratio**2) ** 0.5)))
    return rows


def _dilated(part: Mask, element: list[tuple[int, int]]) -> Mask:
    """Dilation by rows: every row of the element widens the mask by its half length, and moves it up or down."""
    height, width = part.shape
    sums = np.zeros((height, width + 1), np.int32)
    np.cumsum(part, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    result = np.zeros_like(part)
    widened: dict[int, Mask] = {}
    for offset, half in element:
        if abs(offset) >= height:
            continue
        if half not in widened:
            low, high = np.maximum(columns - half, 0), np.minimum(columns + half + 1, width)
            widened[half] = sums[:, high] > sums[:, low]
        target = slice(max(0, offset), height + min(0, offset))
        origin = slice(max(0, -offset), height + min(0, -offset))
        result[target] |= widened[half][origin]
    return result
