"""Which parts of a photo the network sees: objects as a whole, and tiles along their contours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ...imaging.boxes import Box, mask_box, merge_overlapping, square_around
from ...imaging.ops import box_max, row_bands
from .config import PipelineConfig

_CELLS = 7
"""Cells along the side of what a tile shows well; finer ones let tiles be placed better and take longer to place."""

SPECK = 16
"""Pixels below which a part of a mask is a speck: the network's finest tiles show it eight pixels wide."""

_MANY = 64
"""Objects of a mask up to which all are refined. Masks of photos have four at most in the 2,400 that were counted."""

FREE = PipelineConfig(acceptance=None, edge_radius=0)
"""The network and its diffusion alone, blended to full size: no change is taken back, no contour drawn to edges."""


@dataclass(frozen=True)
class View:
    """A square of the photo, in photo pixels, and how large the network sees it."""

    box: Box
    scale: float
    """Photo pixels per view pixel."""

    @property
    def size(self) -> int:
        """Side in view pixels."""
        return round(self.box.width / self.scale)


def find_objects(mask: Tensor, config: PipelineConfig) -> list[Box]:
    """Boxes of the mask's parts, far-apart ones separately, in reading order.

    Args:
        mask: `(H, W)` bool.
        config: Says what counts as far apart.
    """
    whole = mask_box(mask)
    if whole is None:
        return []
    part = whole.crop(mask[None])[0]
    gap = part_gap(whole, config)
    before, after = gap // 2, gap - 1 - gap // 2
    joined = box_max(F.pad(part.view(torch.uint8)[None], (before, after, before, after))[0], gap)
    labels, count = ndimage.label(joined.cpu().numpy(), structure=np.ones((3, 3)))
    if count == 1:
        return [whole]
    boxes = []
    for rows, columns in ndimage.find_objects(labels * part.cpu().numpy()):
        boxes.append(Box(columns.start, rows.start, columns.stop, rows.stop).shift(whole.x0, whole.y0))
    return gather_parts(boxes, config)


def worth_refining(objects: Sequence[Box]) -> list[int]:
    """Which of a mask's objects the network is to see: all, but for specks where objects are very many.

    A view costs the same whatever is in it, and of a few pixels it can say little.
    """
    few = len(objects) <= _MANY
    return [index for index, box in enumerate(objects) if few or box.width * box.height >= SPECK]


def part_gap(whole: Box, config: PipelineConfig) -> int:
    """Pixels of a mask no farther apart than this, in both directions, are of one part; `whole` is the mask's box."""
    return max(4, round(config.gap * whole.longest))


def gather_parts(parts: Sequence[Box], config: PipelineConfig) -> list[Box]:
    """Boxes of objects, in reading order: of parts whose surroundings overlap, one for all of them."""
    groups = merge_overlapping([surroundings(part, config) for part in parts])
    objects = [reduce(Box.union, (part for part in parts if part.overlaps(group))) for group in groups]
    return sorted(objects, key=lambda b: (b.y0, b.x0))


def surroundings(box: Box, config: PipelineConfig) -> Box:
    """An object's box with its context, which may reach beyond the photo."""
    return box.grow(math.ceil((config.context - 1) / 2 * box.longest))


def object_area(box: Box, height: int, width: int, config: PipelineConfig) -> Box:
    """All of a photo that any view of an object covers."""
    region = surroundings(box, config)
    # Tiles are shorter than what is seen of the region before, but are moved into the photo.
    reach = square_around(region, region.longest, height, width)
    return object_view(box, height, width, config).box.union(region).union(reach).clip(height, width)


def object_view(box: Box, height: int, width: int, config: PipelineConfig) -> View:
    """The view of a whole object: its box with context, moved into the photo, never longer than the photo."""
    side = max(round(config.context * box.longest), config.min_side)
    side = max(min(side, max(height, width)), box.longest)
    # A photo that is a thin strip is not padded to a square: its ends are left to the tiles.
    side = min(side, max(config.patch, 8 * min(height, width)))
    return View(square_around(box, side, height, width), side / config.patch)


def contour_tiles(
    uncertain: Tensor, area: Box, region: Box, photo: tuple[int, int], scale: float, config: PipelineConfig
) -> list[View]:
    """Few tiles that together show every uncertain pixel of `region`, none of them at a tile's own edge.

    The region is cut into cells; the tile that shows most of the uncertain pixels not yet shown comes first.

    Args:
        uncertain: `(area.height, area.width)` bool, on the CPU.
        area: Where in the photo that is; it covers all tiles.
        region: What tiles are asked for, in photo pixels.
        photo: Height and width of the photo.
        scale: Photo pixels per tile pixel.
        config: Tile size and overlap.
    """
    side = round(config.tiling.side * scale)
    margin = min(round(config.tiling.overlap * scale) // 2, (side - 1) // 2)
    across = min(_CELLS, side - 2 * margin)
    cell = (side - 2 * margin) // across
    region = region.clip(*photo)
    pixels = region.shift(-area.x0, -area.y0).crop(uncertain[None])[0].numpy()
    uncovered = _cell_sums(pixels, cell)
    tiles, total = [], max(1, int(uncovered.sum()))
    worth = _worth(uncovered, across, total)
    while uncovered.any():
        end = np.unravel_index(worth.argmax(), worth.shape)
        row, column = (max(0, int(i) - across + 1) for i in end)
        uncovered[row : row + across, column : column + across] = 0
        # What squares show has changed for those alone that overlap this one; they end in it or behind it.
        top, left = max(0, row - across + 1), max(0, column - across + 1)
        near = uncovered[top : row + 2 * across - 1, left : column + 2 * across - 1]
        changed = _worth(near, across, total)[row - top :, column - left :]
        worth[row : row + changed.shape[0], column : column + changed.shape[1]] = changed
        x = _start(region.x0 + column * cell - margin, region.x0, region.x1, photo[1], side)
        y = _start(region.y0 + row * cell - margin, region.y0, region.y1, photo[0], side)
        tiles.append(View(Box(x, y, x + side, y + side), scale))
    return sorted(tiles, key=lambda tile: (tile.box.y0, tile.box.x0))


def _worth(cells: NDArray[np.int64], size: int, total: int) -> NDArray[np.float64]:
    """How much squares of `size` cells show that end at each cell; of those as good, more if it is in their middle."""
    height, width = cells.shape
    sums = np.zeros((height + size, width + size), np.int64)
    sums[size:, size:] = cells.cumsum(0).cumsum(1)

    def shown(inset: int) -> NDArray[np.int64]:
        """In the squares without so many cells on each side."""
        (top, bottom), (left, right) = (
            (slice(inset, inset + length), slice(size - inset, size - inset + length)) for length in (height, width)
        )
        inside: NDArray[np.int64] = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return inside

    worth = shown(0).astype(np.float64)
    for inset in (1, 2):
        if size > 2 * inset:
            worth += shown(inset) / (4 * total)
    return worth


def _cell_sums(pixels: NDArray[np.bool_], cell: int) -> NDArray[np.int64]:
    """How many pixels are set in each square of `cell` pixels."""
    across, parts = -(-pixels.shape[1] // cell), []
    for rows in row_bands(pixels.shape[0], pixels.shape[1], multiple=cell):
        y, x = np.divmod(np.flatnonzero(pixels[rows]), pixels.shape[1])
        down = -(-(rows.stop - rows.start) // cell)
        parts.append(np.bincount(y // cell * across + x // cell, minlength=down * across).reshape(down, across))
    return np.concatenate(parts)


def _start(wanted: int, start: int, stop: int, limit: int, side: int) -> int:
    """Where a tile begins: between `start` and `stop`, or around them where it is longer, and in the photo likewise."""
    if limit <= side:
        return (limit - side) // 2
    inside = max(start, min(wanted, stop - side)) if stop - start > side else start - (side - stop + start) // 2
    return max(0, min(inside, limit - side))


def scale_seen(view: View, region: Box, photo: tuple[int, int], config: PipelineConfig) -> float:
    """Photo pixels per pixel of the view of a whole object, or of what it would be where the photo is a thin strip."""
    return max(view.scale, region.clip(*photo).longest / config.patch)


def tile_scales(seen: Sequence[float], config: PipelineConfig) -> list[float]:
    """Photo pixels per tile pixel of the tile levels, coarse to fine, halved from one to the next.

    Args:
        seen: `scale_seen` of the objects.
        config: Says which is the last level.
    """
    first, last = math.floor(math.log2(max([1.0, *seen]))), math.ceil(math.log2(config.tiling.finest))
    return [2.0**exponent for exponent in range(first, last - 1, -1)]


def needs_tiles(seen: float, region: Box, scale: float, config: PipelineConfig) -> bool:
    """Whether tiles of this scale show what is around an object finer than was seen before, see `scale_seen`."""
    if scale < 1 and region.longest > config.tiling.enlarged_side:
        return False
    return seen >= (config.tiling.finer_shrunk if scale > 1 else config.tiling.finer) * scale
