"""What tests let other processes do; it imports little, because each of them begins with that."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from segrefiner.batch import Item, Saved
from segrefiner.decoding import within_limits
from segrefiner.errors import ImageError
from segrefiner.io import read_image

PIXELS = 50_000_000
MIB = 1 << 20


def photo(content: bytes) -> np.ndarray:
    return read_image(content, max_pixels=PIXELS)


def spin(count: int) -> int:
    with within_limits(0):
        while count:
            count -= 1
    return count


def fill(megabytes: int) -> int:
    with within_limits(0):
        return sum(len(bytearray(MIB)) for _ in [bytearray(MIB) for _ in range(megabytes)]) >> 20


def fail(kind: str) -> Any:
    if kind == "input":
        raise ImageError("said")
    if kind == "death":
        os._exit(3)
    if kind == "object":
        return np.array([print])
    raise ZeroDivisionError("inside")


def mixed() -> Any:
    return ["a", [np.arange(3), np.ones((2, 2), bool)], None, 1.5, np.zeros((0, 3), np.uint16)]


class SpinningWork:
    """A job's work that never ends for one item."""

    root = Path()

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self, item: Item, contents: Any) -> Any:
        return spin(10**15 if item.payload else 1)

    def refine(self, refiner: Any, loaded: Any) -> Any:
        return loaded

    def save(self, item: Item, refined: Any) -> Any:
        return Saved(result=item.key)
