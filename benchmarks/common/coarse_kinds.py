"""Coarse masks of the kinds that people have, made from the truth.

Kept apart from the coarse masks of training (`segrefiner.data.coarse.masks`) on purpose: nothing here was tuned to what
the model learnt on. Every mask depends on the photo's name, its kind and one seed alone, never on what was made before.

Severities are in shares of the object's `scale`, so that a small and a large object are spoilt alike.
"""

import math
import zlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.common.soft_kinds import sam_like, yolo_like

Photo: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]
Make: TypeAlias = Callable[[Photo, Mask, np.random.Generator], Mask]

REAL = "real"
"""Read from a file: what a weak segmentation network predicted."""

STRONG = "strong"
"""Read from a file, too: what a strong network of today predicted."""

_BLOBS = 2
_BLOB_RADIUS = (0.12, 0.22)


def make(kind: str, name: str, image: Photo, truth: Mask, seed: int) -> Mask:
    """A coarse mask.

    Args:
        kind: One of `EVERY_KIND`, but neither `REAL` nor `STRONG`.
        name: Of the photo; another name draws other numbers.
        image: `(H, W, 3)` uint8, RGB.
        truth: `(H, W)` bool.
        seed: Of all draws.

    Returns:
        `(H, W)` bool; an empty truth comes back as it is.
    """
    if not truth.any():
        return truth.copy()
    rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{kind}".encode())])
    return _MAKERS[kind](image, truth, rng)


def extent(mask: Mask) -> float:
    """The side of the square that is as large as the mask, in pixels."""
    return math.sqrt(np.count_nonzero(mask))


def scale(mask: Mask) -> float:
    """By how much a contour may move and still be of this object: 6 % of its extent, less for a thin one."""
    return min(0.06 * extent(mask), float(np.median(ndimage.distance_transform_edt(mask)[mask])))


def perfect(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """The truth itself: whatever a method changes is a loss."""
    return truth.copy()


def eroded(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Too small all around."""
    return ndimage.distance_transform_edt(truth) > scale(truth) * rng.uniform(0.5, 1)


def dilated(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Too large all around."""
    return ndimage.distance_transform_edt(~truth) <= max(1, scale(truth) * rng.uniform(0.5, 1))


def shifted(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Right in shape, but moved, as by a wrong crop or a late video frame."""
    angle, distance = rng.uniform(0, 2 * math.pi), max(1, scale(truth) * rng.uniform(0.5, 1))
    offset = (round(distance * math.sin(angle)), round(distance * math.cos(angle)))
    return ndimage.shift(truth.astype(np.uint8), offset, order=0) > 0


def low_resolution(factor: int) -> Make:
    """A mask that was predicted on a grid `factor` times coarser and enlarged smoothly."""

    def shrink(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
        height, width = truth.shape
        grid = (math.ceil(width / factor), math.ceil(height / factor))
        small = Image.fromarray(truth.astype(np.float32)).resize(grid, Image.Resampling.BOX)
        values = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))
        # An object thinner than a cell reaches one half nowhere; a network would still have seen something.
        return values >= min(0.5, 0.5 * values.max())

    return shrink


def missing(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Round pieces of the object are not in the mask."""
    return truth & ~_blobs(np.argwhere(truth), truth, rng)


def false(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Round pieces of the background near the object are in the mask."""
    near = ndimage.distance_transform_edt(~truth) <= 0.2 * extent(truth)
    return truth | _blobs(np.argwhere(near & ~truth), truth, rng)


def _blobs(centres: NDArray[np.int_], truth: Mask, rng: np.random.Generator) -> Mask:
    blobs = np.zeros_like(truth)
    rows, columns = np.indices(truth.shape, sparse=True)
    for centre in rng.choice(centres, size=min(_BLOBS, len(centres))) if len(centres) else ():
        down, right = rows - centre[0], columns - centre[1]
        angle = np.arctan2(down, right)
        wobble = 1 + 0.2 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(3 * angle + rng.uniform(0, 6))
        blobs |= np.hypot(down, right) < extent(truth) * rng.uniform(*_BLOB_RADIUS) * wobble
    return blobs


def polygon(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """Drawn in a hurry: few corners, each a little off."""
    import cv2

    contours, hierarchy = cv2.findContours(truth.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    is_hole = hierarchy[0, :, 3] >= 0
    areas = np.array([cv2.contourArea(contour) for contour in contours])
    drawn = np.zeros(truth.shape, np.uint8)
    # Largest first, so that what lies in a hole is drawn after it.
    for i in np.argsort(-areas, kind="stable"):
        if areas[i] < 0.005 * areas.sum():
            continue
        size = math.sqrt(areas[i])
        corners = cv2.approxPolyDP(contours[i], rng.uniform(0.03, 0.06) * size, closed=True)[:, 0]
        corners = corners + rng.normal(0, 0.015 * size, corners.shape)
        cv2.fillPoly(drawn, [np.round(corners).astype(np.int32)], 0 if is_hole[i] else 1)
    return drawn > 0


def grabcut_box(image: Photo, truth: Mask, rng: np.random.Generator) -> Mask:
    """GrabCut from a box around each larger part, the box a little off, as interactive tools do it."""
    import cv2

    labels, count = ndimage.label(truth, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(truth, labels, range(1, count + 1))
    found = np.zeros_like(truth)
    for size, part in zip(sizes, ndimage.find_objects(labels), strict=True):
        if size < 0.05 * sizes.sum():
            continue
        box = [_jittered(side, limit, 0.04, rng) for side, limit in zip(part, truth.shape, strict=True)]
        around = tuple(_grown(side, limit, 0.3) for side, limit in zip(box, truth.shape, strict=True))
        inner = tuple(slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))
        states = np.full(truth[around].shape, cv2.GC_BGD, np.uint8)
        states[inner] = cv2.GC_PR_FGD
        if (states == cv2.GC_BGD).any():
            cv2.setRNGSeed(0)
            background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
            photo = np.ascontiguousarray(image[around])
            cv2.grabCut(photo, states, None, background, foreground, 5, cv2.GC_INIT_WITH_MASK)
        # Where the box is the whole photo there is nothing to learn the background from; the box stays.
        found[around] |= (states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD)
    return found


def _jittered(side: slice, limit: int, share: float, rng: np.random.Generator) -> slice:
    # Rather too large than too small, as people draw boxes.
    before, after = share * (side.stop - side.start) * rng.uniform(-0.5, 1, 2)
    start = min(max(0, round(side.start - before)), limit - 1)
    return slice(start, max(start + 1, min(limit, round(side.stop + after))))


def _grown(side: slice, limit: int, share: float) -> slice:
    margin = math.ceil(share * (side.stop - side.start)) + 1
    return slice(max(0, side.start - margin), min(limit, side.stop + margin))


_MAKERS: dict[str, Make] = {
    "grabcut-box": grabcut_box,
    "polygon": polygon,
    "low-8": low_resolution(8),
    "low-16": low_resolution(16),
    "eroded": eroded,
    "dilated": dilated,
    "shifted": shifted,
    "missing": missing,
    "false": false,
    "perfect": perfect,
    "sam-like": sam_like,
    "yolo-like": yolo_like,
}

_LIKE_NETWORKS = ("sam-like", "yolo-like")

KINDS: tuple[str, ...] = (REAL, *(kind for kind in _MAKERS if kind not in _LIKE_NETWORKS))
"""The kinds by which methods are compared, in the order of the tables."""

EVERY_KIND: tuple[str, ...] = (*KINDS, STRONG, *_LIKE_NETWORKS)
"""These and masks as the networks of today draw them."""
