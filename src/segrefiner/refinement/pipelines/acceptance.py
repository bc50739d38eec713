"""What of a refinement is kept: a change of a mask that may be right already needs a reason.

`acceptance_model` says of every pixel that would change how likely the change is right. What is less likely than the
trust in the coarse mask asks is taken back, pixel by pixel, so that a mask that is exact here and wrong there keeps
what is exact. An object of which nothing would change keeps its coarse mask. Last, users may ask for more restraint.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ...imaging.edges import SnappedBlocks
from ...imaging.ops import row_bands
from ...imaging.shapes.distances import Pixels, contour_distance
from ...model.diffusion import confidence
from .acceptance_model import AcceptanceModel, bundled
from .changes import ChangedMask, snapped_pixels
from .config import AcceptanceConfig


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


def revert_unsupported(
    image: Tensor,
    probability: Tensor,
    coarse: Tensor,
    region: Tensor,
    config: AcceptanceConfig,
    *,
    scale: float = 1.0,
    snapped: SnappedBlocks | None = None,
    model: AcceptanceModel | None = None,
) -> Reverted:
    """Takes back, in place, what one object's refinement changed without enough reason.

    Args:
        image: `(3, H, W)` uint8, RGB.
        probability: `(H, W)` float, of the refined mask.
        coarse: `(H, W)` bool.
        region: `(H, W)` bool, the pixels that are this object's concern.
        config: When a change is taken back.
        scale: Photo pixels per pixel of the view of the whole object.
        snapped: The probability where contours are drawn to the photo's edges; `None` to leave them.
        model: Says how likely changes are right, by default the bundled one.
    """
    changed = ChangedMask(image, probability, coarse, region, scale, snapped)
    if changed.comparison.iou < config.keep_iou:
        probability[region] = coarse[region].float()
        return Reverted(0, KeptReason.DISAGREEMENT)
    judge = model or bundled()
    reverted, gain = [], 0.0
    for changes in changed:
        right = judge(changes.features)
        kept = right >= config.trust
        gain += float((2 * right[kept] - 1).sum())
        reverted.append((changes.rows[~kept], changes.columns[~kept]))
    if gain <= config.least_gain * changed.comparison.extent**2:
        _keep_coarse(probability, coarse, region)
        return Reverted(0, KeptReason.NO_GAIN)
    for pixels in reverted:
        probability[pixels] = keep_label(coarse[pixels], probability[pixels])
    return Reverted(sum(len(rows) for rows, _ in reverted), None)


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
    for y, x, new in snapped_pixels(probability, region, snapped):
        probability[y, x] = new


def predicted_gain(coarse: Tensor, changed: Pixels, probability: Tensor) -> float:
    """By how much the IoU with the truth is expected to rise where pixels of a mask change, in [-1, 1].

    The expectation is over truths whose pixels are drawn independently with the given probability, and taken of
    intersection and union each (the linear approximation of a ratio's mean).

    Args:
        coarse: `(H, W)` bool.
        changed: The pixels that change their state.
        probability: `(H, W)` float, that a pixel of the truth is set.
    """
    truth, both, count = 0.0, 0.0, 0
    for rows in row_bands(*coarse.shape):
        part, mask = probability[rows], coarse[rows]
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
