"""What the trust benchmark refines: photos, thin structures, single objects and street scenes, with their kinds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import coarse_kinds, street, thin_kinds
from benchmarks.common.cases import NONE, chosen, coarse_mask, photo_and_truth
from benchmarks.common.soft_kinds import Mask, Photo
from benchmarks.common.street import Labels, MapFiles
from segrefiner.data.alignment import Offset
from segrefiner.data.layouts import Files, PhotoFiles
from segrefiner.data.sources import data_set_of
from segrefiner.imaging.reading import read_mask

PHOTO_KINDS = coarse_kinds.EVERY_KIND
INSTANCE_KINDS = {
    "instances-sam": "sam-like",
    "instances-low-8": "low-8",
    "instances-polygon": "polygon",
    "instances-exact": "perfect",
}
"""Kinds of masks of single objects among others, and how they are made."""

KINDS = (*PHOTO_KINDS, *thin_kinds.KINDS, *INSTANCE_KINDS, *street.KINDS)

_GROUPS = "PennFudanPed"
"""The set whose truths are several people in one mask; people who do not touch are parts of it."""

_LEAST_PIXELS = 400
_MAPS_SHARE = 3
_CUTOUTS_AMONG_THIN = 8


@dataclass(frozen=True)
class Subject:
    """A photo with its truth, of which coarse masks of several kinds are made.

    Attributes:
        name: Begins with the name of its set.
        source: Photo or sequence that it is from. Subjects of one source are too much alike to judge each other.
        kinds: Of its coarse masks.
        read: Gives the photo `(H, W, 3)` uint8 and the truth `(H, W)` bool.
        coarse: Gives the coarse mask `(H, W)` bool of a kind, or `None` where there is none.
    """

    name: str
    source: str
    kinds: tuple[str, ...]
    read: Callable[[], tuple[Photo, Mask]]
    coarse: Callable[[str, Photo, Mask], Mask | None]


@dataclass(frozen=True)
class Scene:
    """A street scene, of which coarse label maps of several kinds are made."""

    files: MapFiles
    kinds: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Of the scene."""
        return self.files.name

    def coarse(self, kind: str, labels: Labels) -> Labels:
        """The coarse label map of a kind."""
        return street.make_map(kind, self.name, labels, self.seed)


def of_photos(
    photos: Sequence[PhotoFiles], kinds: Sequence[str], seed: int, offsets: Mapping[str, Offset] = NONE
) -> list[Subject]:
    """Photos with the masks of their whole objects."""
    wanted = tuple(kind for kind in PHOTO_KINDS if kind in kinds)
    return [
        Subject(
            photo.name,
            photo.name,
            wanted,
            partial(photo_and_truth, photo, offsets),
            lambda kind, image, truth, photo=photo: coarse_mask(photo, kind, image, truth, seed),  # type: ignore[misc]
        )
        for photo in photos
        if wanted
    ]


def of_thin_structures(
    photos: Sequence[PhotoFiles], cutouts: tuple[Path, ...], kinds: Sequence[str], count: int, seed: int
) -> list[Subject]:
    """Thin structures, and an eighth of cut-outs with thin parts, composed on the photos."""
    wanted = tuple(kind for kind in thin_kinds.KINDS if kind in kinds)
    if not wanted:
        return []
    source = Files("the benchmark's photos", tuple(photos))
    objects = count // _CUTOUTS_AMONG_THIN if cutouts else 0
    composites = thin_kinds.structures(source, count - objects, seed)
    if objects:
        composites += thin_kinds.objects(source, thin_kinds.with_thin_parts(cutouts), objects, seed)

    def coarse(kind: str, image: Photo, truth: Mask, name: str) -> Mask:
        return thin_kinds.make(kind, name, image, truth, seed)

    return [Subject(c.name, c.name, wanted, c.read, partial(coarse, name=c.name)) for c in composites]


def of_instances(
    photos: Sequence[PhotoFiles],
    maps: Sequence[MapFiles],
    cutouts: tuple[Path, ...],
    kinds: Sequence[str],
    count: int,
    seed: int,
) -> list[Subject]:
    """Single objects: people of groups, road users of street scenes, and cut-outs, some of them partly hidden."""
    wanted = tuple(kind for kind in INSTANCE_KINDS if kind in kinds)
    if not wanted:
        return []
    people = [
        (f"{photo.name}_{number}", photo.name, partial(_person, photo, number))
        for photo in photos
        if data_set_of(photo.name) == _GROUPS
        for number in _several(range(len(street.parts(read_mask(photo.mask), _LEAST_PIXELS))))
    ]
    road_users = [
        (f"{files.name}_{label}_{number}", files.sequence, partial(_road_user, files, label, number))
        for files in maps
        for label in street.THINGS
        for number in range(len(street.parts(files.read()[1] == label, _LEAST_PIXELS)))
    ]
    objects = []
    if cutouts:
        source = Files("the benchmark's photos", tuple(photos))
        # Others than those among the thin structures.
        objects = [(c.name, c.name, c.read) for c in thin_kinds.objects(source, cutouts, count, seed + 1)]
    pools = [pool for pool in (people, road_users, objects) if pool]

    def coarse(kind: str, image: Photo, truth: Mask, name: str) -> Mask:
        return coarse_kinds.make(INSTANCE_KINDS[kind], name, image, truth, seed)

    return [
        Subject(name, source, wanted, read, partial(coarse, name=name))
        for pool in pools
        for name, source, read in chosen(pool, -(-count // len(pools)))
    ]


def of_scenes(maps: Sequence[MapFiles], kinds: Sequence[str], count: int, seed: int) -> list[Scene]:
    """Street scenes, a third as many as there are photos: each has many masks."""
    wanted = tuple(kind for kind in street.KINDS if kind in kinds)
    some = chosen(maps, -(-count // _MAPS_SHARE)) if wanted else []
    return [Scene(files, wanted, seed) for files in some]


def _several(numbers: range) -> range:
    """One part alone is no group."""
    return numbers if len(numbers) > 1 else range(0)


def _person(photo: PhotoFiles, number: int) -> tuple[Photo, Mask]:
    image, truth = photo_and_truth(photo)
    return image, street.parts(truth, _LEAST_PIXELS)[number]


def _road_user(files: MapFiles, label: int, number: int) -> tuple[Photo, Mask]:
    image, labels = files.read()
    return image, np.asarray(street.parts(labels == label, _LEAST_PIXELS)[number])
