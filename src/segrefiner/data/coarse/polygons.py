"""Coarse masks as annotators draw them: polygons of few vertices, each a few pixels off."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...imaging.shapes.contours import borders, douglas_peucker

TOLERANCE = (0.7, 6.0)
"""How far a polygon may pass from the contour, in pixels, drawn log-uniformly: careful to hurried annotators."""

_JITTER = 0.35
"""Standard deviation of a vertex's error, as a share of the tolerance."""

_FEWEST_PIXELS = 6
"""Contours with fewer pixels are left out, as annotators leave out specks and pinholes."""

Mask = NDArray[np.bool_]


def polygon_coarse(mask: Mask, random: np.random.Generator) -> Mask:
    """Draw a mask's contours as polygons (Douglas and Peucker 1973) whose vertices are a little off.

    Args:
        mask: `(H, W)` bool, the truth.
        random: Source of all draws.

    Returns:
        `(H, W)` bool; a copy of the truth where that is empty or full, or nothing of it is left.
    """
    if mask.all() or not mask.any():
        return mask.copy()
    low, high = np.log(TOLERANCE)
    tolerance = float(np.exp(random.uniform(low, high)))
    height, width = mask.shape
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    # Even-odd, as holes are drawn over the objects that they lie in.
    filled = np.zeros((height, width), bool)
    for border in borders(mask):
        if len(border) < _FEWEST_PIXELS:
            continue
        points = np.stack([border % (width + 2) - 1, border // (width + 2) - 1], axis=1)
        vertices = _closed_polygon(points, tolerance).astype(np.float64)
        vertices += random.normal(0, _JITTER * tolerance, vertices.shape)
        if len(vertices) < 3:
            continue
        draw.rectangle((0, 0, width, height), fill=0)
        draw.polygon([(float(x), float(y)) for x, y in vertices], fill=1, outline=1)
        filled ^= np.asarray(picture)
    return filled if filled.any() else mask.copy()


def _closed_polygon(points: NDArray[np.int_], tolerance: float) -> NDArray[np.int_]:
    """Those of a closed contour's points `(N, 2)` that keep it within the tolerance, in order."""
    # A closed line is two open ones, from its first point to the one farthest from it and back.
    farthest = int(np.square(points - points[0]).sum(axis=1).argmax())
    there = douglas_peucker(points[: farthest + 1], tolerance)
    back = douglas_peucker(np.concatenate([points[farthest:], points[:1]]), tolerance)
    kept: NDArray[np.int_] = points[[*there[:-1], *(farthest + i for i in back[:-1])]]
    return kept
