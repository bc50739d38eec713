"""Distances of pixels to a mask's contour."""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree
from torch import Tensor

from ..ops import contour, nonzero_pixels

OFFSET_REACH = 4.5
"""How far from one mask's contour the other's is compared with it, in multiples of the imprecision."""

_CELL = 8
"""Side in pixels of the squares of which `largest_distance` first looks at one pixel each."""

Pixels: TypeAlias = tuple[Tensor, Tensor]
"""Rows and columns `(n,)` int64."""


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance `(H, W)` float32 in pixels of every pixel centre to the mask's contour, positive inside.

    Without a contour it is infinite: positive for a full mask, negative for an empty one.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, math.inf if mask.any() else -math.inf, np.float32)
    inside = distance_transform_edt(mask) - 0.5
    outside = distance_transform_edt(~mask) - 0.5
    return np.where(mask, inside, -outside).astype(np.float32)


def contour_distance(coarse: Tensor, where: Tensor) -> Tensor:
    """Distance in pixels from pixels of a mask to its nearest pixel in the other state, `(H, W)` float.

    Args:
        coarse: `(H, W)` bool, neither empty nor full.
        where: `(H, W)` bool, the pixels asked for; elsewhere the distance is 0.
    """
    result = torch.zeros(coarse.shape, dtype=torch.float32, device=coarse.device)
    for asked, nearest in _states(coarse, nonzero_pixels(where)):
        distance, _ = nearest.query(asked)
        result[tuple(asked.T)] = torch.from_numpy(distance).to(result)
    return result


def contour_offset(refined: Tensor, coarse: Tensor, share: float) -> float:
    """How far a coarse contour is from the refined one where the two are near, in multiples of the imprecision.

    The imprecision is a pixel, or this share of the coarse mask's extent where that is more. The offset is the mean
    distance from the refined contour of the centres of the coarse mask's outermost pixels, of those that are within
    `OFFSET_REACH`: at a small object half a pixel for equal masks, and less than one as long as the difference is what
    the network's own imprecision makes of an exact mask.

    Args:
        refined: `(H, W)` bool.
        coarse: `(H, W)` bool.
        share: See above.

    Returns:
        In [0, `OFFSET_REACH`]; infinity where no part of the contours is near the other.
    """
    imprecision = max(1.0, share * math.sqrt(int(torch.count_nonzero(coarse))))
    reach = OFFSET_REACH * imprecision
    rim, total, count = nonzero_pixels(contour(coarse).logical_and_(coarse)), 0.0, 0
    for asked, nearest in _states(refined, rim):
        # Distances are to the nearest pixel in the other state, whose own centre is half a pixel beyond the contour.
        distances = np.asarray(nearest.query(asked[_outermost(coarse, asked)], distance_upper_bound=reach + 0.51)[0])
        near = distances[np.isfinite(distances)]
        total, count = total + float((near - 0.5).sum()), count + len(near)
    return total / count / imprecision if count else math.inf


def _outermost(coarse: Tensor, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these pixels of a mask have a neighbour beside, above or below them that is not in it."""
    rows, columns = torch.from_numpy(pixels).to(coarse.device).T
    height, width = coarse.shape
    inside = coarse[(rows - 1).clamp(min=0), columns] & coarse[(rows + 1).clamp(max=height - 1), columns]
    inside &= coarse[rows, (columns - 1).clamp(min=0)] & coarse[rows, (columns + 1).clamp(max=width - 1)]
    return (~inside).cpu().numpy()


def largest_distance(coarse: Tensor, pixels: Pixels) -> float:
    """The largest `contour_distance` of these pixels; 0 for none. Only those are looked at that can have it."""
    largest = 0.0
    for asked, nearest in _states(coarse, pixels):
        # Distances of two pixels differ by no more than the pixels are apart, so that one of each cell says enough.
        across = -(-coarse.shape[1] // _CELL)
        cell = asked[:, 0] // _CELL * across + asked[:, 1] // _CELL
        one = np.full(-(-coarse.shape[0] // _CELL) * across, -1)
        one[cell] = np.arange(len(asked))
        cells = np.flatnonzero(one >= 0)
        distance = np.zeros(len(one))
        distance[cells] = nearest.query(asked[one[cells]])[0]
        far = distance[cell] + _CELL * math.sqrt(2) >= max(largest, distance.max())
        distance = np.asarray(nearest.query(asked[far])[0])
        largest = max(largest, float(distance.max(initial=0)))
    return largest


def _states(coarse: Tensor, pixels: Pixels) -> Iterator[tuple[NDArray[np.int64], KDTree]]:
    """For each state those of the pixels that are in it, `(n, 2)`, and a tree of the other state's contour."""
    rims = _by_state(nonzero_pixels(contour(coarse)), coarse)
    for asked, beyond in zip(_by_state(pixels, coarse), rims[::-1], strict=True):
        if len(asked):
            # Trees that are asked once: quick to build counts for more than quick to ask.
            yield asked, KDTree(beyond, balanced_tree=False, compact_nodes=False)


def _by_state(pixels: Pixels, mask: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Those of the pixels that are in the mask, `(n, 2)`, and the others."""
    inside = mask[pixels].cpu().numpy()
    together = torch.stack(pixels, dim=1).cpu().numpy()
    return together[inside], together[~inside]
