"""What of a refinement is kept: a change of a mask that is right already needs a reason.

The better the coarse mask agrees with the refined one, over the whole object or around a pixel, the less there is to
gain there and the more confidence a change must have. An object that has next to nothing to gain by the network's own
probabilities keeps its coarse mask. Last, users may ask for more restraint.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional as F

from .diffusion import confidence
from .geometry import contour

_CELL = 8
"""Side in pixels of the squares of which `largest_distance` first looks at one pixel each."""


@dataclass(frozen=True)
class CautionConfig:
    """When a change is taken back.

    Attributes:
        keep_iou: An object whose refined mask agrees less than this with its coarse mask keeps the coarse one.
        good_iou: An agreement, as IoU, from which on the coarse mask counts as good, and as very good.
        confidence: That a pixel needs to change where the mask is very good; it falls linearly to none where the
            mask is not good.
        surroundings: Side of the square around a pixel in which the agreement counts, as a share of the object's
            extent (the square root of its area).
        least_gain: An object whose predicted gain is less, as IoU, keeps its coarse mask.
    """

    keep_iou: float = 0.2
    good_iou: tuple[float, float] = (0.9, 0.97)
    confidence: float = 0.95
    surroundings: float = 0.25
    least_gain: float = 0.005


class Reason(Enum):
    """Why an object kept its coarse mask as a whole."""

    DISAGREEMENT = "the refined mask had too little in common with the coarse one"
    NO_GAIN = "next to nothing to gain"


@dataclass(frozen=True)
class Held:
    """What was taken back of one object's refinement.

    Attributes:
        pixels: How many would have changed but for too little confidence.
        whole: Why the object kept its coarse mask as a whole, where it did.
    """

    pixels: int
    whole: Reason | None


OnHeld = Callable[[Held], None]


def not_told(held: Held) -> None:
    """Listens to nothing."""


def agreement_around(refined: Tensor, coarse: Tensor, side: int) -> Tensor:
    """IoU of two masks `(H, W)` bool in a square around each pixel, `(H, W)` float; 1 where neither has a pixel.

    Computed on a grid of an eighth of the square's side and interpolated.
    """
    height, width = refined.shape
    cell = max(1, side // 8)
    counts = torch.stack([refined & coarse, refined | coarse])[:, None].float()
    # Whole cells: what is added beyond the masks is in neither of them.
    counts = F.pad(counts, (0, -width % cell, 0, -height % cell))
    counts = F.avg_pool2d(F.avg_pool2d(counts, cell), 9, stride=1, padding=4)
    both, either = counts
    ratio = torch.where(either > 0, both / either.clamp(min=1e-9), 1.0)[None]
    return F.interpolate(ratio, scale_factor=cell, mode="bilinear", align_corners=False)[0, 0, :height, :width]


def settle(
    probability: Tensor, coarse: Tensor, here: Tensor, config: CautionConfig, drawn: Tensor | None = None
) -> Held:
    """Takes back, in place, what one object's refinement changed without enough reason.

    Args:
        probability: `(H, W)` float, of the refined mask.
        coarse: `(H, W)` bool.
        here: `(H, W)` bool, the pixels that are this object's concern.
        config: When a change is taken back.
        drawn: `(H, W)` float, the probability with contours drawn to the photo's edges, which counts where the coarse
            mask is not good; where it is very good the given one does, and in between their mean.
    """
    proposed, given = (probability >= 0.5) & here, coarse & here
    union = int((proposed | given).sum())
    agreement = int((proposed & given).sum()) / max(1, union)
    if agreement < config.keep_iou:
        probability[here] = coarse[here].float()
        return Held(0, Reason.DISAGREEMENT)
    side = round(config.surroundings * math.sqrt(union))
    low, high = config.good_iou
    better = agreement_around(proposed, given, side).clamp(min=agreement)
    good = ((better - low) / (high - low)).clamp(0, 1)
    if drawn is not None:
        probability[here] = torch.lerp(drawn, probability, good)[here]
        proposed = (probability >= 0.5) & here
    asked = config.confidence * good
    unsure = here & (confidence(probability) < asked)
    if predicted_gain(torch.where(unsure, given, proposed), given, probability * here) < config.least_gain:
        probability[here] = on_side_of(coarse, probability)[here]
        return Held(0, Reason.NO_GAIN)
    probability[unsure] = on_side_of(coarse, probability)[unsure]
    return Held(int((unsure & (proposed != given)).sum()), None)


def predicted_gain(mask: Tensor, other: Tensor, probability: Tensor) -> float:
    """By how much the IoU of `mask` with the truth is expected to exceed that of `other`, in [-1, 1].

    The expectation is over truths whose pixels are drawn independently with the given probability, and taken of
    intersection and union each (the linear approximation of a ratio's mean).

    Args:
        mask: `(H, W)` bool.
        other: `(H, W)` bool.
        probability: `(H, W)` float, that a pixel of the truth is set.
    """

    def expected_iou(of: Tensor) -> float:
        both = float((probability * of).sum(dtype=torch.float64))
        either = whole - both + int(of.sum())
        return both / either if either > 0 else 1.0

    whole = float(probability.sum(dtype=torch.float64))
    return expected_iou(mask) - expected_iou(other)


def on_side_of(coarse: Tensor, probability: Tensor) -> Tensor:
    """The nearest probability that leaves every pixel as the coarse mask has it."""
    below = math.nextafter(0.5, 0) - 1e-7
    return torch.where(coarse, probability.clamp(min=0.5), probability.clamp(max=below))


def restrain(
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
    held = far | unsure
    return torch.where(held, on_side_of(coarse, probability), probability), int(far.sum()), int(unsure.sum())


def contour_distance(coarse: Tensor, where: Tensor) -> Tensor:
    """Distance in pixels from pixels of a mask to its nearest pixel in the other state, `(H, W)` float.

    Args:
        coarse: `(H, W)` bool, neither empty nor full.
        where: `(H, W)` bool, the pixels asked for; elsewhere the distance is 0.
    """
    result = torch.zeros(coarse.shape, device=coarse.device)
    for asked, nearest in _states(coarse, where):
        distance, _ = nearest.query(asked)
        result[tuple(asked.T)] = torch.from_numpy(distance).to(result)
    return result


def largest_distance(coarse: Tensor, where: Tensor) -> float:
    """The largest `contour_distance` of these pixels; 0 for none. Only those are looked at that can have it."""
    largest = 0.0
    for asked, nearest in _states(coarse, where):
        # Distances of two pixels differ by no more than the pixels are apart, so that one of each cell says enough.
        _, first, cell = np.unique(asked // _CELL, axis=0, return_index=True, return_inverse=True)
        distance = np.asarray(nearest.query(asked[first])[0])
        far = distance + _CELL * math.sqrt(2) >= max(largest, distance.max())
        distance = np.asarray(nearest.query(asked[far[cell.reshape(-1)]])[0])
        largest = max(largest, float(distance.max(initial=0)))
    return largest


def _states(coarse: Tensor, where: Tensor) -> Iterator[tuple[NDArray[np.int64], KDTree]]:
    """For each state the pixels `(n, 2)` asked for that are in it, and a tree of the other state's contour."""
    rim = contour(coarse)
    for state in (coarse, ~coarse):
        asked = (where & state).nonzero().cpu().numpy()
        if len(asked):
            yield asked, KDTree((rim & ~state).nonzero().cpu().numpy())
