"""What the tests of the server share: a tiny model, a small photo with a mask, forms, and a refiner to be stopped."""

import io
import threading
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from helpers.tiny import TINY
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.refiner import Refiner, Result
from segrefiner.refinement.report import Report

HEIGHT, WIDTH = 48, 64
PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[10:30, 15:45] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[20:44, 5:30] = True
REPORT = Report(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, {}, 0.0, 0, 1, "stub", 0)


def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny", steps=2)


def encoded(array: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format, **options)
    return stream.getvalue()


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def form(*masks: bytes, image: bytes | None = None) -> list[tuple[str, tuple[str, bytes]]]:
    """Files of a request: a photo and its masks."""
    given = masks or (encoded(MASK),)
    return [("image", ("a.jpg", image or encoded(PHOTO))), *(("mask", (f"{i}.png", m)) for i, m in enumerate(given))]


def header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and ends soon after."""
    small = encoded(np.zeros((1, 1), np.uint8))
    claimed = small[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[24:29]
    return claimed + zlib.crc32(claimed[12:29]).to_bytes(4, "big") + small[33:]


class Stub:
    """In place of a refiner: gives masks back as they are, once it is let, and remembers what it was asked at once.

    A call waits for the `let` that was there when it began.
    """

    def __init__(self) -> None:
        self.steps = 1
        self.calls: list[int] = []
        self.options: list[dict[str, Any]] = []
        self.begun, self.let = threading.Event(), threading.Event()
        self.faulty: np.ndarray | None = None

    def many(self, pairs: Any, *, on_progress: Any, **options: Any) -> Iterator[Result]:
        masks = [mask for _, mask in pairs]
        self.calls.append(len(masks))
        self.options.append(options)
        gate = self.let
        self.begun.set()
        while not gate.wait(0.01):
            on_progress(SimpleNamespace())
        for mask in masks:
            if self.faulty is not None and mask.shape == self.faulty.shape and (mask == self.faulty).all():
                raise RuntimeError("this mask is poison")
            yield Result(mask, mask.astype(np.float32), REPORT)
