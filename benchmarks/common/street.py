"""Label maps of street scenes, and coarse ones made from them.

A folder has `images/NAME.jpg` and `labels/NAME.png`, 8 bit, with CamVid's eleven classes and a void that is no class.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.common.soft_kinds import Mask, Photo, smooth_noise
from segrefiner import InputError
from segrefiner.imaging.label_files import read_labels
from segrefiner.imaging.reading import read_image

Labels = NDArray[np.uint8]

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""By label."""

VOID = 11
"""What is no class: never scored, and never refined."""

THINGS = (8, 9, 10)
"""Classes whose connected parts are objects, more or less: cars, pedestrians and bicyclists."""

_WANDER, _LENGTH = 1.5, 8.0
"""By how many pixels smooth errors move borders (standard deviation), and how far along a border they reach."""


@dataclass(frozen=True)
class MapFiles:
    """A street scene; `name` begins with the name of the set."""

    name: str
    image: Path
    labels: Path

    def read(self) -> tuple[Photo, Labels]:
        """The photo `(H, W, 3)` uint8 and its true label map `(H, W)` uint8."""
        return read_image(self.image), read_labels(self.labels).labels

    @property
    def sequence(self) -> str:
        """The sequence that it is a frame of."""
        return self.name.rpartition("_")[0]


def find_maps(folder: Path) -> list[MapFiles]:
    """The scenes of a folder, sorted by name. Raises `InputError` where there are none."""
    images = {path.stem: path for path in sorted((folder / "images").glob("*"))}
    found = [MapFiles(f"street_{p.stem}", images[p.stem], p) for p in sorted((folder / "labels").glob("*.png"))
             if p.stem in images]  # fmt: skip
    if not found:
        raise InputError(f"{folder} holds no street scene: expected images/NAME.jpg and labels/NAME.png")
    return found


def make_map(kind: str, name: str, labels: Labels, seed: int) -> Labels:
    """A coarse label map.

    Args:
        kind: One of `KINDS`.
        name: Of the scene; another name draws other numbers.
        labels: `(H, W)` uint8, the truth.
        seed: Of all draws.
    """
    return _MAKERS[kind](labels, np.random.default_rng([seed, zlib.crc32(f"{name}/{kind}".encode())]))


def _exact(labels: Labels, rng: Generator) -> Labels:
    """The truth itself."""
    return labels.copy()


def _low_resolution(factor: int) -> Callable[[Labels, Generator], Labels]:
    """A map whose classes were predicted on a grid `factor` times coarser, and enlarged smoothly before the choice."""

    def make(labels: Labels, rng: Generator) -> Labels:
        height, width = labels.shape
        grid = (math.ceil(width / factor), math.ceil(height / factor))
        present = np.unique(labels)
        best, chosen = np.full(labels.shape, -1.0, np.float32), np.zeros_like(labels)
        for value in present:
            small = Image.fromarray((labels == value).astype(np.float32)).resize(grid, Image.Resampling.BOX)
            share = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
            better = share > best
            best[better], chosen[better] = share[better], value
        return chosen

    return make


def _smooth_errors(labels: Labels, rng: Generator) -> Labels:
    """A map of full resolution whose borders wander smoothly by a pixel or two."""
    places = np.indices(labels.shape, dtype=np.float32)
    moves = np.stack([_WANDER * smooth_noise(labels.shape, _LENGTH, rng) for _ in range(2)])
    return ndimage.map_coordinates(labels, places + moves, order=0, mode="nearest")


_MAKERS: dict[str, Callable[[Labels, Generator], Labels]] = {
    "street-4": _low_resolution(4),
    "street-8": _low_resolution(8),
    "street-smooth": _smooth_errors,
    "street-exact": _exact,
}

KINDS: tuple[str, ...] = tuple(_MAKERS)


def parts(mask: Mask, least: int) -> list[Mask]:
    """The connected parts of a mask that have so many pixels, each as a mask of its own, in reading order."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return [labels == number for number, size in enumerate(sizes, 1) if size >= least]
