"""Thin structures and objects with thin parts, composed on photos, and coarse masks of them.

Structures are procedural: wires, spokes, strings, branches, fences, vessels and leaves. Objects are cut-outs that
training never sees. Truths are exact by construction.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage

from benchmarks.common.soft_kinds import Mask, Photo, enlarged, smooth_noise
from segrefiner.data.composites.files import Materials, find_cutouts, make_composite, read_cutout
from segrefiner.data.composites.thin_structures import KINDS as STRUCTURES
from segrefiner.data.holdout import CUTOUTS_EVERY, held_back
from segrefiner.data.sources import Source

KINDS = ("thin", "thin-perfect")

SIZE = 560
"""Long side of the composites in pixels."""

_SEED = 77_000
"""Of the composites, so that they are others than those of training."""

_THIN = 3
"""Parts that a disc of this radius does not fit in are thin, in pixels of a cut-out of `_CUTOUT_SIDE`."""

_CUTOUT_SIDE, _THIN_SHARE = 380, 0.03


@dataclass(frozen=True)
class Composite:
    """A composite by number; `name` begins with the kind of structure, or with "cutout"."""

    name: str
    materials: Materials
    index: int

    def read(self) -> tuple[Photo, Mask]:
        """The photo `(H, W, 3)` uint8, and the exact mask `(H, W)` bool."""
        encoded, truth = make_composite(self.materials, self.index)
        with Image.open(io.BytesIO(encoded)) as picture:
            return np.asarray(picture.convert("RGB")), truth


def structures(photos: Source, count: int, seed: int) -> list[Composite]:
    """So many procedural structures, the kinds in turn, on parts of these photos."""
    materials = Materials(photos, (), SIZE, _SEED + seed)
    return [Composite(f"{STRUCTURES[i % len(STRUCTURES)]}_{i:03d}", materials, i) for i in range(count)]


def objects(photos: Source, cutouts: tuple[Path, ...], count: int, seed: int) -> list[Composite]:
    """So many composites of these cut-outs on parts of these photos; now and then another object hides a part."""
    materials = Materials(photos, cutouts, SIZE, _SEED + seed)
    return [Composite(f"cutout_{i:03d}", materials, i) for i in range(count)]


def held_back_cutouts(folder: Path) -> tuple[Path, ...]:
    """The cut-outs of a folder that training never sees. Raises `InputError` where there are none."""
    files = find_cutouts(folder)
    # Of a handful there is none to spare.
    return tuple(held_back(files, CUTOUTS_EVERY)) or files


def with_thin_parts(cutouts: tuple[Path, ...]) -> tuple[Path, ...]:
    """Those of the cut-outs that have legs, stems, strings and the like; all, where none has."""
    return tuple(path for path in cutouts if _thin_share(path) >= _THIN_SHARE) or cutouts


def _thin_share(path: Path) -> float:
    """The share of an object that is in thin parts."""
    picture = Image.fromarray(read_cutout(path)[..., 3])
    picture.thumbnail((_CUTOUT_SIDE, _CUTOUT_SIDE))
    mask = np.pad(np.asarray(picture) >= 128, 2 * _THIN)
    return 1 - np.count_nonzero(ndimage.binary_opening(mask, _disc(_THIN))) / max(1, np.count_nonzero(mask))


def _disc(radius: float) -> Mask:
    reach = int(radius)
    y, x = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    return np.hypot(y, x) <= radius + 0.2


def make(kind: str, name: str, image: Photo, truth: Mask, seed: int) -> Mask:
    """A coarse mask of a thin structure.

    Args:
        kind: "thin-perfect" for the truth itself, "thin" for one that is spoilt in one of four ways.
        name: Of the composite; another name draws other numbers.
        image: `(H, W, 3)` uint8, RGB.
        truth: `(H, W)` bool.
        seed: Of all draws.
    """
    if kind != "thin":
        return truth.copy()
    rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{kind}".encode())])
    return _WAYS[rng.integers(len(_WAYS))](truth, rng)


def thickened(truth: Mask, rng: Generator) -> Mask:
    """Drawn with a brush that is one or two pixels too thick on either side."""
    return ndimage.distance_transform_edt(~truth) <= rng.uniform(1, 2.5)


def thinned(truth: Mask, rng: Generator) -> Mask:
    """Drawn too thin: pixels at the rim are lost, but no line vanishes as a whole."""
    depth = ndimage.distance_transform_edt(truth)
    ridge = depth >= ndimage.maximum_filter(depth, 3)
    kept = truth & ((depth > rng.uniform(1, 2)) | ridge)
    return kept if kept.any() else truth.copy()


def low_resolution(truth: Mask, rng: Generator) -> Mask:
    """From a grid two to five times coarser, with a threshold at which lines survive."""
    factor = rng.uniform(2, 5)
    height, width = truth.shape
    grid = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = np.asarray(Image.fromarray(truth.astype(np.float32)).resize(grid, Image.Resampling.BOX))
    lifted = np.clip(small + rng.uniform(0.1, 0.3) * (small > 0), 0, 1).astype(np.float32)
    return enlarged(lifted, truth.shape)


def broken(truth: Mask, rng: Generator) -> Mask:
    """Interrupted: a tenth to a third is missing in pieces, and the rest is a pixel too thick or not."""
    gaps = smooth_noise(truth.shape, rng.uniform(4, 9), rng)
    kept = truth & (gaps <= np.quantile(gaps[truth], 1 - rng.uniform(0.1, 0.33)))
    return kept if rng.random() < 0.5 else ndimage.binary_dilation(kept)


_WAYS: tuple[Callable[[Mask, Generator], Mask], ...] = (thickened, thinned, low_resolution, broken)
