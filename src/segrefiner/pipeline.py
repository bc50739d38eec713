"""The default pipeline: each object as a whole first, then finer and finer tiles along its contour.

The coarse mask's parts are gathered into objects. Every object is refined in one view, its box with context, whatever
its size in the photo; then tiles at …, 4, 2 and 1 photo pixels per tile pixel follow its contour, as far as they are
finer than the view before, and for objects that are not large tiles of the enlarged photo. Views are blended by smooth
windows, and pixels that no view covers keep the coarse mask. `edges` draws contours to the photo's edges, and `settle`
decides what of all this is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .diffusion import (
    NUM_TIMESTEPS,
    Network,
    OnProgress,
    Progress,
    Uniform,
    ancestral,
    monotone,
    pixel_thresholds,
    sample,
    silent,
    spaced_timesteps,
)
from .edges import follow_edges
from .geometry import Box, contour, mask_box, merge_overlapping, resize, square_around, tile_starts
from .settle import CautionConfig, OnHeld, not_told, settle
from .unet import IMAGE_MEAN, normalize


class Sampler(Enum):
    """Where the random numbers of each step come from; with one step there are none."""

    MONOTONE = "monotone"
    ANCESTRAL = "ancestral"


@dataclass(frozen=True)
class PipelineConfig:
    """Choices of the default pipeline.

    Attributes:
        patch: Side of every view that the network sees, in pixels.
        sampler: How pixels are moved from coarse to fine.
        context: Side of an object's view, in longest sides of the object's box.
        min_side: Smallest side of an object's view in photo pixels, so that specks keep some surroundings.
        gap: Parts of a mask nearer than this, as a share of the mask's extent, are one object.
        overlap: Least overlap of neighbouring tiles in tile pixels.
        finest: Photo pixels per tile pixel of the last tiles, 1 or less.
        enlarged_side: Objects with a longer view, in photo pixels, get no tiles of the enlarged photo.
        finer: A tile level is skipped unless it is this many times finer than the view before.
        tile_steps: Diffusion steps of the tiles, where the run has not fewer: their mask is already a good one.
        edge_radius: Of the filter that draws contours to the photo's edges, in photo pixels; 0 for none.
        edge_smoothness: Variance of colours in [0, 1] below which the filter sees no edge.
        caution: What a change needs to be kept.
    """

    patch: int = 256
    sampler: Sampler = Sampler.MONOTONE
    context: float = 1.5
    min_side: int = 64
    gap: float = 0.05
    overlap: int = 64
    finest: float = 0.5
    enlarged_side: int = 768
    finer: float = 1.15
    tile_steps: int = 1
    edge_radius: int = 2
    edge_smoothness: float = 1e-4
    caution: CautionConfig = field(default_factory=CautionConfig)


@dataclass(frozen=True)
class View:
    """A square of the photo, in photo pixels, shown to the network at `patch` pixels."""

    box: Box
    scale: float
    """Photo pixels per view pixel."""


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
        boxes.append(_shift(Box(columns.start, rows.start, columns.stop, rows.stop), whole))
    margin = (config.context - 1) / 2
    grown = [b.grow(math.ceil(margin * b.longest)) for b in boxes]
    groups = (group.clip(*mask.shape) for group in merge_overlapping(grown))
    tight = [_shift(inner, g) for g in groups if (inner := mask_box(g.crop(mask[None])[0]))]
    return sorted(tight, key=lambda b: (b.y0, b.x0))


def _shift(box: Box, origin: Box) -> Box:
    return Box(box.x0 + origin.x0, box.y0 + origin.y0, box.x1 + origin.x0, box.y1 + origin.y0)


def object_view(box: Box, height: int, width: int, config: PipelineConfig) -> View:
    """The view of a whole object: its box with context, moved into the photo, never longer than the photo."""
    side = max(round(config.context * box.longest), config.min_side)
    side = max(min(side, max(height, width)), box.longest)
    # A photo that is a thin strip is not padded to a square: its ends are left to the tiles.
    side = min(side, max(config.patch, 8 * min(height, width)))
    return View(square_around(box, side, height, width), side / config.patch)


def contour_tiles(uncertain: Tensor, region: Box, scale: float, config: PipelineConfig) -> list[View]:
    """Tiles of a grid over `region` that have an uncertain pixel where no neighbour sees it better.

    Args:
        uncertain: `(H, W)` bool.
        region: What the grid covers, in photo pixels.
        scale: Photo pixels per tile pixel.
        config: Tile size and overlap.
    """
    height, width = uncertain.shape
    side, overlap = round(config.patch * scale), round(config.overlap * scale)
    region = region.clip(height, width)
    tiles = []
    for y in _starts(region.y0, region.y1, height, side, overlap):
        for x in _starts(region.x0, region.x1, width, side, overlap):
            box = Box(x, y, x + side, y + side)
            core = Box(
                x + (overlap // 2 if x > region.x0 else 0),
                y + (overlap // 2 if y > region.y0 else 0),
                box.x1 - (overlap // 2 if box.x1 < region.x1 else 0),
                box.y1 - (overlap // 2 if box.y1 < region.y1 else 0),
            ).clip(height, width)
            if bool(uncertain[core.y0 : core.y1, core.x0 : core.x1].any()):
                tiles.append(View(box, scale))
    return tiles


def _starts(start: int, stop: int, limit: int, size: int, overlap: int) -> list[int]:
    if limit <= size:
        return [(limit - size) // 2]
    return sorted({max(0, min(s, limit - size)) for s in tile_starts(start, stop, size, overlap)})


def window(box: Box, height: int, width: int, ramp: int) -> Tensor:
    """Blending weights `(box.height, box.width)`: 1 inside, falling to 0 at edges that are not the photo's own."""

    def side(start: int, stop: int, limit: int) -> Tensor:
        position = torch.arange(start, stop) + 0.5
        low = torch.full_like(position, math.inf) if start <= 0 else position - start
        high = torch.full_like(position, math.inf) if stop >= limit else stop - position
        return (torch.minimum(low, high) / ramp).clamp(max=1)

    weights = torch.minimum(side(box.y0, box.y1, height)[:, None], side(box.x0, box.x1, width)[None, :])
    return (torch.pi / 2 * weights).sin().square()


class Canvas:
    """A photo, the probability of its mask as refined so far, and how both are shown to the network.

    Args:
        network: The denoising network.
        image: `(3, H, W)` uint8, RGB.
        mask: `(H, W)` bool, the coarse mask.
        seed: Of the thresholds that decide when a pixel moves to fine.
        config: The pipeline's choices.
        batch_size: Views per network evaluation.
        on_progress: Called after each network evaluation.
    """

    def __init__(
        self,
        network: Network,
        image: Tensor,
        mask: Tensor,
        *,
        seed: int,
        config: PipelineConfig,
        batch_size: int,
        on_progress: OnProgress,
    ) -> None:
        self.network, self.image, self.probability = network, image, mask.float()
        self.seed, self.config, self.batch_size, self.on_progress = seed, config, batch_size, on_progress

    def refine(self, views: Sequence[View], timesteps: Sequence[int], stage: str) -> None:
        """Refines the current mask in each view and blends the results into it.

        Args:
            views: Where to look.
            timesteps: Of the diffusion, descending.
            stage: For progress.
        """
        total, weight = torch.zeros_like(self.probability), torch.zeros_like(self.probability)
        done = 0
        for start in range(0, len(views), self.batch_size):
            part = views[start : start + self.batch_size]
            photos, masks = self._shown(part)
            for state in sample(self.network, photos, masks, timesteps, self._uniform(part)):
                done += len(part)
                self.on_progress(Progress(stage, done, len(views) * len(timesteps), state))
            for view, result, shown in zip(part, state.probability, masks, strict=True):
                self._add(view, result, shown, total, weight)
        # Where the windows of the views sum to less than one, the rest is the mask as it was.
        self.probability = (total + (1 - weight).clamp(min=0) * self.probability) / weight.clamp(min=1)
        self.probability.clamp_(0, 1)

    def _shown(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        size = self.config.patch
        photos = [resize(v.box.crop(self.image, IMAGE_MEAN).float(), size, size) for v in views]
        masks = [resize(v.box.crop(self.probability[None]), size, size) for v in views]
        return normalize(torch.stack(photos)), (torch.stack(masks) >= 0.5).float()

    def _uniform(self, views: Sequence[View]) -> Uniform:
        if self.config.sampler is Sampler.MONOTONE:
            return monotone(self._thresholds(views))
        shape = (len(views), 1, self.config.patch, self.config.patch)
        return ancestral(shape, torch.Generator(self.image.device).manual_seed(self.seed))

    def _thresholds(self, views: Sequence[View]) -> Tensor:
        size = self.config.patch
        corners = [(round(v.box.x0 / v.scale), round(v.box.y0 / v.scale)) for v in views]
        tiles = [pixel_thresholds(x0, y0, size, size, self.seed)[None] for x0, y0 in corners]
        return torch.stack(tiles).to(self.image.device)

    def _add(self, view: View, result: Tensor, shown: Tensor, total: Tensor, weight: Tensor) -> None:
        height, width = self.probability.shape
        inner = view.box.clip(height, width)
        here = (slice(inner.y0, inner.y1), slice(inner.x0, inner.x1))
        there = tuple(
            slice(part.start - origin, part.stop - origin)
            for part, origin in zip(here, (view.box.y0, view.box.x0), strict=True)
        )
        ramp = max(1, round(self.config.overlap * view.scale / 2))
        weights = window(view.box, height, width, ramp).to(result.device)[there]
        new = resize(result, view.box.height, view.box.width)[0][there]
        if view.scale > 1:
            # A view that shows the mask shrunk says nothing of details it cannot show: where it agrees, they stay.
            changed = ((result >= 0.5).float() != shown).float()
            new = torch.where(
                resize(changed, view.box.height, view.box.width)[0][there] > 0, new, self.probability[here]
            )
        total[here] += weights * new
        weight[here] += weights


def refine_mask(
    network: Network,
    image: Tensor,
    mask: Tensor,
    steps: int = NUM_TIMESTEPS,
    *,
    seed: int = 0,
    config: PipelineConfig = PipelineConfig(),
    batch_size: int = 8,
    on_progress: OnProgress = silent,
    on_held: OnHeld = not_told,
) -> Tensor:
    """The default pipeline.

    Args:
        network: The denoising network.
        image: `(3, H, W)` uint8, RGB.
        mask: `(H, W)` bool, the coarse mask.
        steps: Diffusion steps of the object views, 1 to 6.
        seed: Of the thresholds that decide when a pixel moves to fine.
        config: The pipeline's choices.
        batch_size: Views per network evaluation.
        on_progress: Called after each network evaluation.
        on_held: Called with what was taken back of each object.

    Returns:
        `(H, W)` float32, the probability of the refined mask.
    """
    height, width = mask.shape
    objects = find_objects(mask, config)
    views = [object_view(box, height, width, config) for box in objects]
    canvas = Canvas(network, image, mask, seed=seed, config=config, batch_size=batch_size, on_progress=on_progress)
    canvas.refine(views, spaced_timesteps(steps), "whole objects")
    tile_timesteps = spaced_timesteps(min(steps, config.tile_steps))
    regions = [box.grow(math.ceil(box.longest * (config.context - 1) / 2)) for box in objects]
    for scale in _tile_scales(regions, config):
        uncertain = contour(canvas.probability >= 0.5)
        seen = [region for region in regions if _needs_tiles(region, scale, config)]
        tiles = [tile for region in seen for tile in contour_tiles(uncertain, region, scale, config)]
        canvas.refine(tiles, tile_timesteps, f"contours, 1:{scale:g}")
    drawn = canvas.probability
    if config.edge_radius:
        drawn = follow_edges(image, canvas.probability, config.edge_radius, config.edge_smoothness)
    for index, (view, region) in enumerate(zip(views, regions, strict=True)):
        area = view.box.union(region).clip(height, width)
        mine = _own_pixels(area, objects[index], [*regions[:index], *regions[index + 1 :]]).to(mask.device)
        probability, sharp, given = (area.crop(plane[None])[0] for plane in (canvas.probability, drawn, mask))
        on_held(settle(probability, given, mine, config.caution, drawn=sharp))
    return canvas.probability


def _own_pixels(area: Box, own: Box, others: Sequence[Box]) -> Tensor:
    """Pixels `(height, width)` bool of an area that are in its own object's box, or no other object's concern."""
    mine = torch.ones(area.height, area.width, dtype=torch.bool)
    for box, value in [*((other, False) for other in others), (own, True)]:
        part = _shift(box, Box(-area.x0, -area.y0, 0, 0)).clip(area.height, area.width)
        mine[part.y0 : part.y1, part.x0 : part.x1] = value
    return mine


def _tile_scales(regions: Sequence[Box], config: PipelineConfig) -> list[float]:
    """Photo pixels per tile pixel of the tile levels, coarse to fine, halved from one to the next."""
    longest = max((region.longest for region in regions), default=0)
    first, last = math.floor(math.log2(max(1.0, longest / config.patch))), math.ceil(math.log2(config.finest))
    return [2.0**exponent for exponent in range(first, last - 1, -1)]


def _needs_tiles(region: Box, scale: float, config: PipelineConfig) -> bool:
    if scale < 1 and region.longest > config.enlarged_side:
        return False
    return region.longest >= config.finer * scale * config.patch
