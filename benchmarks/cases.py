"""Photos with a coarse mask of some kind and the truth, as the benchmarks go through them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from coarse_kinds import REAL, Mask, Photo, make

from segrefiner.io import read_image, read_mask
from segrefiner.sources import PhotoFiles, evenly


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


def coarse_mask(photo: PhotoFiles, kind: str, image: Photo, truth: Mask, seed: int) -> Mask | None:
    """The coarse mask of this kind; `None` where a real one is asked for and there is none."""
    if kind != REAL:
        return make(kind, photo.name, image, truth, seed)
    return None if photo.coarse is None else read_mask(photo.coarse)


def cases(photos: Iterable[PhotoFiles], kinds: Sequence[str], seed: int) -> Iterator[Case]:
    """Every kind of every photo, photo by photo."""
    for photo in photos:
        image, truth = read_image(photo.image), read_mask(photo.mask)
        for kind in kinds:
            coarse = coarse_mask(photo, kind, image, truth, seed)
            if coarse is not None:
                yield Case(photo.name, kind, image, coarse, truth)
