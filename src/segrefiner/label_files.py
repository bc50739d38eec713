"""Label maps as files: 8 and 16 bit, with or without a palette, and COCO's panoptic ids in RGB."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import MaskError, OutputError
from .io import MAX_PIXELS
from .output import png_bytes, write_png
from .pictures import Encoded, Given, decode, describe

LARGEST_ID = 256**3 - 1
"""Of a panoptic segment: its three bytes are the red, green and blue of its pixels, lowest first."""


@dataclass(frozen=True)
class LabelMap:
    """A label map as it is stored.

    Attributes:
        labels: `(H, W)` uint8 or uint16.
        palette: `(N, 3)` uint8, RGB, the colours in which the labels are shown; `None` for grey ones.
    """

    labels: NDArray[Any]
    palette: NDArray[np.uint8] | None = None


def read_labels(source: Encoded) -> LabelMap:
    """Reads a label map; the values are what is stored, never the colours of a palette.

    Args:
        source: A path, the bytes of a file, or a Pillow image, of mode P, L, 1 or 16 bit grey.

    Raises:
        MaskError: It cannot be read, or has colours instead of labels.
    """
    given = Given(describe("label map", source), MaskError)
    palette: list[NDArray[np.uint8]] = []

    def values(picture: Image.Image) -> NDArray[Any]:
        if picture.mode == "P":
            palette.append(np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3))
            return np.asarray(picture)
        if picture.mode in ("L", "1") or picture.mode.startswith("I"):
            return np.asarray(picture)
        raise given.refuse(
            f"has mode {picture.mode}, expected labels as one number per pixel (8 or 16 bit grey, or a palette)"
        )

    labels = decode(source, given, MAX_PIXELS, values)
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    if labels.dtype not in (np.uint8, np.uint16):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > 65535:
            raise given.refuse(f"has labels from {low} to {high}, expected 0 to 65535")
        labels = labels.astype(np.uint16)
    return LabelMap(np.ascontiguousarray(labels), palette[0] if palette else None)


def write_labels(path: str | PathLike[str], label_map: LabelMap) -> None:
    """Writes a label map as PNG, as it was stored; raises `OutputError` where that is impossible."""
    write_png(path, label_map.labels, palette=_padded(label_map))


def labels_png(label_map: LabelMap) -> bytes:
    """The content of the file that `write_labels` would write."""
    return png_bytes(label_map.labels, palette=_padded(label_map))


def _padded(label_map: LabelMap) -> NDArray[np.uint8] | None:
    """The palette with a colour for each label.

    A PNG of few colours has few bits per pixel, which would cut off the labels that have none, mostly 255.
    """
    if label_map.palette is None:
        return None
    lacking = int(label_map.labels.max()) + 1 - len(label_map.palette)
    return np.pad(label_map.palette, ((0, max(0, lacking)), (0, 0)))


def read_ids(source: Encoded) -> NDArray[np.int32]:
    """Reads the segment ids `(H, W)` of a panoptic PNG, `R + 256 G + 256² B`. Raises `MaskError` for other pictures."""
    given = Given(describe("panoptic map", source), MaskError)

    def values(picture: Image.Image) -> NDArray[Any]:
        if picture.mode not in ("RGB", "RGBA"):
            raise given.refuse(f"has mode {picture.mode}, expected RGB, whose three bytes are the segment's id")
        return np.asarray(picture)[..., :3]

    red, green, blue = np.moveaxis(decode(source, given, MAX_PIXELS, values).astype(np.int32), -1, 0)
    return np.asarray(red + 256 * green + 65536 * blue, np.int32)


def write_ids(path: str | PathLike[str], ids: NDArray[np.int32]) -> None:
    """The inverse of `read_ids`. Raises `OutputError`, also for ids that three bytes cannot hold."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= LARGEST_ID:
        raise OutputError(f"ids from {ids.min()} to {ids.max()} cannot be colours: expected 0 to {LARGEST_ID}")
    write_png(path, np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8))
