"""Photos with a coarse mask of some kind and the truth, as the benchmarks go through them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coarse_kinds import REAL, Mask, Photo, make

from segrefiner.align import Offset, aligned_by_name, measure_offsets
from segrefiner.io import read_image, read_mask
from segrefiner.sources import PhotoFiles, Sample, evenly, open_folder

NONE: Mapping[str, Offset] = {}


@dataclass(frozen=True)
class Case:
    """One coarse mask: `image` `(H, W, 3)` uint8, `coarse` and `truth` `(H, W)` bool."""

    name: str
    kind: str
    image: Photo
    coarse: Mask
    truth: Mask


def chosen(photos: Sequence[PhotoFiles], count: int) -> list[PhotoFiles]:
    """`count` photos evenly spread over the sorted names, or all of them for 0."""
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
    """The coarse mask of this kind; `None` where a real one is asked for and there is none."""
    if kind != REAL:
        return make(kind, photo.name, image, truth, seed)
    return None if photo.coarse is None else read_mask(photo.coarse)


def cases(photos: Iterable[PhotoFiles], kinds: Sequence[str], seed: int) -> Iterator[Case]:
    """Every kind of every photo, photo by photo."""
    for photo in photos:
        image, truth = photo_and_truth(photo)
        for kind in kinds:
            coarse = coarse_mask(photo, kind, image, truth, seed)
            if coarse is not None:
                yield Case(photo.name, kind, image, coarse, truth)
