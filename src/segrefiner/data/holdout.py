"""Which items of a training set are held back from training: one rule for training and for the benchmarks."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

PHOTOS_EVERY = 40
"""One training photo in so many is held back."""

CUTOUTS_EVERY = 10
"""One cut-out in so many is held back: there are few of them."""


def is_held_back(index: int, every: int = PHOTOS_EVERY) -> bool:
    """Tells whether an item is held back from training.

    Args:
        index: The item's place, from 0, among all items of its set, sorted by name.
        every: One item in so many, the last of each group of so many, is held back; 0 holds back none.
    """
    return every > 0 and index % every == every - 1


def held_back(items: Sequence[T], every: int = PHOTOS_EVERY) -> list[T]:
    """The items that are held back from training, of all items sorted by name. `every` as for `is_held_back`."""
    return [item for index, item in enumerate(items) if is_held_back(index, every)]
