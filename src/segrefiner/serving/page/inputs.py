"""What a visitor of the page gives, to a photo and masks of its objects."""

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import InputError, MaskError, reason
from ...imaging.codecs.option_checks import finite_number

Photo = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]

_GRABCUT_SIDE = 640
"""In which boxes are searched: the mask is a coarse one anyway, and the time goes with the pixels."""

_ROUNDS = 5
_PAINTED = 128

T = TypeVar("T")


def painted_mask(layers: Sequence[NDArray[np.uint8]], height: int, width: int) -> Mask:
    """What was painted on the photo, at the photo's size.

    Args:
        layers: `(h, w)` uint8, their opacity, of one size with the photo's proportions.
        height: Of the photo.
        width: Of the photo.

    Returns:
        `(height, width)` bool; empty where nothing was painted.
    """
    mask = np.zeros((height, width), np.bool_)
    for layer in layers:
        alpha = Image.fromarray(np.ascontiguousarray(layer)).resize((width, height), Image.Resampling.BILINEAR)
        mask |= np.asarray(alpha) >= _PAINTED
    return mask


def box_around(mask: Mask) -> Box:
    """`x0, y0, x1, y1` of the pixels that are set. Raises `MaskError` where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise MaskError("nothing is painted and no box is given: paint roughly over the object, or type four numbers")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def typed_box(numbers: Sequence[float | None], height: int, width: int) -> Box | None:
    """The box that four numbers make within a photo; none where nothing was typed.

    Raises:
        InputError: Some are missing, or they make no box inside the photo.
    """
    given = [number for number in numbers if number is not None]
    if not given:
        return None
    if len(given) < len(numbers):
        raise InputError("the box lacks a side: type all four numbers, or none to take what is painted")
    x0, y0, x1, y1 = (round(finite_number("a side of the box", number)) for number in given)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise InputError(
            f"the box from {x0}, {y0} to {x1}, {y1} is none inside the photo: expected left less than right up to "
            f"{width}, and top less than bottom up to {height}"
        )
    return x0, y0, x1, y1


def mask_in_box(photo: Photo, box: Box) -> Mask:
    """A coarse mask of what stands out in a box, by GrabCut (Rother et al., 2004).

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        box: `x0, y0, x1, y1` in pixels, around the object with some background on at least one side.

    Returns:
        `(H, W)` bool, nothing outside the box.

    Raises:
        MaskError: The box is too small, or covers the photo, or nothing stands out in it.
    """
    height, width = photo.shape[:2]
    x0, y0, x1, y1 = box
    if x1 - x0 < 8 or y1 - y0 < 8:
        raise MaskError(f"the box is {x1 - x0}x{y1 - y0} pixels: expected 8 on each side or more, draw a larger one")
    if x1 - x0 == width and y1 - y0 == height:
        raise MaskError("the box covers all of the photo, so that nothing is background: draw a smaller one")
    scale = min(1.0, _GRABCUT_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.ascontiguousarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))[..., ::-1].copy()
    states = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    inside = (
        slice(round(y0 * scale), max(round(y0 * scale) + 1, round(y1 * scale))),
        slice(round(x0 * scale), max(round(x0 * scale) + 1, round(x1 * scale))),
    )
    states[inside] = cv2.GC_PR_FGD
    background, foreground = np.zeros((2, 1, 65))
    try:
        cv2.setRNGSeed(0)
        cv2.grabCut(small, states, (0, 0, 1, 1), background, foreground, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error as error:
        raise MaskError(f"no object can be told from the background in this box ({reason(error)[:80]})") from error
    found = Image.fromarray((states == cv2.GC_PR_FGD).astype(np.uint8) * 255)
    whole = np.asarray(found.resize((width, height), Image.Resampling.BILINEAR)) >= _PAINTED
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
    if not mask.any():
        raise MaskError("nothing stands out in this box: draw it more tightly around the object, or paint the mask")
    return mask
