"""Masks as other libraries find them, and a refiner whose results can be told in advance."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

HEIGHT, WIDTH = 60, 100


def boxes() -> NDArray[np.float32]:
    """Half-open boxes of three objects; the last is empty."""
    return np.array([[10, 10, 40, 50], [30, 20, 90, 45], [5, 5, 5, 5]], np.float32)


def masks() -> NDArray[np.bool_]:
    """Two overlapping rectangles and an empty mask."""
    result = np.zeros((3, HEIGHT, WIDTH), bool)
    for mask, (x0, y0, x1, y1) in zip(result, boxes().astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    return result


def shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask `(H, W)` without the pixels at its contour."""
    return np.asarray(F.max_pool2d(1 - torch.from_numpy(mask)[None].float(), 3, 1, 1)[0].numpy() == 0)


class Shrinks:
    """Stands in for a refiner: takes a pixel off every side, and keeps its calls.

    Each mask has its own probability, or all have 0.9.
    """

    pipeline = None

    def __init__(self, *probabilities: float) -> None:
        self.probabilities, self.calls = probabilities, []

    def many(self, pairs: Any, **options: Any) -> Any:
        pairs = list(pairs)
        self.calls.append((pairs, options))
        probabilities = self.probabilities or (0.9,) * len(pairs)
        for (_, mask), probability in zip(pairs, probabilities, strict=True):
            inside = shrunk(np.array(mask) > 0)
            soft = np.where(inside, np.float32(probability), np.float32(0))
            yield SimpleNamespace(mask=inside, probability=soft, report=None)

    def instances(self, image: Any, masks: Any, *, separate: bool, **options: Any) -> Any:
        assert separate
        return self.many(((image, mask) for mask in masks), **options)
