"""Masks and label maps that no object has: noise, specks, boards, grids, spirals, trees."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Mask = NDArray[np.bool_]


def photo(height: int, width: int | None = None) -> NDArray[np.uint8]:
    """`(height, width, 3)`, or a square: waves of colours with noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:height, : width or height]
    waves = np.stack([128 + 60 * np.sin(x / 37), 128 + 60 * np.cos(y / 29), 128 + 50 * np.sin((x + y) / 53)], -1)
    return (waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)


def _specks(count: int) -> Callable[[int], Mask]:
    def make(side: int) -> Mask:
        rng = np.random.default_rng(0)
        mask = np.zeros((side, side), bool)
        y, x = rng.integers(1, side - 1, (2, count))
        mask[y, x] = mask[y, x - 1] = True
        return mask

    return make


def _board(cell: int) -> Callable[[int], Mask]:
    return lambda side: (np.indices((side, side)) // cell).sum(0) % 2 == 0


def _grid(step: int) -> Callable[[int], Mask]:
    return lambda side: (np.indices((side, side)) % step == 0).any(0)


def _spiral(side: int) -> Mask:
    y, x = np.mgrid[:side, :side] - side / 2
    return np.asarray(
        ((np.hypot(y, x) / 8 - np.arctan2(y, x) / (2 * np.pi)) % 1 < 0.4) & (np.hypot(y, x) < 0.48 * side)
    )


def _tree(side: int) -> Mask:
    """Vessels that fork until they are a pixel wide."""
    mask = np.zeros((side, side), bool)
    branches = [(0.98 * side, side / 2, -np.pi / 2, side / 5, side / 80)]
    while branches:
        y, x, angle, length, width = branches.pop()
        steps = np.linspace(0, length, max(2, int(length)))
        half = max(0.5, width / 2)
        for down, right in zip(y + np.sin(angle) * steps, x + np.cos(angle) * steps, strict=True):
            rows, columns = (slice(max(0, int(v - half)), max(0, int(v + half) + 1)) for v in (down, right))
            mask[rows, columns] = True
        if length > side / 150:
            end = y + np.sin(angle) * length, x + np.cos(angle) * length
            branches += [(*end, angle + turn, 0.78 * length, 0.72 * width) for turn in (-0.5, 0.45)]
    return mask


def _text(side: int) -> Mask:
    """A page of small letters, each grown by two pixels."""
    page = Image.new("1", (side, side))
    draw, line = ImageDraw.Draw(page), "the quick brown fox jumps over the lazy dog " * (side // 200 + 1)
    for top in range(4, side - 12, 16):
        draw.text((4, top), line, fill=1)
    return np.asarray(ndimage.binary_dilation(np.asarray(page), iterations=2))


def _disc(side: int) -> Mask:
    y, x = np.mgrid[:side, :side] - side / 2
    return np.asarray(np.hypot(y, x) < 0.3 * side)


def _noise(share: float) -> Callable[[int], Mask]:
    return lambda side: np.random.default_rng(0).random((side, side)) < share


MASKS: dict[str, Callable[[int], Mask]] = {
    "disc": _disc,
    "noise, half": _noise(0.5),
    "noise, 2 %": _noise(0.02),
    "200 specks": _specks(200),
    "10,000 specks": _specks(10_000),
    "board of 1 px": _board(1),
    "board of 8 px": _board(8),
    "grid, 1 px of 4": _grid(4),
    "grid, 1 px of 32": _grid(32),
    "spiral": _spiral,
    "vessel tree": _tree,
    "text, grown": _text,
}


def cells(side: int, count: int = 99) -> NDArray[np.uint8]:
    """Labels of the nearest of some random points."""
    points = np.random.default_rng(0).integers(0, side, (count, 2))
    y, x = np.ogrid[:side, :side]
    labels, nearest = np.zeros((side, side), np.uint8), np.full((side, side), np.inf, np.float32)
    for label, (a, b) in enumerate(points):
        distance = ((y - a) ** 2 + (x - b) ** 2).astype(np.float32)
        labels[distance < nearest] = label
        np.minimum(nearest, distance, out=nearest)
    return labels


def _noisy(labels: NDArray[np.uint8], share: float, count: int = 99) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, count, labels.shape).astype(np.uint8)
    return np.where(rng.random(labels.shape) < share, noise, labels)


def _segments(side: int) -> NDArray[np.int32]:
    """Squares of which 20,000 fill a photo of a megapixel, each with an id of its own."""
    across = -(-side // 7)
    y, x = np.indices((side, side)) // 7
    return (1 + y * across + x).astype(np.int32)


LABEL_MAPS: dict[str, Callable[[int], NDArray[Any]]] = {
    "99 labels": cells,
    "99 labels, a tenth noise": lambda side: _noisy(cells(side), 0.1),
    "99 labels, all noise": lambda side: _noisy(cells(side), 1.0),
    "2 labels, all noise": lambda side: _noisy(cells(side), 1.0, 2),
    "11 labels, all noise": lambda side: _noisy(cells(side), 1.0, 11),
    "255 labels, all noise": lambda side: _noisy(cells(side), 1.0, 255),
    "a label for each pixel": lambda side: np.arange(side * side, dtype=np.int32).reshape(side, side),
    "segments of 7 x 7 px": _segments,
    "10 labels, all noise": lambda side: _noisy(cells(side), 1.0, 10),
    "99 labels, stripes of 3 px": lambda side: (np.indices((side, side))[0] // 3 % 99).astype(np.uint8),
}
