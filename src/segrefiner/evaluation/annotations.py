"""IoU and boundary accuracy of the masks in annotation files of any format that `formats` reads.

Photos are matched by their names, and the objects of a photo one to one: within their class, so that the sum of IoUs is
largest. Where a file has no classes, masks of all classes may be matched. Objects without a counterpart are failures.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ..errors import InputError, MaskError, SegRefinerError
from ..formats.coco import CocoDocument
from ..formats.documents import AnnotatedPhoto, Contents, Instance
from ..formats.masks import decode_mask, image_size
from ..formats.photos import PhotoFinder
from ..formats.recognition import read
from ..imaging.coco_masks import tight_box
from ..imaging.listing import SPELLINGS
from ..imaging.reading import read_photo
from ..ledger import Entry
from .protocol import MASK_METRICS, Failure, Measurement, Scores, score_mask

Mask: TypeAlias = npt.NDArray[np.bool_]
Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class AnnotationSet:
    """An annotation file or folder of one role.

    Attributes:
        role: "true mask", "predicted mask" or "coarse mask".
        source: Where it was read.
        contents: What it says.
    """

    role: str
    source: Path
    contents: Contents

    @property
    def has_labels(self) -> bool:
        """Whether any object has a class."""
        return any(one.label for photo in self.contents.photos for one in photo.instances)

    def failures(self) -> list[Failure]:
        """What of it cannot be read."""
        return [Failure(f"{self.source}: {name}", why) for name, why in self.contents.failures.items()]

    def left_out(self) -> list[Entry]:
        """What of it does not count."""
        every = [(one, _reason(one, photo)) for photo in self.contents.photos for one in photo.instances]
        reasons = self.contents.left_out | {one.name: why for one, why in every if why}
        return [Entry(f"{self.source}: {name}", why) for name, why in reasons.items()]


_CROWD = "a crowd"


def _reason(instance: Instance, photo: AnnotatedPhoto) -> str:
    """Why an object does not count; an empty string for one that does."""
    if instance.crowd:
        return _CROWD
    first = next((one.layer for one in photo.instances if not one.crowd), "")
    return "" if instance.layer == first else f"of another answer than {first}"


def read_sets(truth: Path, predicted: Path, coarse: Path | None = None) -> list[AnnotationSet]:
    """Reads annotation files of any format, which may differ.

    Args:
        truth: True masks. COCO results are read with its photos' and categories' names, if it is a COCO file.
        predicted: The masks to be measured.
        coarse: The masks that they were refined from, if gain and harm are wanted.

    Raises:
        InputError: One of them has no known format, or no masks.
    """
    document = read(truth)
    listed = truth if isinstance(document, CocoDocument) and not document.records.is_results else None
    sets = [AnnotationSet("true mask", truth, document.contents)]
    for role, source in (("predicted mask", predicted), ("coarse mask", coarse)):
        if source is not None:
            sets.append(AnnotationSet(role, source, read(source, annotations=listed).contents))
    for one in sets:
        if not any(photo.instances for photo in one.contents.photos):
            first = next((f"; first problem: {failure}" for failure in one.failures()), "")
            raise InputError(f"{one.source} has no masks that can be compared{first}")
    return sets


def measure_annotations(
    sets: Sequence[AnnotationSet], images: Path | None = None, keys: Iterable[str] = ("iou", "mba")
) -> Iterator[Measurement | Failure]:
    """Measures each true object, with one photo's masks in memory at a time.

    Args:
        sets: From `read_sets`.
        images: Folder of the photos, which are opened where no file says how large they are.
        keys: Which figures, of `protocol.MASK_METRICS`.

    Yields:
        A row for each true object with a counterpart, of its class as the group; a failure for each photo or mask that
        cannot be compared, and one for each photo's objects without a counterpart.
    """
    keys = [key for key in MASK_METRICS if key in keys]
    finders = [PhotoFinder(one.contents, images) for one in sets]
    truths = sets[0].contents.photos
    found = [match_photos(truths, one.contents.photos) for one in sets[1:]]
    by_label = all(one.has_labels for one in sets)
    for photo in truths:
        photos = [photo, *(other[photo.key] for other in found if photo.key in other)]
        lacking = [one for one, other in zip(sets[1:], found, strict=True) if photo.key not in other]
        if lacking:
            where = " nor ".join(str(one.source) for one in lacking)
            yield Failure(photo.names[0], f"there is no photo of this name, or several, in {where}")
            continue
        try:
            size = _size(photos, finders)
        except SegRefinerError as error:
            yield Failure(photo.names[0], str(error))
            continue
        yield from _measured(sets, photos, size, keys, by_label)
    for one, other in zip(sets[1:], found, strict=True):
        matched = {photo.key for photo in other.values()}
        for photo in one.contents.photos:
            if photo.key not in matched and photo.instances:
                why = f"there is no photo of this name, or several, in {sets[0].source}"
                yield Failure(f"{one.source}: {photo.names[0]}", why)


def match_photos(truths: Sequence[AnnotatedPhoto], others: Sequence[AnnotatedPhoto]) -> dict[str, AnnotatedPhoto]:
    """Which of the others each true photo is, by its key.

    As much of the ends of their paths is compared as is needed for there to be one alone on both sides. Names may
    differ in suffix, case and how characters are composed.
    """
    matched: dict[str, AnnotatedPhoto] = {}
    taken: set[str] = set()
    for spelling in SPELLINGS:
        there, theirs = ([{spelling(end) for end in _ends(one)} for one in side] for side in (truths, others))
        owners = [_owners(ends) for ends in (there, theirs)]
        shared = owners[0].keys() & owners[1].keys()
        for end in sorted(shared, key=lambda end: (-end.count("/"), end)):
            if len(owners[0][end]) == len(owners[1][end]) == 1:
                truth, other = truths[owners[0][end][0]], others[owners[1][end][0]]
                if truth.key not in matched and other.key not in taken:
                    matched[truth.key] = other
                    taken.add(other.key)
    return matched


def _ends(photo: AnnotatedPhoto) -> set[str]:
    """All ends of a photo's names, without the suffix."""
    ends: set[str] = set()
    for name in photo.names:
        path = PurePosixPath(name.replace("\\", "/"))
        parts = (path if photo.any_suffix else path.with_suffix("")).parts if path.name else ()
        ends |= {"/".join(parts[index:]) for index in range(len(parts))}
    return ends


def _owners(ends: Sequence[set[str]]) -> dict[str, list[int]]:
    owners: dict[str, list[int]] = defaultdict(list)
    for index, several in enumerate(ends):
        for end in several:
            owners[end].append(index)
    return owners


def _size(photos: Sequence[AnnotatedPhoto], finders: Sequence[PhotoFinder]) -> Size:
    """The size of a photo as the files say it, or as it has. Raises `InputError` where that differs or is unknown."""
    stated = {size for photo in photos for size in _stated(photo)}
    if len(stated) > 1:
        shown = " and ".join(sorted(f"{width}x{height}" for height, width in stated))
        raise InputError(f"its sizes differ: {shown} (width x height)")
    if stated:
        return stated.pop()
    refused: SegRefinerError | None = None
    for photo, finder in zip(photos, finders, strict=True):
        try:
            height, width = read_photo(finder.find(photo)[0]).pixels.shape[:2]
            return height, width
        except SegRefinerError as error:
            refused = refused or error
    raise InputError(f"no file says how large it is, and {refused}")


def _stated(photo: AnnotatedPhoto) -> Iterator[Size]:
    if photo.size:
        yield photo.size
        return
    for instance in photo.instances:
        form: Any = instance.mask.get("rle")
        size = instance.mask.get("size") or (form.get("size") if isinstance(form, dict) else None)
        if isinstance(size, list | tuple) and len(size) == 2 and (sides := image_size(*size)):
            yield sides
            return


@dataclass(frozen=True)
class _Object:
    """A mask that has any pixel, as its box and what is in it."""

    name: str
    label: str
    size: Size
    rows: slice
    columns: slice
    crop: Mask

    @classmethod
    def of(cls, name: str, label: str, mask: Mask) -> "_Object":
        left, top, width, height = (int(side) for side in tight_box(mask))
        rows, columns = slice(top, top + height), slice(left, left + width)
        size = (mask.shape[0], mask.shape[1])
        return cls(name, label, size, rows, columns, mask[rows, columns].copy())

    def mask(self) -> Mask:
        mask = np.zeros(self.size, np.bool_)
        mask[self.rows, self.columns] = self.crop
        return mask

    def iou(self, other: "_Object") -> float:
        top, bottom = max(self.rows.start, other.rows.start), min(self.rows.stop, other.rows.stop)
        left, right = max(self.columns.start, other.columns.start), min(self.columns.stop, other.columns.stop)
        if top >= bottom or left >= right:
            return 0.0
        crops = (
            one.crop[
                top - one.rows.start : bottom - one.rows.start, left - one.columns.start : right - one.columns.start
            ]
            for one in (self, other)
        )
        both = int(np.count_nonzero(np.logical_and(*crops)))
        return both / (int(self.crop.sum()) + int(other.crop.sum()) - both)


def _measured(
    sets: Sequence[AnnotationSet], photos: Sequence[AnnotatedPhoto], size: Size, keys: Sequence[str], by_label: bool
) -> Iterator[Measurement | Failure]:
    shown = photos[0].names[0]
    objects: list[list[_Object]] = []
    for one, photo in zip(sets, photos, strict=True):
        found, failures = _objects(photo, size)
        objects.append(found)
        yield from (Failure(f"{one.source}: {name}", why) for name, why in failures.items())
    truths, *others = objects
    pairs = [_paired(truths, found, by_label) for found in others]
    for one, found, pairing in zip(sets[1:], others, pairs, strict=True):
        alone = [truth.name for index, truth in enumerate(truths) if index not in pairing]
        yield from _without(shown, "true masks", alone, one.role)
        extra = [other.name for index, other in enumerate(found) if index not in pairing.values()]
        yield from _without(shown, f"{one.role}s", extra, "true mask")
    for index, truth in enumerate(truths):
        if all(index in pairing for pairing in pairs):
            scores = [_scored(found[pairing[index]], truth, keys) for found, pairing in zip(others, pairs, strict=True)]
            before = scores[1] if len(scores) == 2 else None
            yield Measurement(f"{shown}: {truth.name}", scores[0], before, truth.label)


def _objects(photo: AnnotatedPhoto, size: Size) -> tuple[list[_Object], dict[str, str]]:
    """The objects of a photo that count, parts of one group as one, and what cannot be compared."""
    failures: dict[str, str] = {}
    masks: dict[str, tuple[Instance, Mask]] = {}
    for instance in photo.instances:
        if _reason(instance, photo):
            continue
        try:
            mask, _ = decode_mask(instance.mask, size)
        except MaskError as error:
            failures[instance.name] = str(error)
            continue
        key = f"group {instance.group} {instance.label}" if instance.group else f"object {instance.key}"
        first, joined = masks.get(key, (instance, mask))
        masks[key] = first, joined | mask
    failures |= {one.name: "its mask is empty" for one, mask in masks.values() if not mask.any()}
    return [_Object.of(one.name, one.label, mask) for one, mask in masks.values() if mask.any()], failures


def _paired(truths: Sequence[_Object], others: Sequence[_Object], by_label: bool) -> dict[int, int]:
    """Which of the others each truth is matched with, so that the sum of IoUs is largest."""
    ious = np.array(
        [
            [truth.iou(other) if not by_label or truth.label == other.label else 0.0 for other in others]
            for truth in truths
        ]
    ).reshape(len(truths), len(others))
    rows, columns = linear_sum_assignment(ious, maximize=True)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if ious[row, column] > 0}


def _without(photo: str, what: str, names: Sequence[str], lacking: str) -> Iterator[Failure]:
    if names:
        yield Failure(photo, f"{len(names)} {what} without a {lacking} that they overlap, such as {names[0]}")


def _scored(found: _Object, truth: _Object, keys: Sequence[str]) -> Scores:
    return score_mask(found.mask(), truth.mask(), keys)
