"""Where a refinement held changes back, and why: what a report counts, pixel by pixel.

A change that is taken back leaves its pixel with the nearest probability on the coarse mask's side of one half
(`acceptance.keep_label`), which tells it from pixels that the network itself left as they were.
"""

from collections.abc import Collection, Sequence
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..imaging.boxes import Box
from ..imaging.ops import nonzero_pixels
from ..imaging.shapes.distances import contour_distance
from .pipelines.acceptance import KeptReason, keep_label
from .pipelines.config import DEFAULT
from .pipelines.views import find_objects
from .report import Report


class HeldBack(Enum):
    """Why a change was held back, as people say it."""

    TOO_FAR = "Farther from the rough contour than you allow."
    UNSURE = "The network was not sure enough of a change here."
    NO_GAIN = "This object was left as it was: its contour is good already, and next to nothing could be gained."
    DISAGREEMENT = "This object was left as it was: what the network found had too little in common with it."
    SPECK = "This object was left as it was: it is a speck among very many."


_WHOLE = {
    KeptReason.NO_GAIN: HeldBack.NO_GAIN,
    KeptReason.DISAGREEMENT: HeldBack.DISAGREEMENT,
    KeptReason.SPECK: HeldBack.SPECK,
}


def held_back(
    coarse: NDArray[np.bool_],
    probability: NDArray[np.float32],
    report: Report,
    *,
    max_shift: float | None = None,
) -> dict[HeldBack, NDArray[np.bool_]]:
    """Find the pixels of which a report says that a change was held back.

    Args:
        coarse: `(H, W)` bool.
        probability: `(H, W)` float32 of the refined mask, as `Result` has it.
        report: Of this refinement.
        max_shift: As it was given to the refinement.

    Returns:
        Pixels `(H, W)` bool by the reason, of reasons that hold for any. Of an object that was left as a whole it is
        the pixels that would have changed, or all of the object where the network's answer is not known any more.
    """
    given, known = torch.from_numpy(coarse), torch.from_numpy(probability)
    held = known == keep_label(given, torch.where(given, 0.0, 1.0))
    planes: dict[HeldBack, NDArray[np.bool_]] = {}
    if report.too_far and max_shift is not None and bool(held.any()):
        far = held & (contour_distance(given, held) > max_shift)
        planes[HeldBack.TOO_FAR] = far.numpy()
        held &= ~far
    reasons = {_WHOLE[why] for why in KeptReason if report.kept_objects.get(why.value)}
    boxes = find_objects(given, DEFAULT) if reasons else []
    changed = nearest_boxes(nonzero_pixels((known >= 0.5) != given), boxes)
    pixels = nonzero_pixels(held)
    owners = nearest_boxes(pixels, boxes)
    for index, box in enumerate(boxes):
        part = (slice(box.y0, box.y1), slice(box.x0, box.x1))
        why = None if bool((changed == index).any()) else _why_whole(known[part], reasons)
        if why is None:
            continue
        plane, own = torch.from_numpy(planes.setdefault(why, np.zeros_like(coarse))), owners == index
        if bool(own.any()):
            plane[pixels[0][own], pixels[1][own]] = True
            held[pixels[0][own], pixels[1][own]] = False
        else:
            # Where no change is remembered, all of the object stands for it.
            plane[part] |= given[part]
    if bool(held.any()):
        planes[HeldBack.UNSURE] = held.numpy()
    return {why: plane for why, plane in planes.items() if plane.any()}


def nearest_boxes(pixels: tuple[Tensor, Tensor], boxes: Sequence[Box]) -> Tensor:
    """Of each of these rows and columns `(n,)` the number of the nearest box, by the longer of the two distances."""
    rows, columns = pixels
    nearest, least = torch.zeros_like(rows), torch.full_like(rows, torch.iinfo(rows.dtype).max)
    for index, box in enumerate(boxes):
        down = torch.maximum(box.y0 - rows, rows - box.y1 + 1)
        distance = torch.maximum(down, torch.maximum(box.x0 - columns, columns - box.x1 + 1)).clamp(min=0)
        is_nearer = distance < least
        nearest[is_nearer], least[is_nearer] = index, distance[is_nearer]
    return nearest


def _why_whole(probability: Tensor, reasons: Collection[HeldBack]) -> HeldBack | None:
    """Why an object, of which nothing changed, was left as a whole, of the reasons that hold for some; or `None`."""
    if bool(((probability == 0) | (probability == 1)).all()):
        # What was not asked of the network, or answered by something else, is as certain as the coarse mask.
        return next((why for why in (HeldBack.DISAGREEMENT, HeldBack.SPECK) if why in reasons), None)
    return HeldBack.NO_GAIN if HeldBack.NO_GAIN in reasons else None
