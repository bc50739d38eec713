"""Coarse masks that follow the photo's colours and go wrong with them, as interactive tools and superpixels make them.

GrabCut (Rother et al., 2004) from a loose box or from a few strokes: its contours lie on edges, but on those of
shadows, of the ground and of neighbours of the same colour, too.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ...errors import import_extra

LONGEST = 320
"""Masks are made at this long side, as the tools themselves work on shrunk photos, and enlarged."""

_LEAST_IOU = 0.4
_ROUNDS = (1, 6)
_MARGIN = 0.35
_STROKES = (2, 7)

Mask = NDArray[np.bool_]


def grabcut_coarse(image: NDArray[np.uint8], mask: Mask, seed: int) -> Mask:
    """A coarse mask `(H, W)` bool by GrabCut; one whose IoU is below 0.4 keeps one half of the truth.

    Args:
        image: `(H, W, 3)` uint8, RGB.
        mask: `(H, W)` bool, the truth, not empty.
        seed: Seed of every draw.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    rng = np.random.default_rng(seed)
    height, width = mask.shape
    shrink = min(1.0, LONGEST / max(height, width))
    size = (max(8, round(width * shrink)), max(8, round(height * shrink)))
    photo = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    truth = np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BOX)) >= 128
    if not truth.any():
        return mask.copy()
    found = _grabcut(photo, _box_states(truth, rng) if rng.random() < 0.6 else _drawn_states(truth, rng), rng)
    if (found & truth).sum() < _LEAST_IOU * (found | truth).sum():
        left = np.arange(truth.shape[1]) < truth.shape[1] // 2
        found = np.where(left if rng.random() < 0.5 else ~left, found, truth)
    enlarged = Image.fromarray(found).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(enlarged) >= 128


def _box_states(truth: Mask, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a box around the object says: sure background (0) outside, probable object (3) inside."""
    states = np.zeros(truth.shape, np.uint8)
    bounds = []
    for axis in (1, 0):
        found = np.flatnonzero(truth.any(axis=axis))
        extent = found[-1] + 1 - found[0]
        before, after = (extent * rng.uniform(-0.06, 0.12, 2)).round().astype(int)
        bounds.append(slice(max(0, found[0] - before), max(found[0] + 1, found[-1] + 1 + after)))
    states[tuple(bounds)] = 3
    return states


def _drawn_states(truth: Mask, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What strokes say: sure object (1) and background (0) near some points, the rest probable by its distance."""
    reach = 0.15 * math.sqrt(truth.sum())
    outside = ndimage.distance_transform_edt(~truth)
    states = np.where(outside > reach * rng.uniform(0.5, 2), 0, np.where(outside > 0, 2, 3)).astype(np.uint8)
    rows, columns = np.ogrid[: truth.shape[0], : truth.shape[1]]
    for value, among in ((1, np.argwhere(truth)), (0, np.argwhere(~truth))):
        for place in rng.choice(among, size=int(rng.integers(*_STROKES))) if len(among) else among:
            near = np.hypot(rows - place[0], columns - place[1]) < reach * rng.uniform(0.2, 0.6)
            states[near & (truth == bool(value))] = value
    return states


def _grabcut(photo: NDArray[np.uint8], states: NDArray[np.uint8], rng: np.random.Generator) -> Mask:
    cv2 = import_extra("cv2", "making coarse masks by GrabCut", extra="training")
    rows, columns = (np.flatnonzero((states > 0).any(axis=axis)) for axis in (1, 0))
    around = []
    for found, limit in ((rows, states.shape[0]), (columns, states.shape[1])):
        margin = math.ceil(_MARGIN * len(found)) + 1
        around.append(slice(max(0, found[0] - margin), min(limit, found[-1] + 1 + margin)))
    place = tuple(around)
    part = states[place].copy()
    result = np.zeros(states.shape, bool)
    if (part == 0).any() and (part % 2 == 1).any():
        cv2.setRNGSeed(0)
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cropped = np.ascontiguousarray(photo[place])
        rounds = int(rng.integers(*_ROUNDS))
        cv2.grabCut(cropped, part, None, background, foreground, rounds, cv2.GC_INIT_WITH_MASK)
    result[place] = part % 2 == 1
    return result
