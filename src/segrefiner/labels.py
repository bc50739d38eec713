"""Label maps: labels refined as masks of their own, then one label decided for each pixel.

The label that has most of the photo's border, mostly a background, is what the others leave: a network that refines
objects knows their shapes better. Its probability is one less the sum of the others'. A pixel takes the label with the
largest probability, so that there are neither overlaps nor gaps; where two are equal, the coarse label stays. All
probabilities come from one network and are calibrated alike, and a common calibration curve does not change which is
the largest.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .arrays import as_numpy
from .changes import Report
from .errors import InputError, MaskError, reason
from .io import ImageSource, check_same_size, read_image
from .label_files import read_labels
from .options import shown, whole_number
from .refiner import Refiner

Labels: TypeAlias = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class RefinedLabels:
    """A refined label map.

    Attributes:
        labels: `(H, W)` NumPy array of the integer type that was given.
        reports: What changed, by label, before the joint decision; of all labels but the background's.
        vanished: Labels that no pixel has any more.
        changed: Share of the pixels whose label changed, in [0, 1].
    """

    labels: Labels
    reports: dict[int, Report]
    vanished: tuple[int, ...]
    changed: float


def refine_labels(
    refiner: Refiner, image: ImageSource, labels: Any, *, ignore: Sequence[int] = (), **options: Any
) -> RefinedLabels:
    """Refines a label map.

    Args:
        refiner: What refines.
        image: The photo, as for the refiner.
        labels: `(H, W)` integers, as an array or tensor of any library, alone in its batch or in none; or a file or
            Pillow image as for `label_files.read_labels`.
        ignore: Labels that are no class. Their pixels stay as they are, and none is added to them.
        options: As of `Refiner.many`.

    Raises:
        InputError: As `Refiner.many` does, and for labels that are no `(H, W)` integers.
    """
    labels, ignore = _read(labels), _checked(ignore)
    photo = read_image(image)
    check_same_size(photo, labels, image_source=image)
    # What the type cannot hold is no pixel's label.
    held = np.iinfo(labels.dtype)
    ignored = np.isin(labels, np.array([value for value in ignore if held.min <= value <= held.max], labels.dtype))
    present = np.unique(labels[~ignored]).tolist()
    # A label alone, or alone beside ignored pixels, has no contour that could move.
    if len(present) < 2:
        return RefinedLabels(labels.copy(), {}, (), 0.0)
    rest = _background(labels, ignored)
    own = [value for value in present if value != rest]
    chosen = np.full_like(labels, rest)
    best, total = np.zeros((2, *labels.shape), np.float32)
    reports = {}
    masks = (labels == value for value in own)
    for value, result in zip(own, refiner.many(((photo, mask) for mask in masks), **options), strict=True):
        _take(chosen, best, result.probability, value, labels)
        total += result.probability
        reports[value] = result.report
    remains = (1 - total > best) | ((1 - total == best) & (labels == rest))
    chosen[remains] = rest
    chosen[ignored] = labels[ignored]
    left = set(np.unique(chosen[~ignored]).tolist())
    vanished = tuple(value for value in present if value not in left)
    return RefinedLabels(chosen, reports, vanished, float(np.mean(chosen != labels)))


def _read(labels: Any) -> Labels:
    if isinstance(labels, str | PathLike | bytes | Image.Image):
        return read_labels(labels).labels
    try:
        values = as_numpy(labels)
    except Exception as error:  # Whatever the foreign library raises.
        raise MaskError(f"labels cannot become a NumPy array ({reason(error)}); convert them to one") from error
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "ui" or not values.size:
        raise MaskError(f"labels have shape {values.shape} and type {values.dtype}: expected (H, W) integers")
    return values


def _checked(ignore: Any) -> list[int]:
    try:
        values = list(ignore)
    except TypeError as error:
        raise InputError(f"ignore is {shown(ignore)}: expected a list of labels, such as [255]") from error
    return [whole_number("a label of ignore", value) for value in values]


def _background(labels: Labels, ignored: NDArray[np.bool_]) -> int:
    """The label with most pixels at the border; the whole map decides where it has none, or between equals."""
    counts: Counter[int] = Counter()
    for line in (0, -1):
        for edge, hidden in ((labels[line], ignored[line]), (labels[:, line], ignored[:, line])):
            counts.update(dict(zip(*(v.tolist() for v in np.unique(edge[~hidden], return_counts=True)), strict=True)))
    values, areas = np.unique(labels[~ignored], return_counts=True)
    return int(max(zip(values, areas, strict=True), key=lambda pair: (counts[int(pair[0])], pair[1]))[0])


def _take(
    chosen: Labels, best: NDArray[np.float32], probability: NDArray[np.float32], value: int, coarse: Labels
) -> None:
    """Gives pixels to a label where it is more probable than the best so far, in place."""
    better = (probability > best) | ((probability == best) & (coarse == value))
    chosen[better] = value
    best[better] = probability[better]
