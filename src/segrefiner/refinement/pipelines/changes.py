"""The changes that a refinement makes to a mask, and what speaks for and against each of them.

A change is a pixel whose state differs between the coarse and the refined mask. What is measured of it is of three
kinds: how sure the network is of it; what else changes around it; and how the two masks compare as a whole, which tells
an exact mask, that a network can only spoil, from one that is wrong everywhere. `acceptance_model` judges by this.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...imaging.edges import EDGE_REACH, SnappedBlocks, edge_strength
from ...imaging.ops import box_max, box_mean, contour, nonzero_pixels, row_bands
from ...imaging.shapes.blocks import BLOCK, BLOCKS_AT_ONCE, cut_blocks, touched_blocks
from ...imaging.shapes.distances import contour_offset
from ...model.diffusion import confidence

WHOLE_FEATURES = (
    "difference", "extent", "scale", "offset", "outline", "outline_ratio", "far_share", "moved_share", "corners",
    "contour_confidence", "change_confidence",
)  # fmt: skip
"""What is measured of two masks as a whole, see `Comparison`."""

PIXEL_FEATURES = (
    "added", "network", "snapped",
    "coverage_9", "changed_9", "confidence_9", "edges_coarse_9", "edges_refined_9",
    "coverage_25", "changed_25", "confidence_25", "edges_coarse_25", "edges_refined_25",
    "direction_25", "edge", "coverage_object", "changed_object", "confidence_object",
)  # fmt: skip
"""What is measured of a pixel that changes: whether it is added; the network's probability of its new state before and
after contours are drawn to edges, from -1 to 1; in squares of 9 and 25 pixels and of a quarter of the object's extent
how much the coarse mask covers, how much changes, how surely, how much more is added than removed, and how strong the
photo's edges are on either contour (`edges.edge_strength`); and how strong they are at the pixel."""

FEATURES = WHOLE_FEATURES + PIXEL_FEATURES

_SQUARES = 9, 25
_MARGIN = _SQUARES[-1] // 2
_SHARE_OF_EXTENT = 0.25
_FAR = 2
"""Pixels from the refined contour beyond which a piece of the coarse one is far away."""
_REACH = 0.0035
"""Unit of distances between contours as a share of the object's extent: people draw large objects less exactly."""
_MOST_OFFSET = 6.0
"""Units: contours of which no part is nearer say no more than that."""


@dataclass(frozen=True)
class Comparison:
    """A refined mask and its coarse mask as a whole.

    Attributes:
        iou: Of the two, in [0, 1].
        extent: Square root of the area of their union, in pixels, at least 1.
        features: `(len(WHOLE_FEATURES),)` float32: logarithms of 1 - IoU, of the extent, of photo pixels per pixel of
            the object's view, and of the coarse contour's mean distance from the refined one in pixels; of the coarse
            contour's length in extents, and of the refined one's in that of the coarse one; the shares of the coarse
            contour that moved by over two pixels, and at all; the share of corners among the pixels of its steps; and
            the mean confidence on the coarse contour and of the changes.
    """

    iou: float
    extent: float
    features: Tensor

    @classmethod
    def between(cls, refined: Tensor, coarse: Tensor, probability: Tensor, scale: float) -> "Comparison":
        """Compares two masks `(H, W)` bool.

        Args:
            refined: `(H, W)` bool.
            coarse: `(H, W)` bool.
            probability: `(H, W)` float, of the refined mask.
            scale: Photo pixels per pixel of the view of the whole object.
        """
        counts = _Counts.of(refined, coarse, probability)
        iou, extent = counts.both / max(1, counts.either), math.sqrt(max(1, counts.either))
        unit = max(1.0, _REACH * math.sqrt(max(1, counts.coarse)))
        offset = unit * min(contour_offset(refined, coarse, _REACH), _MOST_OFFSET)
        features = (
            math.log(1 - iou + 1e-4),
            math.log(extent),
            math.log2(max(scale, 0.25)),
            math.log(0.1 + offset),
            math.log(max(1, counts.coarse_rim) / math.sqrt(max(1, counts.coarse))),
            math.log(max(1, counts.refined_rim) / max(1, counts.coarse_rim)),
            counts.far / max(1, counts.coarse_rim),
            counts.moved / max(1, counts.coarse_rim),
            counts.corners / max(1, counts.corners + counts.straight),
            counts.rim_confidence / max(1, counts.coarse_rim),
            counts.change_confidence / max(1, counts.either - counts.both),
        )
        return cls(iou, extent, torch.tensor(features, dtype=torch.float32))


@dataclass
class _Counts:
    """Pixels of two masks, counted band by band."""

    both: int = 0
    either: int = 0
    coarse: int = 0
    coarse_rim: int = 0
    refined_rim: int = 0
    far: int = 0
    moved: int = 0
    corners: int = 0
    straight: int = 0
    rim_confidence: float = 0.0
    change_confidence: float = 0.0

    @classmethod
    def of(cls, refined: Tensor, coarse: Tensor, probability: Tensor) -> "_Counts":
        counts = cls()
        rims = contour(refined), contour(coarse)
        height = len(coarse)
        for rows in row_bands(*coarse.shape):
            one, other, sure = refined[rows], coarse[rows], confidence(probability[rows])
            refined_rim, coarse_rim = (rim[rows] for rim in rims)
            first, last = max(0, rows.start - _FAR), min(height, rows.stop + _FAR)
            # Beyond the masks there is no contour.
            padding = (_FAR, _FAR, first - rows.start + _FAR, rows.stop + _FAR - last)
            near = box_max(F.pad(rims[0][first:last].view(torch.uint8), padding), 2 * _FAR + 1).bool()
            counts.both += _count(one & other)
            counts.either += _count(one | other)
            counts.coarse += _count(other)
            counts.coarse_rim += _count(coarse_rim)
            counts.refined_rim += _count(refined_rim)
            counts.far += _count(coarse_rim & ~near)
            counts.moved += _count(coarse_rim & ~refined_rim)
            counts.rim_confidence += float(sure[coarse_rim].sum(dtype=torch.float64))
            counts.change_confidence += float(sure[one ^ other].sum(dtype=torch.float64))
            counts._add_corners(coarse[rows.start : rows.stop + 1])
        return counts

    def _add_corners(self, mask: Tensor) -> None:
        """Counts the squares of two by two pixels that hold a corner of a contour, and those that hold a side."""
        values = mask.view(torch.uint8)
        pairs = values[:-1] + values[1:]
        squares = pairs[:, :-1] + pairs[:, 1:]
        self.straight += _count(squares == 2)
        self.corners += _count((squares == 1) | (squares == 3))


def _count(plane: Tensor) -> int:
    return int(torch.count_nonzero(plane))


@dataclass(frozen=True)
class Changes:
    """Some of the pixels that a refinement changes.

    Attributes:
        rows: `(n,)` int64.
        columns: `(n,)` int64.
        features: `(n, len(FEATURES))` float32.
    """

    rows: Tensor
    columns: Tensor
    features: Tensor


class ChangedMask:
    """A refined mask beside its coarse one, with contours drawn to the photo's edges.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float, as the network has it; contours are drawn to the edges in place.
        coarse: `(H, W)` bool.
        region: `(H, W)` bool, the pixels that are this object's concern.
        scale: Photo pixels per pixel of the view of the whole object.
        snapped: The probability where contours are drawn to edges; `None` to leave them.

    Attributes:
        refined: `(H, W)` bool.
        comparison: Of the two masks as a whole.
    """

    def __init__(
        self,
        image: Tensor,
        probability: Tensor,
        coarse: Tensor,
        region: Tensor,
        scale: float,
        snapped: SnappedBlocks | None = None,
    ) -> None:
        self._image, self._probability, self._coarse = image, probability, coarse & region
        self.refined = (probability >= 0.5).logical_and_(region)
        for y, x, new in snapped_pixels(probability, region, snapped) if snapped else ():
            self.refined[y, x] = new >= 0.5
        self._rows, self._columns = nonzero_pixels(self.refined ^ self._coarse)
        self._network = self._towards(self._rows, self._columns)
        for y, x, new in snapped_pixels(probability, region, snapped) if snapped else ():
            probability[y, x] = new
        self.comparison = Comparison.between(self.refined, self._coarse, probability, scale)

    def __iter__(self) -> Iterator[Changes]:
        """All changes, block by block."""
        if not len(self._rows):
            return
        changed = self.refined ^ self._coarse
        places = self._rows * changed.shape[1] + self._columns
        sure = confidence(self._probability[self._rows, self._columns])
        around = _Surroundings(self._coarse, self._rows, self._columns, sure, self.comparison.extent)
        planes = torch.stack([self._coarse, changed])
        whole = self.comparison.features.to(changed.device)
        for corners in touched_blocks(changed).split(BLOCKS_AT_ONCE):
            inside, near = self._near(planes, corners)
            block, row, column = (t.long() for t in inside.nonzero(as_tuple=True))
            rows, columns = corners[block, 0] + row, corners[block, 1] + column
            # Pixels are known in reading order.
            network = self._network[torch.searchsorted(places, rows * changed.shape[1] + columns)]
            added = (~self._coarse[rows, columns]).float()
            own = torch.stack([added, network, self._towards(rows, columns)], dim=1)
            features = [whole.expand(len(rows), -1), own, near[block, :, row, column], around(rows, columns)]
            yield Changes(rows, columns, torch.cat(features, dim=1))

    def _towards(self, rows: Tensor, columns: Tensor) -> Tensor:
        """How sure the probability is of the refined mask's state, from -1 for sure of the other one to 1."""
        for_object = 2 * self._probability[rows, columns] - 1
        return torch.where(self.refined[rows, columns], for_object, -for_object)

    def _near(self, planes: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
        """Which pixels `(B, BLOCK, BLOCK)` of blocks change, and what is near each pixel of them, `(B, 12, …)`."""
        masks = cut_blocks(planes, corners, _MARGIN + 1)
        states = torch.cat([masks[:, :1], masks[:, :1] ^ masks[:, 1:]], dim=1).view(torch.uint8)
        rims = (box_max(states, 3) & box_max(1 - states, 3)).float()
        coarse, changed = masks[..., 1:-1, 1:-1].split(1, dim=1)
        sure = confidence(cut_blocks(self._probability[None], corners, _MARGIN)) * changed
        strength = edge_strength(cut_blocks(self._image, corners, _MARGIN + EDGE_REACH + 1).float() / 255)
        added = torch.where(coarse, -1.0, 1.0) * changed
        values = torch.cat([coarse.float(), changed.float(), rims, sure, rims * strength, added], dim=1)
        means = []
        for side in _SQUARES:
            inset = _MARGIN - side // 2
            inner = values[..., inset : values.shape[-2] - inset, inset : values.shape[-1] - inset]
            coverage, share, lengths, sums, direction = box_mean(inner, side // 2).split([1, 1, 2, 3, 1], dim=1)
            means += [coverage, share, sums / torch.cat([share, lengths], dim=1).clamp(min=1e-6)]
        means += [direction / share.clamp(min=1e-6), strength[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]]
        inside = changed[:, 0, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].clone()
        height, width = planes.shape[-2:]
        # Blocks may reach beyond the photo, where its border is repeated.
        offsets = torch.arange(BLOCK, device=planes.device)
        inside &= (corners[:, :1] + offsets < height)[:, :, None] & (corners[:, 1:] + offsets < width)[:, None]
        return inside, torch.cat(means, dim=1)


class _Surroundings:
    """What the coarse mask covers and what changes in squares of a quarter of the object's extent around pixels.

    Computed on a grid of an eighth of the square's side and interpolated.
    """

    def __init__(self, coarse: Tensor, rows: Tensor, columns: Tensor, sure: Tensor, extent: float) -> None:
        self._cell = cell = max(1, round(_SHARE_OF_EXTENT * extent) // 8)
        covered = _cell_counts(coarse, cell)
        changed, surely = torch.zeros_like(covered), torch.zeros_like(covered)
        place = rows // cell, columns // cell
        changed.index_put_(place, torch.ones_like(sure), accumulate=True)
        surely.index_put_(place, sure, accumulate=True)
        self._means = F.avg_pool2d(torch.stack([covered, changed, surely]) / cell**2, 9, stride=1, padding=4)

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The coverage, the share that changes, and the mean confidence of that, `(n, 3)`."""
        height, width = self._means.shape[1:]
        top, below, down = _between(rows, self._cell, height)
        left, right, along = _between(columns, self._cell, width)
        above = torch.lerp(self._means[:, top, left], self._means[:, top, right], along)
        covered, changed, surely = torch.lerp(
            above, torch.lerp(self._means[:, below, left], self._means[:, below, right], along), down
        )
        return torch.stack([covered, changed, surely / changed.clamp(min=1e-6)], dim=1)


def _between(pixels: Tensor, cell: int, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells whose centres are before and after each pixel, of so many, and how far it is between them."""
    place = ((pixels.float() + 0.5) / cell - 0.5).clamp(0, cells - 1)
    before = place.floor().long()
    return before, (before + 1).clamp(max=cells - 1), place - before


def _cell_counts(mask: Tensor, cell: int) -> Tensor:
    """How many pixels are set in each square of `cell` pixels of `(H, W)` bool, float."""
    height, width = mask.shape
    small = torch.uint8 if cell < 256 else torch.int32
    parts = []
    for rows in row_bands(height, width, multiple=cell):
        part = mask[rows]
        whole = F.pad(part, (0, -width % cell, 0, -len(part) % cell)).view(torch.uint8)
        # Whole rows first, as bytes where they hold the sum: a twentieth of the time of squares, and no floats.
        columns = whole.unflatten(0, (-1, cell)).sum(dim=1, dtype=small)
        parts.append(columns.unflatten(1, (-1, cell)).sum(dim=2, dtype=torch.float32))
    return torch.cat(parts)


def snapped_pixels(
    probability: Tensor, region: Tensor, snapped: SnappedBlocks
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, columns and new probabilities of the own pixels of some drawn blocks at a time."""
    height, width = probability.shape
    for corners, blocks in zip(*(t.split(BLOCKS_AT_ONCE) for t in (snapped.corners, snapped.blocks)), strict=True):
        offsets = torch.arange(blocks.shape[1], device=region.device)
        y, x = (corners[:, :1] + offsets)[:, :, None], (corners[:, 1:] + offsets)[:, None]
        inside = (y < height) & (x < width)
        y, x = y.clamp(max=height - 1), x.clamp(max=width - 1)
        own = region[y, x].logical_and_(inside)
        yield y.expand_as(own)[own], x.expand_as(own)[own], blocks[own]
