"""Label maps: labels refined as masks of their own, then one label decided for each pixel.

A contour between two regions is one contour. A pixel keeps its label, or takes that of the nearest other region, so
that a label never moves across a third one and nothing far from a contour changes. Two opinions decide: the refined
mask of the pixel's own label and that of the other one.

Where all labels are objects before one ground, which is what the network was made for, the more probable label wins.
Where regions of several labels meet, as in scenes of streets, a small network judges each change as
`pipelines.acceptance_model` does that of a mask, by what `label_changes` measures.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, MaskError, reason
from ..imaging.codecs.arrays import as_numpy
from ..imaging.codecs.option_checks import shown, whole_number
from ..imaging.label_files import read_labels
from ..imaging.reading import ImageSource, Photo, check_fits, check_same_size, read_photo, warn_of
from .label_changes import LabelChanges
from .label_regions import Labels, Regions, background, bounded
from .pipelines.acceptance_model import bundled_for_labels
from .pipelines.coarse_to_fine import default_pipeline, refine_masks
from .pipelines.config import DEFAULT
from .refiner import Refiner
from .report import Report

_TRUST = 0.7
"""How likely a change has to be right, where users do not say.

Chosen on maps of street scenes, see docs/experiments.md: so exact ones stay, poles and signs among them.
"""

_SCENES = replace(DEFAULT, tiling=replace(DEFAULT.tiling, enlarged_side=0))
"""Labels of scenes get no tiles of the enlarged photo.

They are most of a scene's views, and the small network that judges contours gains as much without them, see
docs/experiments.md.
"""


@dataclass(frozen=True)
class RefinedLabels:
    """A refined label map.

    Attributes:
        labels: `(H, W)` NumPy array of the integer type that was given.
        reports: What changed, by label, before the joint decision; of all labels but that of a ground beneath objects
            and those that were left as they are.
        vanished: Labels that no pixel has any more.
        changed: Share of the pixels whose label changed, in [0, 1].
        warnings: What had to be guessed of the photo, and what was left as it is and why, one sentence each.

    >>> refined = refine_labels(refiner, "photo.jpg", "labels.png", ignore=[255])
    >>> refined.labels.shape, refined.vanished
    ((96, 128), ())
    >>> 0 <= refined.changed <= 1
    True
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

    >>> labels = np.zeros((96, 128), np.uint8)
    >>> labels[20:70, 30:80] = 7
    >>> refined = refine_labels(refiner, "photo.jpg", labels)
    >>> refined.labels.dtype, sorted(refined.reports)
    (dtype('uint8'), [7])
    """
    labels, ignore = _read(labels), _checked(ignore)
    read = read_photo(image)
    photo = read.srgb()
    check_same_size(photo, labels, image_source=None if isinstance(image, Photo) else image)
    ignored = _ignored(labels, ignore)
    present = np.unique(labels[~ignored]).tolist()
    # Who has read the photo reads the warnings, too; others may not.
    is_told = not isinstance(image, Photo)
    warn_of(read.notes if is_told else ())
    # A label alone, or alone beside ignored pixels, has no contour that could move.
    if len(present) < 2:
        return RefinedLabels(labels.copy(), {}, (), 0.0, read.notes)
    warnings = check_fits(read, (labels != background(labels, ignored)) & ~ignored)
    part = bounded(labels, ignored, present)
    warnings += part.notes
    warn_of(warnings[len(read.notes) :] if is_told else ())
    present_now = np.unique(part.labels[~ignored]).tolist()
    if part.kept.issuperset(present_now):
        return RefinedLabels(labels.copy(), {}, (), 0.0, warnings)
    regions = Regions(part.labels, ignored, present_now)
    reports: dict[int, Report] = {}
    if regions.ground is not None and regions.ground not in part.kept:
        moves = _by_probability(_probabilities(refiner, photo, regions, part.kept, reports, options), regions)
    else:
        moves = _by_judgement(refiner, photo, regions, ignored, part.kept, reports, options)
    moves &= ~ignored
    if part.kept:
        moves &= ~np.isin(part.labels, [*part.kept]) & ~np.isin(regions.nearest, [*part.kept])
    if part.specks is not None:
        moves &= ~part.specks
    chosen = np.where(moves, regions.nearest, labels)
    left = set(np.unique(chosen[~ignored]).tolist())
    vanished = tuple(value for value in present if value not in left)
    return RefinedLabels(chosen, reports, vanished, float(np.mean(chosen != labels)), warnings)


def for_scenes(refiner: Refiner) -> Refiner:
    """The same refiner as scenes' labels are refined with; one with another pipeline than the default as it is."""
    if refiner.pipeline is not default_pipeline:
        return refiner
    scenes = copy.copy(refiner)
    scenes.pipeline = partial(refine_masks, config=_SCENES)
    return scenes


def _by_probability(probabilities: Iterable[tuple[int, NDArray[np.float32]]], regions: Regions) -> NDArray[np.bool_]:
    """Pixels `(H, W)` of objects before a ground where the nearest other label is the more probable one."""
    current, other = (np.zeros(regions.coarse.shape, np.float32) for _ in range(2))
    left = np.ones(regions.coarse.shape, np.float32)

    def take(value: int, probability: NDArray[np.float32]) -> None:
        np.copyto(current, probability, where=regions.coarse == value)
        np.copyto(other, probability, where=regions.nearest == value)

    for value, probability in probabilities:
        left -= probability
        take(value, probability)
    assert regions.ground is not None
    take(regions.ground, left)
    # Between equals the label stays. A label alone in its opinion is no reason to move.
    return (other > 0.5) & (current < 0.5)


def _by_judgement(
    refiner: Refiner,
    photo: NDArray[np.uint8],
    regions: Regions,
    ignored: NDArray[np.bool_],
    kept: frozenset[int],
    reports: dict[int, Report],
    options: dict[str, Any],
) -> NDArray[np.bool_]:
    """Pixels `(H, W)` where a change to the nearest other label is likely right; of labels that are kept, none."""
    trust = options.get("trust")
    changes = LabelChanges(photo, regions, ignored)
    refiner = for_scenes(refiner)
    for value, probability in _probabilities(refiner, photo, regions, kept, reports, {**options, "trust": 0.0}):
        changes.add(value, probability)
    for value in kept.intersection(regions.values):
        changes.add(value, None)
    moves = np.zeros(regions.coarse.shape, bool)
    if len(changes.rows):
        right = bundled_for_labels()(torch.from_numpy(changes.features())).numpy()
        moves[changes.rows, changes.columns] = right >= (_TRUST if trust is None else trust)
    # Where neither mask has changed, users may have asked for that.
    return moves & changes.proposed


def _probabilities(
    refiner: Refiner,
    photo: NDArray[np.uint8],
    regions: Regions,
    kept: frozenset[int],
    reports: dict[int, Report],
    options: dict[str, Any],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each label that is refined with its probabilities `(H, W)`; a ground beneath separate objects has none."""
    refined = [value for value in regions.values if value != regions.ground and value not in kept]
    masks = (regions.coarse == value for value in refined)
    for value, result in zip(refined, refiner.many(((photo, mask) for mask in masks), **options), strict=True):
        reports[value] = result.report
        yield value, result.probability


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


def _ignored(labels: NDArray[Any], ignore: Sequence[int]) -> NDArray[np.bool_]:
    """Where a pixel's label is one of those. What the labels' type cannot hold is no pixel's label."""
    held = np.iinfo(labels.dtype)
    return np.isin(labels, np.array([value for value in ignore if held.min <= value <= held.max], labels.dtype))
