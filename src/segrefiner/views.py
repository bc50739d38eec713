"""Which parts of a photo the network sees: objects as a whole, and tiles along their contours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from scipy import ndimage
from torch import Tensor

from .geometry import Box, mask_box, merge_overlapping, square_around, tile_starts
from .settle import CautionConfig


class Sampler(Enum):
    """Where the random numbers of each step come from; with one step there are none."""

    MONOTONE = "monotone"
    ANCESTRAL = "ancestral"


@dataclass(frozen=True)
class PipelineConfig:
    """Choices of the default pipeline.

    Attributes:
        patch: Side of a view that the network sees, in pixels.
        small_patches: Sides for small objects: the smallest that shows an object's view as fine as the finest tiles.
        sampler: How pixels are moved from coarse to fine.
        context: Side of an object's view, in longest sides of the object's box.
        min_side: Smallest side of an object's view in photo pixels, so that specks keep some surroundings.
        gap: Parts of a mask nearer than this, as a share of the mask's extent, are one object.
        overlap: Least overlap of neighbouring tiles in tile pixels.
        finest: Photo pixels per tile pixel of the last tiles, 1 or less.
        enlarged_side: Objects with a longer view, in photo pixels, get no tiles of the enlarged photo.
        finer: A tile level is skipped unless it is this many times finer than the view before.
        tile_steps: Diffusion steps of the tiles, where the run has not fewer: their mask is already a good one.
        undecided: Tiles at one photo pixel per tile pixel and finer are skipped where the mean lack of confidence
            around every contour pixel is at most this: a contour that is sharp there already.
        converged: An object view takes no further step once no more than this share of its pixels still
            moves; on a GPU, where looking would cost more, all steps are taken.
        edge_radius: Of the filter that draws contours to the photo's edges, in photo pixels; 0 for none.
        edge_smoothness: Variance of colours in [0, 1] below which the filter sees no edge.
        caution: What a change needs to be kept.
    """

    patch: int = 256
    small_patches: tuple[int, ...] = (128, 192)
    sampler: Sampler = Sampler.MONOTONE
    context: float = 1.5
    min_side: int = 64
    gap: float = 0.05
    overlap: int = 32
    finest: float = 0.5
    enlarged_side: int = 768
    finer: float = 1.15
    undecided: float = 0.35
    tile_steps: int = 1
    converged: float = 0.01
    edge_radius: int = 2
    edge_smoothness: float = 1e-4
    caution: CautionConfig = field(default_factory=CautionConfig)


DEFAULT = PipelineConfig()


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
    part = whole.crop(mask[None])[0].cpu().numpy()
    gap = max(4, round(config.gap * max(part.shape)))
    joined = ndimage.maximum_filter(part, size=gap, mode="constant")
    labels, _ = ndimage.label(joined, structure=np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(labels * part):
        boxes.append(Box(columns.start, rows.start, columns.stop, rows.stop).shift(whole.x0, whole.y0))
    margin = (config.context - 1) / 2
    grown = [b.grow(math.ceil(margin * b.longest)) for b in boxes]
    groups = (group.clip(*mask.shape) for group in merge_overlapping(grown))
    tight = [inner.shift(g.x0, g.y0) for g in groups if (inner := mask_box(g.crop(mask[None])[0]))]
    return sorted(tight, key=lambda b: (b.y0, b.x0))


def object_view(box: Box, height: int, width: int, config: PipelineConfig) -> View:
    """The view of a whole object: its box with context, moved into the photo, never longer than the photo."""
    side = max(round(config.context * box.longest), config.min_side)
    side = max(min(side, max(height, width)), box.longest)
    # A photo that is a thin strip is not padded to a square: its ends are left to the tiles.
    side = min(side, max(config.patch, 8 * min(height, width)))
    small = [patch for patch in config.small_patches if side <= config.finest * patch < config.finest * config.patch]
    return View(square_around(box, side, height, width), side / min(small, default=config.patch))


def contour_tiles(
    uncertain: Tensor, area: Box, region: Box, photo: tuple[int, int], scale: float, config: PipelineConfig
) -> list[View]:
    """Tiles of a grid over `region` that have an uncertain pixel where no neighbour sees it better.

    Args:
        uncertain: `(area.height, area.width)` bool, on the CPU.
        area: Where in the photo that is; it covers all tiles.
        region: What the grid covers, in photo pixels.
        photo: Height and width of the photo.
        scale: Photo pixels per tile pixel.
        config: Tile size and overlap.
    """
    side, overlap = round(config.patch * scale), round(config.overlap * scale)
    region = region.clip(*photo)
    tiles = []
    for y in _starts(region.y0, region.y1, photo[0], side, overlap):
        for x in _starts(region.x0, region.x1, photo[1], side, overlap):
            box = Box(x, y, x + side, y + side)
            core = Box(
                x + (overlap // 2 if x > region.x0 else 0),
                y + (overlap // 2 if y > region.y0 else 0),
                box.x1 - (overlap // 2 if box.x1 < region.x1 else 0),
                box.y1 - (overlap // 2 if box.y1 < region.y1 else 0),
            )
            if bool(core.clip(*photo).shift(-area.x0, -area.y0).crop(uncertain[None]).any()):
                tiles.append(View(box, scale))
    return tiles


def _starts(start: int, stop: int, limit: int, size: int, overlap: int) -> list[int]:
    if limit <= size:
        return [(limit - size) // 2]
    return sorted({max(0, min(s, limit - size)) for s in tile_starts(start, stop, size, overlap)})


def tile_scales(regions: Sequence[Box], config: PipelineConfig) -> list[float]:
    """Photo pixels per tile pixel of the tile levels, coarse to fine, halved from one to the next."""
    longest = max((region.longest for region in regions), default=0)
    first, last = math.floor(math.log2(max(1.0, longest / config.patch))), math.ceil(math.log2(config.finest))
    return [2.0**exponent for exponent in range(first, last - 1, -1)]


def needs_tiles(region: Box, scale: float, config: PipelineConfig) -> bool:
    """Whether tiles of this scale show an object's region finer than what was seen before."""
    if scale < 1 and region.longest > config.enlarged_side:
        return False
    return region.longest >= config.finer * scale * config.patch
