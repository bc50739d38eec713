"""Outlines of a mask as polygons that draw the very same mask again.

Corners are in pixels, `x` and `y` in turns; pixel `(0, 0)` covers the square from 0 to 1. Outlines run through the
middles of the sides between object and background; where two straight sides meet, their corner is kept.

A contour that was drawn lies within half a pixel of its outline, in x and in y, and the rounding of COCO's grid, a
tenth of a pixel. No outline could lie nearer: a rectangle may grow by almost a pixel each way and draw the same mask.

A polygon has no holes, and some files have one polygon for an object. Holes, and then parts, are joined to their
neighbour by a bridge: a line that is walked there and back again, and so has no area.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label
from scipy.spatial import cKDTree

from .contours import Mask, crack_loops

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """A mask's polygons.

    Attributes:
        polygons: `[x0, y0, x1, y1, …]` of each part.
        holes: How many holes are joined to the outline around them.
    """

    polygons: list[list[float]]
    holes: int


def mask_outlines(mask: Mask) -> Outlines:
    """The polygons of a mask `(H, W)` bool, one for each part; pixels that touch at a corner are one part.

    `coco_masks.draw_polygons` draws the same mask of them.
    """
    labels, count = label(mask, np.ones((3, 3), int))
    width = mask.shape[1] + 2
    outer: list[Points] = [np.empty((0, 2))] * count
    holes: list[list[Points]] = [[] for _ in range(count)]
    for pixels, sides in crack_loops(mask):
        part = int(labels[pixels[0] // width - 1, pixels[0] % width - 1]) - 1
        ring = _ring(pixels, sides, width)
        # Outer loops start on the left side of their first pixel, those of holes on the right.
        if sides[0]:
            holes[part].append(ring)
        else:
            outer[part] = ring
    rings = [_join([ring, *inner]) for ring, inner in zip(outer, holes, strict=True)]
    return Outlines([ring.ravel().tolist() for ring in rings], sum(map(len, holes)))


def single_outline(mask: Mask) -> tuple[list[float], Outlines]:
    """One polygon of a mask `(H, W)` bool that has any pixel, all parts joined; and the polygons that were joined."""
    found = mask_outlines(mask)
    return _join([np.array(one).reshape(-1, 2) for one in found.polygons]).ravel().tolist(), found


def _ring(pixels: npt.NDArray[np.int_], sides: npt.NDArray[np.int_], width: int) -> Points:
    """The corners of one outline, from its cracks as `crack_loops` gives them."""
    origin = np.stack([pixels % width - 1, pixels // width - 1], axis=1).astype(np.float64)
    start = origin + np.array([[0, 0], [0, 1], [1, 1], [1, 0]])[sides]
    middle = (start + np.roll(start, -1, axis=0)) / 2
    turns = sides != np.roll(sides, 1)
    # A corner between two sides that are both straight for two pixels or more is one of the object; others are steps
    # of a slanted or bent line.
    run = (turns.cumsum() - 1) % max(1, turns.sum())
    length = np.bincount(run)[run]
    sharp = turns & (length > 1) & (np.roll(length, 1) > 1)
    points = np.stack([start, middle], axis=1).reshape(-1, 2)
    kept = np.stack([sharp, np.ones(len(sides), np.bool_)], axis=1).ravel()
    return _without_collinear(points[kept])


def _without_collinear(points: Points) -> Points:
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    bent = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[bent]


def _join(rings: list[Points]) -> Points:
    """One ring of several: each further one is entered where it is nearest, walked around, and left again."""
    joined, *rest = rings
    for ring in rest:
        gaps, places = cKDTree(joined).query(ring)
        first = int(np.argmin(gaps))
        near = int(np.asarray(places)[first])
        around = np.roll(ring, -first, axis=0)
        joined = np.concatenate([joined[: near + 1], around, around[:1], joined[near:]])
    return joined
