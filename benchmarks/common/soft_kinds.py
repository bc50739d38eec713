"""Coarse masks as networks draw them: soft, on a coarse grid, with smooth errors, then enlarged and cut at a half.

`sam_like` is a promptable network's mask (SAM: logits of 256x256 for a photo whose long side fills the grid),
`yolo_like` one of an instance segmenter (YOLO: a mask of 160x160, cropped by the predicted box of the object).
Errors are smooth: contours wander by a cell or so along the object, and details finer than a cell dissolve.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Photo: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Plane: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Errors:
    """How a network's soft mask differs from the truth; lengths are in cells of its grid.

    Attributes:
        blur: Standard deviations of the Gaussian that dissolves details, from and to.
        shift: By how much contours wander, likewise.
        length: How far along a contour an error reaches.
        doubt: Standard deviation of smooth errors of the probability, which move contours where they are soft.
    """

    blur: tuple[float, float]
    shift: tuple[float, float]
    length: float
    doubt: float


SAM = Errors(blur=(0.5, 1.1), shift=(0.4, 1.2), length=5.0, doubt=0.15)
YOLO = Errors(blur=(0.7, 1.4), shift=(0.5, 1.3), length=4.0, doubt=0.2)

SAM_CELLS, YOLO_CELLS = 256, 160
"""Cells of the grids along a photo's long side."""

_DOUBT_REACH = 2.0
_BOX_JITTER = 0.025
_LEAST_PART = 0.02


def sam_like(image: Photo, truth: Mask, rng: Generator) -> Mask:
    """A mask from a grid of 256 cells along the photo's long side."""
    return enlarged(with_errors(shrunk(truth, SAM_CELLS), SAM, rng), truth.shape)


def yolo_like(image: Photo, truth: Mask, rng: Generator) -> Mask:
    """A mask from a grid of 160 cells along the photo's long side, cropped by a box around each part of the object."""
    soft = with_errors(shrunk(truth, YOLO_CELLS), YOLO, rng)
    scale = np.array(soft.shape) / truth.shape
    inside = np.zeros(soft.shape, bool)
    labels, count = ndimage.label(truth, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(truth, labels, range(1, count + 1))
    for size, part in zip(sizes, ndimage.find_objects(labels), strict=True):
        if size < _LEAST_PART * sizes.sum():
            continue
        box = [_jittered(*side, rng) for side in zip(part, scale, soft.shape, strict=True)]
        inside[tuple(box)] = True
    return enlarged(np.where(inside, soft, np.float32(0)), truth.shape)


def shrunk(truth: Mask, cells: int) -> Plane:
    """The share of each cell that a mask covers, on a grid of so many cells along the long side."""
    height, width = truth.shape
    scale = cells / max(height, width)
    grid = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(truth.astype(np.float32)).resize(grid, Image.Resampling.BOX))


def with_errors(soft: Plane, errors: Errors, rng: Generator) -> Plane:
    """A soft mask `(rows, columns)` float32 in [0, 1] with errors as a network makes them."""
    blurred = ndimage.gaussian_filter(soft, rng.uniform(*errors.blur), mode="nearest")
    shift = rng.uniform(*errors.shift)
    places = np.indices(soft.shape, dtype=np.float32)
    moves = [shift * smooth_noise(soft.shape, errors.length, rng) for _ in range(2)]
    moved = ndimage.map_coordinates(blurred, places + np.stack(moves), order=1, mode="nearest")
    # Far from a contour a network has no doubt.
    near = ndimage.gaussian_filter(moved, _DOUBT_REACH, mode="nearest")
    moved += errors.doubt * smooth_noise(soft.shape, errors.length, rng) * 4 * near * (1 - near)
    return np.clip(moved, 0, 1).astype(np.float32)


def smooth_noise(shape: tuple[int, ...], length: float, rng: Generator) -> Plane:
    """Gaussian noise of unit variance that is alike within so many pixels."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), length, mode="wrap")
    return np.asarray(noise * (2 * math.sqrt(math.pi) * length), np.float32)


def enlarged(soft: Plane, shape: tuple[int, ...]) -> Mask:
    """A soft mask enlarged bilinearly to `(H, W)` and cut at a half, or lower where it reaches that nowhere."""
    values = np.asarray(Image.fromarray(soft).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    return np.asarray(values >= min(0.5, 0.5 * float(values.max())))


def _jittered(side: slice, scale: float, limit: int, rng: Generator) -> slice:
    """A side of an object's box, in pixels, as the network sees it in cells."""
    off = _BOX_JITTER * (side.stop - side.start) * rng.normal(size=2)
    start, stop = math.floor((side.start + off[0]) * scale), math.ceil((side.stop + off[1]) * scale)
    start = min(max(0, start), limit - 1)
    return slice(start, min(limit, max(start + 1, stop)))
