"""Label maps: labels refined as masks of their own, then one label decided for each pixel.

A contour between two regions is one contour. A pixel keeps its label, or takes that of the nearest other region, so
that a label never moves across a third one and nothing far from a contour changes. Two opinions decide: the refined
mask of the pixel's own label and that of the other one.

A region that touches a single other label is an object before a ground, which is what the network was made for: there
the more probable label wins. Where regions of several labels meet, as in scenes of streets, the network has to be sure.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ..errors import InputError, MaskError, reason
from ..imaging.codecs.arrays import as_numpy
from ..imaging.codecs.option_checks import shown, whole_number
from ..imaging.label_files import read_labels
from ..imaging.reading import ImageSource, Photo, check_fits, check_same_size, read_photo, warn_of
from .refiner import Refiner
from .report import Report

Labels: TypeAlias = NDArray[np.integer[Any]]

_SURE = 0.99
"""Probability of both opinions from which on a contour between regions of several labels moves.

On 24 maps of street scenes (eleven classes, exact, from 1/4 and 1/8 resolution, and with smooth errors) 0.99 changes
mIoU by -0.06, -0.05, -0.08 and +0.03; 0.9 by -0.7, -0.5, -0.3 and -0.1; the most probable label by -5 to -1.
"""
_FEW = 400
"""Pixels of a region up to which it is no object of its own: at 20 pixels' width a contour is half of the object.

On the same maps regions of any size before a ground would lose 0.5 instead of 0.06 mIoU where they were exact.
"""


@dataclass(frozen=True)
class RefinedLabels:
    """A refined label map.

    Attributes:
        labels: `(H, W)` NumPy array of the integer type that was given.
        reports: What changed, by label, before the joint decision; of all labels but that of a ground beneath objects.
        vanished: Labels that no pixel has any more.
        changed: Share of the pixels whose label changed, in [0, 1].
        warnings: What had to be guessed of the photo, one sentence each.
    """

    labels: Labels
    reports: dict[int, Report]
    vanished: tuple[int, ...]
    changed: float
    warnings: tuple[str, ...] = ()


def refine_labels(
    refiner: Refiner, image: ImageSource | Photo, labels: Any, *, ignore: Sequence[int] = (), **options: Any
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
    read = read_photo(image)
    photo = read.pixels
    check_same_size(photo, labels, image_source=None if isinstance(image, Photo) else image)
    # What the type cannot hold is no pixel's label.
    held = np.iinfo(labels.dtype)
    ignored = np.isin(labels, np.array([value for value in ignore if held.min <= value <= held.max], labels.dtype))
    present = np.unique(labels[~ignored]).tolist()
    if not isinstance(image, Photo):
        warn_of(read.notes)
    # A label alone, or alone beside ignored pixels, has no contour that could move.
    if len(present) < 2:
        return RefinedLabels(labels.copy(), {}, (), 0.0, read.notes)
    warnings = check_fits(read, (labels != _background(labels, ignored)) & ~ignored)
    if not isinstance(image, Photo):
        warn_of(warnings[len(read.notes) :])
    regions = _Regions(labels, ignored, present)
    current, other = np.zeros((2, *labels.shape), np.float32)
    reports: dict[int, Report] = {}
    for value, probability in _probabilities(refiner, photo, regions, reports, options):
        np.copyto(current, probability, where=labels == value)
        np.copyto(other, probability, where=regions.nearest == value)
    sure = np.where(regions.objects, np.float32(0.5), np.float32(_SURE))
    # Between equals the label stays. A label alone in its opinion is no reason to move.
    moves = (other > sure) & (current < 1 - sure) & ~ignored
    chosen = np.where(moves, regions.nearest, labels)
    left = set(np.unique(chosen[~ignored]).tolist())
    vanished = tuple(value for value in present if value not in left)
    return RefinedLabels(chosen, reports, vanished, float(np.mean(chosen != labels)), warnings)


class _Regions:
    """The regions of a label map, and what lies beside each pixel.

    Attributes:
        values: The labels.
        nearest: `(H, W)`, the label of the nearest pixel that has another one.
        objects: `(H, W)` bool, true on both sides of contours of objects before a ground.
        ground: The label that all others touch and nothing else; none where there is no such label.
    """

    def __init__(self, labels: Labels, ignored: NDArray[np.bool_], values: list[int]) -> None:
        self.values = values
        self.coarse = labels
        if ignored.any():
            # What is ignored between two regions does not keep them apart.
            nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
            labels = labels[tuple(nearest)]
        index = np.searchsorted(values, labels).astype(np.int32)
        regions, label_of, area = _components(index, len(values))
        touched = _touched(regions, index, len(label_of), len(values))
        alone = touched.sum(axis=1) == 1
        # The rule for few pixels protects classes beside others; of two labels, one is the object.
        alone &= (area > _FEW) | (len(values) == 2)
        rest = values.index(_background(labels, np.zeros(labels.shape, bool)))
        is_star = all(np.flatnonzero(touched[row]).tolist() == [rest] for row in np.flatnonzero(label_of != rest))
        self.ground = values[rest] if is_star else None
        across = _across(index, regions)
        self.nearest = np.asarray(values, labels.dtype)[index.reshape(-1)[across]]
        self.objects = alone[regions] | alone[regions.reshape(-1)[across]]


def _components(index: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Connected regions of equal labels.

    Args:
        index: `(H, W)`, from 0.
        count: Of labels.

    Returns:
        `(H, W)` numbers of regions from 0, and of each region its label's number and its pixels.
    """
    regions = np.empty(index.shape, np.int32)
    label_of: list[int] = []
    for number, place in enumerate(ndimage.find_objects(index + 1, count)):
        if place is None:
            continue
        own = index[place] == number
        parts, found = ndimage.label(own, np.ones((3, 3)))
        regions[place][own] = parts[own] - 1 + len(label_of)
        label_of += [number] * found
    return regions, np.array(label_of, np.int32), np.bincount(regions.reshape(-1), minlength=len(label_of))


def _touched(regions: NDArray[np.int32], index: NDArray[np.int32], rows: int, columns: int) -> NDArray[np.bool_]:
    """`(regions, labels)`, true where a region has a side in common with another label."""
    touched = np.zeros((rows, columns), bool)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differ = index[here] != index[there]
        touched[regions[here][differ], index[there][differ]] = True
        touched[regions[there][differ], index[here][differ]] = True
    return touched


def _across(index: NDArray[np.int32], regions: NDArray[np.int32]) -> NDArray[np.int64]:
    """`(H, W)`, the place in the flat array of a pixel just across the nearest contour; that of another label."""
    places = np.arange(index.size).reshape(index.shape)
    across = np.full(index.shape, -1)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differ = index[here] != index[there]
        across[here][differ] = places[there][differ]
        across[there][differ] = places[here][differ]
    rim = ndimage.distance_transform_edt(across < 0, return_distances=False, return_indices=True)
    beside = across[tuple(rim)]
    # A pixel between two contours may be nearest to the far side of one.
    lies_across = index.reshape(-1)[beside] == index
    return np.where(lies_across, places[tuple(rim)], beside)


def _probabilities(
    refiner: Refiner, photo: Any, regions: _Regions, reports: dict[int, Report], options: dict[str, Any]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each label with its probabilities `(H, W)`. Of a ground beneath separate objects it is what they leave."""
    labels, ground = regions.coarse, regions.ground
    refined = [value for value in regions.values if value != ground]
    masks = (labels == value for value in refined)
    left = np.ones(labels.shape, np.float32)
    for value, result in zip(refined, refiner.many(((photo, mask) for mask in masks), **options), strict=True):
        reports[value] = result.report
        left -= result.probability
        yield value, result.probability
    if ground is not None:
        yield ground, left


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
