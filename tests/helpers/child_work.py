"""What tests let other processes do; it imports little, because each of them begins with that."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segrefiner.errors import ImageError, InputError
from segrefiner.imaging.codecs.decoder_process import within_limits
from segrefiner.imaging.files import atomic_write
from segrefiner.imaging.reading import read_image
from segrefiner.jobs.job import Item, SavedItem, written

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
        return SavedItem(result=item.key)


@dataclass(frozen=True)
class ReversingWork:
    """Texts backwards. An item's payload says what goes wrong; what is refined, and by which process, is logged."""

    root: Path

    def settings(self) -> dict[str, Any]:
        return {}

    def load(self, item: Item, contents: Sequence[bytes]) -> tuple[str, Any, bytes]:
        if item.payload == "bad":
            raise InputError("no\ntext")
        if item.payload == "spinning":
            spin(10**15)
        return item.key, item.payload, contents[0]

    def refine(self, refiner: Any, loaded: tuple[str, Any, bytes]) -> bytes:
        from segrefiner import Refiner

        key, payload, content = loaded
        assert isinstance(refiner, Refiner)
        with open(self.root / "log", "a", encoding="utf-8") as log:
            log.write(f"{key} {os.getpid()} {os.environ.get('OMP_WAIT_POLICY')}\n")
        if payload == "deadly":
            os._exit(1)
        if payload == "deadly once" and not (self.root / "died").exists():
            (self.root / "died").touch()
            os._exit(1)
        time.sleep(0.05)
        return content[::-1]

    def save(self, item: Item, refined: bytes) -> SavedItem:
        target = self.root / item.key
        atomic_write(target, lambda stream: stream.write(refined))
        return SavedItem(written(self.root, [target]), refined.decode(), notes=("a note",))
