"""Photos with a coarse mask of some kind and the truth, as the benchmarks go through them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.common.coarse_kinds import REAL, STRONG, Mask, Photo, make
from segrefiner.data.alignment import Offset, aligned_by_name, measure_offsets
from segrefiner.data.layouts import PhotoFiles, open_folder
from segrefiner.data.sources import Sample, evenly
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.imaging.reading import read_image, read_mask

NONE: Mapping[str, Offset] = {}

STRONG_FOLDER = "coarse_isnet"
"""Of the masks of a strong network, beside a data folder's images and masks."""

SAME_OBJECT = 0.5
"""A strong network's mask whose IoU with the truth is less shows another object."""


@dataclass(frozen=True)
class Case:
    """One coarse mask: `image` `(H, W, 3)` uint8, `coarse` and `truth` `(H, W)` bool."""

    name: str
    kind: str
    image: Photo
    coarse: Mask
    truth: Mask


@dataclass(frozen=True)
class RefinedCase:
    """A case, its refined mask, and IoU and mBA before and after, in percent."""

    case: Case
    mask: Mask
    iou: tuple[float, float]
    mba: tuple[float, float]

    @classmethod
    def of(cls, case: Case, mask: Mask) -> "RefinedCase":
        """Compares both masks with the truth."""
        figures = [(100 * f(case.coarse, case.truth), 100 * f(mask, case.truth)) for f in (iou, mba)]
        return cls(case, mask, *figures)

    @property
    def gain(self) -> float:
        """In points of IoU."""
        return self.iou[1] - self.iou[0]

    def __str__(self) -> str:
        return (
            f"{self.case.name}, {self.case.kind}: IoU {self.iou[0]:.1f} to {self.iou[1]:.1f}, "
            f"mBA {self.mba[0]:.1f} to {self.mba[1]:.1f}"
        )


T = TypeVar("T")


def chosen(photos: Sequence[T], count: int) -> list[T]:
    """`count` photos, or other items, evenly spread over the sorted names, or all of them for 0."""
    if not 0 < count < len(photos):
        return list(photos)
    return [photos[i] for i in evenly(len(photos), count)]


def offsets_of(data: Path, align: bool) -> Mapping[str, Offset]:
    """What a folder's true masks are off by, as `segrefiner data check` tells it, where that is asked for."""
    return measure_offsets(open_folder(data)) if align else NONE


def photo_and_truth(photo: PhotoFiles, offsets: Mapping[str, Offset] = NONE) -> tuple[Photo, Mask]:
    """A photo and its true mask, without what the masks of its data set are off by."""
    sample = Sample(photo.name, read_image(photo.image), read_mask(photo.mask), None)
    sample = aligned_by_name(sample, offsets)
    return sample.image, sample.mask


def coarse_mask(photo: PhotoFiles, kind: str, image: Photo, truth: Mask, seed: int) -> Mask | None:
    """The coarse mask of this kind; `None` where it is read from a file and there is none of this object."""
    if kind == STRONG:
        found = strong_mask(photo)
        return found if found is not None and iou(found, truth) >= SAME_OBJECT else None
    if kind != REAL:
        return make(kind, photo.name, image, truth, seed)
    return None if photo.coarse is None or photo.coarse.parent.name == STRONG_FOLDER else read_mask(photo.coarse)


def strong_mask(photo: PhotoFiles) -> Mask | None:
    """What a strong network predicted, whichever object it shows; `None` where there is no file."""
    path = photo.mask.parent.parent / STRONG_FOLDER / f"{photo.name}.png"
    return read_mask(path) if path.is_file() else None


def cases(photos: Iterable[PhotoFiles], kinds: Sequence[str], seed: int) -> Iterator[Case]:
    """Every kind of every photo, photo by photo."""
    for photo in photos:
        image, truth = photo_and_truth(photo)
        for kind in kinds:
            coarse = coarse_mask(photo, kind, image, truth, seed)
            if coarse is not None:
                yield Case(photo.name, kind, image, coarse, truth)
