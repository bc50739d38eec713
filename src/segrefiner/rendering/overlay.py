"""A picture in which one sees what a refinement changed: photo, coarse contour and refined contour side by side."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..imaging.codecs.arrays import as_numpy

Photo = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Window = tuple[int, int, int, int]

PANEL = 560
COARSE_COLOUR = (255, 64, 48)
REFINED_COLOUR = (40, 225, 90)
_CAPTION = 26
_GAP = 6


def overlay(image: Photo, coarse: Mask, refined: Mask) -> Photo:
    """Two rows of three panels: the object, and the place of the largest change enlarged.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        coarse: `(H, W)` bool.
        refined: `(H, W)` bool.

    Returns:
        `(h, w, 3)` uint8 RGB: photo, coarse mask's contour and tint, refined mask's.

    >>> from segrefiner.imaging.reading import read_image, read_mask
    >>> from segrefiner.rendering.overlay import overlay
    >>> photo, coarse = read_image("photo.jpg"), read_mask("coarse.png")
    >>> overlay(photo, coarse, refiner(photo, coarse).mask).dtype
    dtype('uint8')
    """
    image, coarse, refined = as_numpy(image), as_numpy(coarse), as_numpy(refined)
    whole = object_window(coarse | refined)
    rows = [_row(image, coarse, refined, whole, captions=("photo", "coarse mask", "refined mask"))]
    changed = coarse != refined
    if changed.any():
        detail = detail_window(changed, whole)
        names = ("where most changed", "coarse mask", "refined mask")
        rows.append(_row(image, coarse, refined, detail, captions=names))
    width = max(row.shape[1] for row in rows)
    # Windows of different shapes give rows of slightly different widths.
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows])


def object_window(mask: Mask) -> Window:
    """`y0, x0, y1, x1` of the mask with a margin; of the whole photo for an empty mask."""
    height, width = mask.shape
    if not mask.any():
        return 0, 0, height, width
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = max(8, round(0.08 * max(np.ptp(rows), np.ptp(columns))))
    return (
        max(0, int(rows[0]) - margin),
        max(0, int(columns[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        min(width, int(columns[-1]) + 1 + margin),
    )


def detail_window(changed: Mask, whole: Window) -> Window:
    """The window of a third of the object's size that holds the most changed pixels."""
    y0, x0, y1, x1 = whole
    height, width = max(12, (y1 - y0) // 3), max(12, (x1 - x0) // 3)
    height, width = min(height, y1 - y0), min(width, x1 - x0)
    sums = np.pad(changed[y0:y1, x0:x1].astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(counts.argmax(), counts.shape)
    return y0 + int(y), x0 + int(x), y0 + int(y) + height, x0 + int(x) + width


def _row(image: Photo, coarse: Mask, refined: Mask, window: Window, captions: tuple[str, str, str]) -> Photo:
    y0, x0, y1, x1 = window
    scale = PANEL / max(y1 - y0, x1 - x0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    shrink = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    photo = np.asarray(Image.fromarray(image[y0:y1, x0:x1]).resize(size, shrink))
    panels = [photo]
    for mask, colour in ((coarse, COARSE_COLOUR), (refined, REFINED_COLOUR)):
        part = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
        # Box and nearest keep a mask's pixels as they are, so that an enlarged contour shows its true steps.
        method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
        panels.append(_painted(photo, np.asarray(part.resize(size, method)) >= 128, colour))
    framed = [_captioned(panel, caption) for panel, caption in zip(panels, captions, strict=True)]
    gap = np.full((framed[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([framed[0], gap, framed[1], gap, framed[2]], axis=1)


def _painted(photo: Photo, mask: Mask, colour: tuple[int, int, int]) -> Photo:
    tinted = photo.astype(np.float32)
    tinted[~mask] *= 0.45
    edge = np.zeros_like(mask)
    for axis in (0, 1):
        differs = np.diff(mask, axis=axis)
        pad = [(0, 0), (0, 0)]
        for side in ((0, 1), (1, 0)):
            pad[axis] = side
            edge |= np.pad(differs, pad)
    tinted[edge] = colour
    return tinted.astype(np.uint8)


def _captioned(panel: Photo, caption: str) -> Photo:
    picture = Image.new("RGB", (panel.shape[1], panel.shape[0] + _CAPTION), "white")
    picture.paste(Image.fromarray(panel), (0, _CAPTION))
    ImageDraw.Draw(picture).text((4, 5), caption, fill="black", font=ImageFont.load_default(size=15))
    return np.asarray(picture)
