"""Where training crops lie in their photos: squares around objects, on contours and as tiles; turned and stretched."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

LEVELS = 3
"""Sizes at which photos are held: in full, by half and by a quarter."""

SMALLEST_SIDE = 1 / 8
"""Smallest side of a crop in the photo, as a share of the crop's own side: nothing is enlarged by more than eight."""

OBJECT_SHIFT, CONTOUR_SHIFT = 0.15, 0.6
"""Range of the shifts of crops of whole objects and of contours, as a share of their side."""

TURNED, MIRRORED = 0.25, 0.5
"""Shares of the crops that are turned and that are mirrored."""

STRETCH = 0.3
"""Range of the logarithm of the factor by which crops are stretched sideways."""

LEVEL_BIAS = 0.3
"""How early a smaller level is used, in halvings: enlarging it by a quarter blurs less than skipped pixels alias."""


@dataclass(frozen=True)
class ViewConfig:
    """How crops are drawn.

    Attributes:
        object_share: Share of crops that show the whole object; the others are centred on its contour.
        context: Range of the side of an object crop, in longest sides of the object's box.
        zoom: Range of photo pixels per crop pixel of contour crops, drawn log-uniformly.
        tile_share: Share of contour crops that lie on the pixel grid at one of `tile_scales`, as tiles do.
        tile_scales: Scales of tiles, in photo pixels per crop pixel.
        rotation: Largest rotation in radians, for a quarter of the crops.
        colour: Strength of brightness, contrast and saturation changes.
        degraded: Share of crops with blur, and of those with noise.
        pasted: Share of crops whose object lies on another photo.
        thin: Share of crops with thin structures as their object.
    """

    object_share: float = 0.55
    context: tuple[float, float] = (1.1, 2.0)
    zoom: tuple[float, float] = (0.5, 1.4)
    tile_share: float = 0.0
    tile_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    rotation: float = 0.35
    colour: float = 0.2
    degraded: float = 0.0
    pasted: float = 0.0
    thin: float = 0.0


@dataclass(frozen=True)
class Outlines:
    """What is known of the objects that crops are drawn around, in photo pixels.

    Attributes:
        sizes: `(B, 2)` int64, height and width of each photo.
        boxes: `(B, 4)` int64, `(y0, x0, y1, x1)` around each object.
        contours: `(B, N, 2)` int64, points `(y, x)` of each object's contour.
    """

    sizes: Tensor
    boxes: Tensor
    contours: Tensor


@dataclass(frozen=True)
class CropGeometry:
    """The squares that the crops of a batch show, one in each photo.

    Attributes:
        centre: `(B, 2)` float, `(y, x)` in photo pixels.
        scale: `(B, 1)` float, photo pixels per crop pixel.
        angle: `(B,)` float, rotation in radians.
        stretch: `(B,)` float, factor by which a square is wider than high in the photo; below zero where the crop is
            mirrored.
    """

    centre: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor

    @property
    def level(self) -> Tensor:
        """The level `(B,)` int64 of the photo, 0 … `LEVELS` - 1, whose pixels fit those of the crop best."""
        return (self.scale.log2() + LEVEL_BIAS).floor().clamp(0, LEVELS - 1).long()[:, 0]

    def positions(self, size: int) -> tuple[Tensor, Tensor]:
        """Where the pixels of crops of `size` lie: rows and columns, `(B, S, S)` float, in pixels of their level.

        Whole numbers are centres of pixels.
        """
        offsets = (torch.arange(size, device=self.centre.device) + 0.5 - size / 2)[None] * self.scale
        down, right = offsets[:, :, None], (offsets * self.stretch[:, None])[:, None, :]
        cos, sin = self.angle.cos()[:, None, None], self.angle.sin()[:, None, None]
        shrink = (0.5**self.level)[:, None, None]
        rows = (self.centre[:, :1, None] + down * cos + right * sin) * shrink - 0.5
        columns = (self.centre[:, 1:, None] - down * sin + right * cos) * shrink - 0.5
        return rows, columns


def draw_geometry(outlines: Outlines, size: int, generator: Generator, views: ViewConfig) -> CropGeometry:
    """Draws one square for each object: around it, on its contour, or as a tile there.

    Args:
        outlines: The objects, on the generator's device.
        size: Side of the crops in pixels.
        generator: Source of all draws.
        views: How crops are drawn.
    """
    centre, side, tile = _draw_squares(outlines, size, generator, views)
    # Nothing uses the last column. Without it, the generator would give other draws to all that follows.
    turned, angle, stretch, mirrored, _ = _rand(len(centre), 5, generator).unbind(dim=1)
    rotation = torch.where((turned < TURNED) & ~tile, (2 * angle - 1) * views.rotation, 0.0)
    wider = torch.where(tile, 1.0, ((stretch - 0.5) * STRETCH).exp())
    return CropGeometry(centre, side / size, rotation, wider * torch.where(mirrored < MIRRORED, -1.0, 1.0))


def _draw_squares(
    outlines: Outlines, size: int, generator: Generator, views: ViewConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres `(B, 2)` `(y, x)` and sides `(B, 1)` of squares in photo pixels, and `(B,)` bool: which are tiles."""
    limits, box = outlines.sizes.float(), outlines.boxes.float()
    length, point, kind, shift, tiled = _rand(len(box), 6, generator).split([1, 1, 1, 2, 1], dim=1)
    whole = kind < views.object_share
    tile = ~whole & (tiled < views.tile_share)

    extent = (box[:, 2:] - box[:, :2]).amax(dim=1, keepdim=True)
    object_side = extent * (views.context[0] + (views.context[1] - views.context[0]) * length)
    object_side = torch.minimum(object_side, limits.amax(dim=1, keepdim=True))
    low, high = (math.log(zoom) for zoom in views.zoom)
    contour_side = size * (low + (high - low) * length).exp()
    if views.tile_share:
        scales = torch.tensor(views.tile_scales, device=box.device)
        which = (tiled / views.tile_share * len(scales)).long().clamp(max=len(scales) - 1)
        contour_side = torch.where(tile, size * scales[which], contour_side)
    side = torch.where(whole, object_side, contour_side).clamp(min=size * SMALLEST_SIDE)

    pick = (point[:, 0] * outlines.contours.shape[1]).long()
    on_contour = outlines.contours[torch.arange(len(box), device=box.device), pick].float()
    centre = torch.where(whole, (box[:, :2] + box[:, 2:]) / 2, on_contour)
    centre = centre + (shift - 0.5) * side * torch.where(whole, OBJECT_SHIFT, CONTOUR_SHIFT)
    # As at inference, a crop is shifted into the photo, and centred on it where it is the larger one.
    half = torch.minimum(side, limits) / 2
    centre = torch.maximum(half, torch.minimum(centre, limits - half))
    # Even centres put a tile's pixels on those of the photo, of its half and of its double size.
    return torch.where(tile, (centre / 2).floor() * 2, centre), side, tile[:, 0]


def _rand(batch: int, columns: int, generator: Generator) -> Tensor:
    """Draws `(batch, columns)` float, uniform on [0, 1)."""
    return torch.rand(batch, columns, generator=generator, device=generator.device)
