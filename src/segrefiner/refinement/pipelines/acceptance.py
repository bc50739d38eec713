"""What of a refinement is kept: a change of a mask that is right already needs a reason.

Where the refined mask agrees with the coarse one, over the whole object or around a pixel, all it can do is to move the
contour a little; that is a gain where the photo's edges speak for it, and a loss where the coarse contour lies on them
already. So the better the agreement, and the less the edges speak for the change, the more confidence it must have. An
object whose contour seems exact and that has next to nothing to gain by the network's own probabilities keeps its
coarse mask. Last, users may ask for more restraint.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional as F

from ...imaging.edges import SnappedBlocks
from ...imaging.ops import nonzero_pixels, row_bands
from ...imaging.shapes.distances import Pixels, contour_distance
from ...model.diffusion import confidence
from .config import AcceptanceConfig

_BLOCKS_AT_ONCE = 64


class KeptReason(Enum):
    """Why an object kept its coarse mask as a whole."""

    DISAGREEMENT = "the refined mask had too little in common with the coarse one"
    NO_GAIN = "next to nothing to gain"
    SPECK = "a speck among very many"


@dataclass(frozen=True)
class Reverted:
    """What was taken back of one object's refinement.

    Attributes:
        pixels: How many would have changed but for too little confidence.
        whole: Why the object kept its coarse mask as a whole, where it did.
    """

    pixels: int
    whole: KeptReason | None


OnReverted = Callable[[Reverted], None]


def ignore_reverted(reverted: Reverted) -> None:
    """Listens to nothing."""


def agreement_around(refined: Tensor, coarse: Tensor, region: Tensor, side: int) -> Callable[[Tensor, Tensor], Tensor]:
    """IoU of two masks `(H, W)` bool, of the pixels `region`, in a square around each pixel; 1 where neither has one.

    Computed on a grid of an eighth of the square's side and interpolated.

    Returns:
        What gives it, float, at these rows and columns, integers that are broadcast.
    """
    cell = max(1, side // 8)
    counts = _cell_shares(refined, coarse, region, cell)
    both, either = F.avg_pool2d(counts, 9, stride=1, padding=4)
    ratio = torch.where(either > 0, both / either.clamp(min=1e-9), 1.0)[0]

    def between(pixels: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
        # The centres of the cells before and after each pixel, and how far it is between them.
        place = ((pixels.float() + 0.5) / cell - 0.5).clamp(0, cells - 1)
        before = place.floor().long()
        return before, (before + 1).clamp(max=cells - 1), place - before

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        top, below, down = between(rows, ratio.shape[0])
        left, right, along = between(columns, ratio.shape[1])
        above = torch.lerp(ratio[top, left], ratio[top, right], along)
        return torch.lerp(above, torch.lerp(ratio[below, left], ratio[below, right], along), down)

    return at


def _cell_shares(refined: Tensor, coarse: Tensor, region: Tensor, cell: int) -> Tensor:
    """Shares of intersection and union `(2, 1, rows, columns)` in whole cells; beyond the masks there is neither."""
    height, width = refined.shape
    small = torch.uint8 if cell < 256 else torch.int32
    parts = []
    for rows in row_bands(height, width, multiple=cell):
        one, other = refined[rows] & region[rows], coarse[rows] & region[rows]
        both = F.pad(torch.stack([one & other, one | other]), (0, -width % cell, 0, -len(one) % cell))
        # Whole rows first, as bytes where they hold the sum: a twentieth of the time of squares, and no floats.
        columns = both.view(torch.uint8).unflatten(1, (-1, cell)).sum(dim=2, dtype=small)
        parts.append(columns.unflatten(2, (-1, cell)).sum(dim=3, dtype=torch.float32))
    return torch.cat(parts, dim=1)[:, None] / cell**2


@dataclass(frozen=True)
class Evidence:
    """What speaks for a refined contour beside the network's confidence.

    Attributes:
        edge_gain: By how much better the refined contour lies on the photo's edges (`edges.edge_gain`).
        offset: Of the coarse contour from the refined one (`contour_offset`), in multiples of the imprecision.
        snapped: The probability with contours drawn to the photo's edges, which counts where the coarse mask is not
            good; where it is very good the given one does, and in between their mean.
    """

    edge_gain: float = 0.0
    offset: float = 0.0
    snapped: SnappedBlocks | None = None


NO_EVIDENCE = Evidence()


@dataclass(frozen=True)
class Agreement:
    """How well an object's refined and coarse mask agree.

    Attributes:
        iou: Of the two, in [0, 1].
        extent: Square root of the area of their union, in pixels, at least 1.
    """

    iou: float
    extent: float

    @classmethod
    def between(cls, refined: Tensor, coarse: Tensor, region: Tensor) -> "Agreement":
        """Compares masks `(H, W)` bool among the pixels of a region; the refined one has none outside of it."""
        both = _count(lambda rows: refined[rows] & coarse[rows], region)
        union = int(torch.count_nonzero(refined)) + _count(lambda rows: coarse[rows] & region[rows], region) - both
        return cls(both / max(1, union), math.sqrt(max(1, union)))


class RequiredConfidence:
    """How confident a pixel must be to change: the more, the better the coarse mask seems to be.

    Attributes:
        exactness: How much speaks for an exact coarse contour, in [0, 1]: photo's edges or offset do not speak for the
            refined one.
    """

    def __init__(
        self,
        refined: Tensor,
        coarse: Tensor,
        region: Tensor,
        agreement: Agreement,
        evidence: Evidence,
        config: AcceptanceConfig,
    ) -> None:
        self.exactness = 1 - _fraction(evidence.edge_gain, config.edges) * _fraction(evidence.offset, config.offset)
        self._config = config
        self._whole = _fraction(agreement.iou, _within_reach(config, agreement.extent))
        side = round(config.surroundings * agreement.extent)
        # Of a mask that is nowhere exact, nobody asks where it is good.
        self._around = agreement_around(refined, coarse, region, side) if self.exactness else None

    def goodness(self, rows: Tensor, columns: Tensor, weights: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """How good the coarse mask seems at pixels, in [0, 1].

        Args:
            rows: Integers.
            columns: Integers that are broadcast with `rows`.
            weights: Of the whole mask's goodness and of that around a pixel; the larger product counts.
        """
        if self._around is None:
            return torch.zeros((), dtype=torch.float32, device=rows.device)
        low, high = self._config.good_around
        around = ((self._around(rows, columns) - low) / (high - low)).clamp(0, 1)
        return self.exactness * (weights[1] * around).clamp(min=weights[0] * self._whole)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The confidence that pixels need, in [0, 1]."""
        return self.goodness(rows, columns, self._config.confidence)

    @property
    def gain(self) -> float:
        """The predicted gain that the object needs, as IoU."""
        return min(self._config.least_gain, self.exactness * self._config.least_gain)


def revert_unsupported(
    probability: Tensor, coarse: Tensor, region: Tensor, config: AcceptanceConfig, evidence: Evidence = NO_EVIDENCE
) -> Reverted:
    """Takes back, in place, what one object's refinement changed without enough reason.

    Args:
        probability: `(H, W)` float, of the refined mask.
        coarse: `(H, W)` bool.
        region: `(H, W)` bool, the pixels that are this object's concern.
        config: When a change is taken back.
        evidence: What speaks for the refined contour.
    """
    refined = (probability >= 0.5).logical_and_(region)
    agreement = Agreement.between(refined, coarse, region)
    if agreement.iou < config.keep_iou:
        probability[region] = coarse[region].float()
        return Reverted(0, KeptReason.DISAGREEMENT)
    required = RequiredConfidence(refined, coarse, region, agreement, evidence, config)
    if evidence.snapped is not None:
        _take_snapped(probability, refined, region, evidence.snapped, required)
    supported, unsupported = _by_support(probability, refined, coarse, region, required)
    if predicted_gain(coarse, supported, probability, region) < required.gain:
        _keep_coarse(probability, coarse, region)
        return Reverted(0, KeptReason.NO_GAIN)
    for pixels in unsupported:
        probability[pixels] = keep_label(coarse[pixels], probability[pixels])
    return Reverted(sum(len(y) for y, _ in unsupported), None)


def _take_snapped(
    probability: Tensor, refined: Tensor, region: Tensor, snapped: SnappedBlocks, required: RequiredConfidence
) -> None:
    """Draws contours to the photo's edges, in place, as far as the coarse mask does not seem good."""
    stays = required.goodness if required.exactness else None
    for y, x, new in _snapped_pixels(probability, region, snapped, stays):
        probability[y, x], refined[y, x] = new, new >= 0.5


def _by_support(
    probability: Tensor, refined: Tensor, coarse: Tensor, region: Tensor, required: RequiredConfidence
) -> tuple[Pixels, list[Pixels]]:
    """The pixels that change with enough confidence, and those without, in parts."""
    supported, unsupported = [], []
    for rows in row_bands(*probability.shape):
        # Only what would change is asked for its confidence.
        y, x = nonzero_pixels(refined[rows] ^ (coarse[rows] & region[rows]))
        y += rows.start
        enough = confidence(probability[y, x]) >= required.at(y, x)
        supported.append((y[enough], x[enough]))
        unsupported.append((y[~enough], x[~enough]))
    y, x = (torch.cat(parts) for parts in zip(*supported, strict=True))
    return (y, x), unsupported


def _keep_coarse(probability: Tensor, coarse: Tensor, region: Tensor) -> None:
    """Leaves a region as the coarse mask has it, in place."""
    for rows in row_bands(*probability.shape):
        part = probability[rows]
        part.copy_(torch.where(region[rows], keep_label(coarse[rows], part), part))


def accept_snapped(probability: Tensor, region: Tensor, snapped: SnappedBlocks) -> None:
    """Takes over, in place, all contours that were drawn to the photo's edges.

    Args:
        probability: `(H, W)` float, of the refined mask.
        region: `(H, W)` bool, the pixels that are this object's concern.
        snapped: The probability with contours drawn to edges.
    """
    for y, x, new in _snapped_pixels(probability, region, snapped):
        probability[y, x] = new


def _snapped_pixels(
    probability: Tensor, region: Tensor, snapped: SnappedBlocks, given: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows, columns and new probabilities of the own pixels of some drawn blocks at a time.

    `given` says for rows and columns, integers that are broadcast, how much of the given probability stays, in [0, 1].
    """
    height, width = probability.shape
    for corners, blocks in zip(*(t.split(_BLOCKS_AT_ONCE) for t in (snapped.corners, snapped.blocks)), strict=True):
        offsets = torch.arange(blocks.shape[1], device=region.device)
        y, x = (corners[:, :1] + offsets)[:, :, None], (corners[:, 1:] + offsets)[:, None]
        inside = (y < height) & (x < width)
        y, x = y.clamp(max=height - 1), x.clamp(max=width - 1)
        own = region[y, x].logical_and_(inside)
        new = (torch.lerp(blocks, probability[y, x], given(y, x)) if given else blocks)[own]
        yield y.expand_as(own)[own], x.expand_as(own)[own], new


def _within_reach(config: AcceptanceConfig, extent: float) -> tuple[float, float]:
    """The agreement from which on a coarse mask of this extent in pixels counts as good, and as very good.

    Masks of small objects never agree as well as those of large ones: a square whose contour is off by its imprecision
    all around has lost four times its share of the extent.
    """
    off = max(1.0, config.imprecision * extent) / extent
    low, high = config.good_iou
    # As good as one that is off by its imprecision, and very good: by half of it. Of specks half is no good any more.
    return min(low, max(0.5, 1 - 4 * off)), min(high, max(0.75, 1 - 2 * off))


def _fraction(value: float, between: tuple[float, float]) -> float:
    """How far a value has come from the first bound to the second, in [0, 1]."""
    low, high = between
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _count(plane: Callable[[slice], Tensor], like: Tensor) -> int:
    """How many pixels are set in a plane of this size that is computed band by band."""
    return sum(int(torch.count_nonzero(plane(rows))) for rows in row_bands(*like.shape))


def predicted_gain(coarse: Tensor, changed: Pixels, probability: Tensor, region: Tensor | None = None) -> float:
    """By how much the IoU with the truth is expected to rise where pixels of a mask change, in [-1, 1].

    The expectation is over truths whose pixels are drawn independently with the given probability, and taken of
    intersection and union each (the linear approximation of a ratio's mean).

    Args:
        coarse: `(H, W)` bool.
        changed: The pixels that change their state, of those that count.
        probability: `(H, W)` float, that a pixel of the truth is set.
        region: `(H, W)` bool, the pixels that count; by default all.
    """
    truth, both, count = 0.0, 0.0, 0
    for rows in row_bands(*coarse.shape):
        part, mask = probability[rows], coarse[rows]
        if region is not None:
            part, mask = torch.where(region[rows], part, 0), mask & region[rows]
        truth, both = truth + float(part.sum()), both + float(torch.where(mask, part, 0).sum())
        count += int(torch.count_nonzero(mask))
    values, out = probability[changed], coarse[changed]
    lost, left = float(values[out].sum()), int(torch.count_nonzero(out))

    def expected_iou(both: float, count: int) -> float:
        either = truth - both + count
        return both / either if either > 0 else 1.0

    after = expected_iou(both + float(values.sum()) - 2 * lost, count + len(out) - 2 * left)
    return after - expected_iou(both, count)


def keep_label(coarse: Tensor, probability: Tensor) -> Tensor:
    """The nearest probability that leaves every pixel as the coarse mask has it."""
    below = math.nextafter(0.5, 0) - 1e-7
    return torch.where(coarse, probability.clamp(min=0.5), probability.clamp(max=below))


def limit_changes(
    probability: Tensor, coarse: Tensor, *, max_shift: float | None = None, strength: float = 1.0
) -> tuple[Tensor, int, int]:
    """Keeps the coarse label where a change is farther from the coarse contour, or less sure, than the user wants.

    What changes at a smaller shift or strength is a part of what changes at a larger one.

    Args:
        probability: `(H, W)` float, of the refined mask.
        coarse: `(H, W)` bool.
        max_shift: How far from the coarse contour pixels may change, in pixels; `None` for anywhere.
        strength: 1 for every change, 0 for none; in between, changes need a confidence of `1 - strength`.

    Returns:
        The probability with what was held back on the coarse mask's side of one half, and how many pixels were held
        back for being too far away and, of the others, for too little confidence.
    """
    if max_shift is None and strength >= 1:
        return probability, 0, 0
    changed = (probability >= 0.5) != coarse
    far = torch.zeros_like(changed)
    if max_shift is not None and bool(changed.any()):
        far = changed & (contour_distance(coarse, changed) > max_shift)
    unsure = changed & ~far
    if strength > 0:
        unsure &= confidence(probability) < 1 - strength
    reverted = far | unsure
    return (
        torch.where(reverted, keep_label(coarse, probability), probability),
        int(torch.count_nonzero(far)),
        int(torch.count_nonzero(unsure)),
    )
