"""Lines drawn from a binary mask: its skeleton, its borders, and the corners of a border.

They count the clicks of human correction effort, `segrefiner.evaluation.dis_metrics.hce`, and give pixel by pixel what
OpenCV's `findContours` and `approxPolyDP` and scikit-image's `skeletonize` give, without needing either.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int_]


def skeleton(mask: Mask) -> Mask:
    """Thin a mask to lines one pixel wide, with the result of scikit-image's `skeletonize`.

    Zhang and Suen's thinning (CACM 27(3), 1984) with the deviations of scikit-image's table. What a pixel
    does depends on its neighbours alone, so after the first round only neighbours of removed pixels are
    looked at.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `(H, W)` bool.
    """
    padded = np.pad(mask, 1)
    width, solid = padded.shape[1], padded.ravel()
    around = np.array([-width - 1, -width, 1 - width, 1, width + 1, width, width - 1, -1])
    tables = _removable()
    # For each table, the pixels whose neighbourhood has changed since it last looked.
    pending = [np.flatnonzero(solid)] * 2
    turn = 0
    while pending[0].size or pending[1].size:
        pixels = pending[turn][solid[pending[turn]]]
        codes = (solid[pixels[:, None] + around] << np.arange(8)).sum(axis=1)
        removed = pixels[tables[turn][codes]]
        solid[removed] = False
        pending[turn] = np.unique(removed[:, None] + around)
        pending[1 - turn] = np.union1d(pending[1 - turn], pending[turn])
        turn = 1 - turn
    return padded[1:-1, 1:-1].copy()


def _removable() -> tuple[Mask, Mask]:
    """Whether the two alternating passes remove a pixel, `(256,)` each, by its neighbours' code.

    Bit `k` of the code is the neighbour `k`, clockwise from the north-west.
    """
    codes = np.arange(256)
    near = (codes[:, None] >> np.arange(8) & 1).astype(np.bool_)
    north, east, south, west = near[:, 1], near[:, 3], near[:, 5], near[:, 7]
    steps_up = (~near & np.roll(near, -1, axis=1)).sum(axis=1)
    simple = (steps_up == 1) & (near.sum(axis=1) >= 2) & (near.sum(axis=1) <= 6)
    first = simple & ~(east & south & (north | west))
    second = simple & ~(north & west & (east | south))
    # Where scikit-image's table leaves the paper's rule: corners of staircases go, too, and some ends go in
    # one of the passes only.
    both = [10, 40, 130, 160]
    only_first = [3, 6, 11, 12, 14, 131, 134, 161, 194, 198]
    only_second = [24, 26, 56, 96, 104, 108, 176, 192, 224]
    neither = [48, 129]
    first[both + only_first], first[only_second + neither] = True, False
    second[both + only_second], second[only_first + neither] = True, False
    return first, second


def borders(mask: Mask) -> list[Ints]:
    """Border following (Suzuki and Abe, CVGIP 30(1), 1985): all outer borders, then all holes' borders.

    Each border starts at its first pixel in raster order and keeps the background on its right; a pixel appears once
    for each passage.

    Args:
        mask: `(H, W)` bool.

    Returns:
        Positions in the flattened `(H + 2, W + 2)` mask with a border of background.
    """
    outer: list[Ints] = []
    holes: list[Ints] = []
    for passed, sides in crack_loops(mask):
        fresh = passed != np.roll(passed, 1)
        border = passed[fresh] if fresh[0] else np.roll(passed[fresh], 1)
        (holes if sides[0] else outer).append(border if fresh.any() else passed[:1])
    # The order tells who comes first where borders share a pixel: OpenCV lists holes from the last one found.
    return outer + holes[::-1]


def crack_loops(mask: Mask) -> Iterator[tuple[Ints, Ints]]:
    """The loops of cracks between object and background pixels, each of which knows its successor.

    Objects are 8-connected. Each loop starts at its first pixel in raster order, outer ones on its left side, those of
    holes on its right.

    Args:
        mask: `(H, W)` bool.

    Yields:
        For each crack of a loop, in order, the object's pixel, as position in the flattened `(H + 2, W + 2)` mask with
        a border of background, and which side of it: 0 left, 1 below, 2 right, 3 above.
    """
    padded = np.pad(mask, 1)
    width, solid = padded.shape[1], padded.ravel()
    outward = np.array([-1, width, 1, -width])
    forward = np.roll(outward, -1)
    inside = np.flatnonzero(solid)
    index, side = np.nonzero(~solid[inside[:, None] + outward])
    pixel = inside[index]
    # The pixel ahead on the outer side comes first, then the one straight ahead; if both are background, the border
    # turns around the corner of its own pixel.
    ahead = pixel + forward[side]
    diagonal = solid[ahead + outward[side]]
    straight = solid[ahead] & ~diagonal
    next_pixel = np.where(diagonal, ahead + outward[side], np.where(straight, ahead, pixel))
    next_side = (side + np.where(diagonal, 3, np.where(straight, 0, 1))) % 4
    successor = np.searchsorted(pixel * 4 + side, next_pixel * 4 + next_side).tolist()

    seen = bytearray(len(successor))
    for start in np.flatnonzero(side % 2 == 0).tolist():
        cracks = []
        crack = start
        while not seen[crack]:
            seen[crack] = 1
            cracks.append(crack)
            crack = successor[crack]
        if cracks:
            yield pixel[cracks], side[cracks]


def corners(line: Ints, epsilon: float) -> int:
    """How many points OpenCV's `approxPolyDP` leaves of an open line: Douglas-Peucker, then a second look.

    This is OpenCV up to 4.12, with which HCE was published. Since 4.13 (opencv/opencv#28119) distances are to
    the stretch between two kept points instead of to the infinite line, which keeps a few points more or
    less.

    Args:
        line: `(N, 2)` int, rows and columns, no point twice.
        epsilon: Tolerance in pixels.
    """
    kept = douglas_peucker(line, epsilon)
    count = len(kept)
    anchor, here = 0, 1
    # The second look drops points that are nearly on the line between their neighbours, unless that line is
    # upright or level, or the point is a spike. It never drops two in a row.
    while here < len(kept) - 1 and count > 2:
        before, point, after = line[[kept[anchor], kept[here], kept[here + 1]]]
        chord = after - before
        offset = abs(_cross(point - before, chord))
        anchor = here
        if offset**2 <= epsilon**2 / 2 * (chord @ chord) and chord.all() and (point - before) @ (after - point) >= 0:
            count -= 1
            anchor = here + 1
        here = anchor + 1
    return count


def douglas_peucker(line: Ints, epsilon: float) -> list[int]:
    """Find the points of a line that keep it within a tolerance (Douglas and Peucker 1973).

    Args:
        line: `(N, 2)` int, at least one point.
        epsilon: Tolerance in pixels; distances are to the infinite line.

    Returns:
        Their indices, the first and the last among them, in order.
    """
    kept = {0, len(line) - 1}
    spans = [(0, len(line) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        chord = line[end] - line[start]
        offsets = np.abs(_cross(line[start + 1 : end] - line[start], chord))
        farthest = int(offsets.argmax())
        if float(offsets[farthest]) ** 2 > epsilon**2 * float(chord @ chord):
            split = start + 1 + farthest
            kept.add(split)
            spans += [(start, split), (split, end)]
    return sorted(kept)


def _cross(vectors: Ints, chord: Ints) -> Ints:
    cross: Ints = vectors[..., 0] * chord[1] - vectors[..., 1] * chord[0]
    return cross
