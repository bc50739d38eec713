"""Masks of metrics' tests, and hypothesis strategies that draw pairs of them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Score = Callable[[Array, Array], float]
QUICK = settings(max_examples=60)


def disk(height: int, width: int, row: int, column: int, radius: int) -> Mask:
    rows, columns = np.ogrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def soften(mask: Mask) -> npt.NDArray[np.float64]:
    """A 5x5 box blur, in whole grey levels."""
    padded = np.pad(mask, 2).astype(np.int64)
    total = sum(padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(5) for x in range(5))
    return np.asarray(total * 255 // 25) / 255


PAIRS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays.arrays(np.bool_, shape), arrays.arrays(np.bool_, shape))
)


def pixels(mask: Mask) -> list[tuple[int, int]]:
    return list(itertools.product(*map(range, mask.shape)))
