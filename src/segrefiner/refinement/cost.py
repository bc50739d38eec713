"""About how much work masks are, before it is begun.

The unit is one view of the network, 256 by 256 pixels, with one diffusion step; a tile is a quarter of it. An object
is a view for each step, and tiles along its contour at each scale. Noise, in which everything is contour, is what costs
most: it takes tiles everywhere.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from ..imaging.boxes import Box
from ..imaging.ops import contour
from ..model.diffusion import NUM_TIMESTEPS
from .pipelines.config import DEFAULT
from .pipelines.views import (
    find_objects,
    needs_tiles,
    object_area,
    object_view,
    scale_seen,
    surroundings,
    tile_scales,
    worth_refining,
)

_TILE = (DEFAULT.tiling.side / DEFAULT.patch) ** 2
_PER_MEGAPIXEL = 2.0
"""Of what is done for each pixel around an object beside the network."""

_ROUGH = 6.0
"""Contour pixels in a tile, in its sides, from which on it is noise."""

_LOOKED_AT = 0.25
"""Share of the finest tiles that are seen by the network where the contour is smooth."""


def estimated_cost(masks: Iterable[NDArray[np.bool_]], steps: int, *, most: float = float("inf")) -> float:
    """Estimate the work of refining masks with the default pipeline.

    Args:
        masks: `(H, W)` bool each.
        steps: Diffusion steps of the views of whole objects.
        most: Where the estimate passes this, the rest is not looked at.

    Returns:
        Views of the network. What comes of it is mostly within a factor of two.
    """
    cost = 0.0
    for mask in masks:
        pixels = torch.from_numpy(mask)
        height, width = mask.shape
        objects = find_objects(pixels, DEFAULT)
        for box in (objects[index] for index in worth_refining(objects)):
            area = object_area(box, height, width, DEFAULT)
            cost += steps + _PER_MEGAPIXEL * area.width * area.height / 1e6
            cost += _TILE * _tiles(pixels, box, area)
            if cost > most:
                return cost
    return cost


def _tiles(mask: torch.Tensor, box: Box, area: Box) -> float:
    """Squares of a tile's size, without its overlap, that the coarse contour goes through, at all scales."""
    photo = (mask.shape[0], mask.shape[1])
    region = surroundings(box, DEFAULT)
    seen = scale_seen(object_view(box, *photo, DEFAULT), region, photo, DEFAULT)
    rows, columns = np.nonzero(contour(area.crop(mask[None])[0]).numpy())
    count = 0.0
    for scale in tile_scales([seen], DEFAULT):
        if needs_tiles(seen, region, scale, DEFAULT):
            side = (DEFAULT.tiling.side - DEFAULT.tiling.overlap) * scale
            across = int(area.width // side) + 1
            squares = (rows // side).astype(np.int64) * across + (columns // side).astype(np.int64)
            filled = np.bincount(squares)
            filled = filled[filled > 0]
            # Of a smooth contour the finest tiles are mostly skipped, since the network is sure already.
            smooth = np.count_nonzero(filled < _ROUGH * side) if scale <= 1 else 0
            count += len(filled) - (1 - _LOOKED_AT) * smooth
    return count


def label_costs(numbers: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Estimate the work of refining each label of a map as a mask, of all labels at once.

    Args:
        numbers: `(H, W)`, of labels from 0; pixels of higher numbers than `count - 1` are no label's.
        count: Of labels.

    Returns:
        `(count,)` views of the network, of each label. What is done for each pixel of the photo counts as well.
    """
    rim = np.zeros(numbers.shape, bool)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differ = numbers[here] != numbers[there]
        rim[here] |= differ
        rim[there] |= differ
    side = int((DEFAULT.tiling.side - DEFAULT.tiling.overlap) * DEFAULT.tiling.finest)
    across = numbers.shape[1] // side + 1
    rows, columns = np.nonzero(rim)
    squares = across * (numbers.shape[0] // side + 1)
    seen = np.unique(numbers[rim].astype(np.int64) * squares + rows // side * across + columns // side)
    tiles = np.bincount(seen // squares, minlength=count)[:count]
    costs: NDArray[np.float64] = NUM_TIMESTEPS + _PER_MEGAPIXEL * numbers.size / 1e6 + _TILE * tiles.astype(np.float64)
    return costs
