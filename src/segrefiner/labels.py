"""Label maps: every label refined as a mask of its own, then one label decided for each pixel.

A pixel takes the label with the largest probability, so that there are neither overlaps nor gaps; where two are equal,
the coarse label stays. Probabilities of one network are calibrated alike for all labels, and a common calibration
curve does not change which is the largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .changes import Report
from .errors import MaskError
from .io import ImageSource, check_same_size, read_image
from .refiner import Refiner

Labels: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RefinedLabels:
    """A refined label map.

    Attributes:
        labels: `(H, W)` of the type that was given.
        reports: What changed, by label; of each label by itself, before the joint decision.
        vanished: Labels that no pixel has any more.
        changed: Share of the pixels whose label changed, in [0, 1].
    """

    labels: Labels
    reports: dict[int, Report]
    vanished: tuple[int, ...]
    changed: float


def refine_labels(
    refiner: Refiner, image: ImageSource, labels: Labels, *, ignore: Sequence[int] = (), **options: Any
) -> RefinedLabels:
    """Refines a label map.

    Args:
        refiner: What refines.
        image: The photo, as for the refiner.
        labels: `(H, W)` integers.
        ignore: Labels that are no class. Their pixels stay as they are, and none is added to them.
        options: As of `Refiner.many`.

    Raises:
        InputError: As `Refiner.many` does, and for labels that are no `(H, W)` integers.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise MaskError(f"labels have shape {labels.shape} and type {labels.dtype}: expected (H, W) integers")
    photo = read_image(image)
    check_same_size(photo, labels, image_source=image)
    ignored = np.isin(labels, np.array(list(ignore), labels.dtype)) if ignore else np.zeros(labels.shape, np.bool_)
    present = [int(value) for value in np.unique(labels[~ignored])]
    # A label alone, or alone beside ignored pixels, has no contour that could move.
    if len(present) < 2:
        return RefinedLabels(labels.copy(), {}, (), 0.0)
    best = np.full(labels.shape, -1.0, np.float32)
    chosen = labels.copy()
    reports = {}
    masks = (labels == value for value in present)
    for value, result in zip(present, refiner.many(((photo, mask) for mask in masks), **options), strict=True):
        # The coarse label wins where it is as probable as another.
        better = (result.probability > best) | ((result.probability == best) & (labels == value))
        better &= ~ignored
        chosen[better] = value
        best[better] = result.probability[better]
        reports[value] = result.report
    left = set(np.unique(chosen[~ignored]).tolist())
    vanished = tuple(value for value in present if value not in left)
    return RefinedLabels(chosen, reports, vanished, float(np.mean(chosen != labels)))
