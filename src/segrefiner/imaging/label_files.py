"""Label maps as files: 8 and 16 bit, with or without a palette, and COCO's panoptic ids in RGB."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MaskError, OutputError
from .codecs.interpretation import ids_of, labels_of
from .codecs.pictures import Encoded, Given, decode, describe
from .files import png_bytes, write_png
from .reading import MAX_PIXELS

LARGEST_ID = 256**3 - 1
"""Of a panoptic segment: its three bytes are the red, green and blue of its pixels, lowest first."""


@dataclass(frozen=True)
class LabelMap:
    """A label map as it is stored.

    Attributes:
        labels: `(H, W)` uint8 or uint16.
        palette: `(N, 3)` uint8, RGB, the colours in which the labels are shown, or `(N, 4)` RGBA where one of them is
            transparent; `None` for grey ones.
        mode: "1" for greys of one bit, "RGB" for greys in three equal channels, or else empty.
    """

    labels: NDArray[Any]
    palette: NDArray[np.uint8] | None = None
    mode: str = ""


def read_labels(source: Encoded, *, max_pixels: int = MAX_PIXELS) -> LabelMap:
    """Reads a label map; with a palette the labels are its indices, never the colours that show them.

    Args:
        source: A path, the bytes of a file, or a Pillow image: with a palette, or grey of 1, 8 or 16 bits, also where
            grey is stored as equal red, green and blue. The labels of one bit are 0 and 1.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.

    Raises:
        MaskError: It cannot be read, is too large, has colours instead of labels, is partly transparent, or is a JPEG,
            whose losses make labels that nobody gave.

    >>> from segrefiner.imaging.label_files import read_labels
    >>> labels = read_labels("labels.png").labels
    >>> labels.shape, np.unique(labels).tolist()
    ((96, 128), [0, 7, 255])
    """
    given = Given(describe("label map", source), MaskError)
    raster = decode(source, given, max_pixels)
    palette = raster.palette
    if palette is not None and (palette[:, 3] == 255).all():
        palette = np.ascontiguousarray(palette[:, :3])
    return LabelMap(labels_of(raster, given), palette, raster.mode if raster.mode in ("1", "RGB") else "")


def background_label(label_map: LabelMap) -> int:
    """Find the label of what is no object: what its palette shows as transparent, else in black, else 0."""
    palette = label_map.palette
    if palette is None:
        return 0
    used = np.unique(label_map.labels)
    used = used[used < len(palette)]
    colours = palette[used]
    if palette.shape[1] == 4 and not colours[:, 3].all():
        return int(used[colours[:, 3] == 0][0])
    black = used[~colours[:, :3].any(axis=1)]
    return int(black[0]) if len(black) and 0 not in black else 0


def write_labels(path: str | PathLike[str], label_map: LabelMap) -> None:
    """Writes a label map as PNG, as it was stored; raises `OutputError` where that is impossible."""
    pixels, bits = _stored(label_map)
    write_png(path, pixels, bits=bits, palette=_padded(label_map))


def labels_png(label_map: LabelMap) -> bytes:
    """The content of the file that `write_labels` would write."""
    pixels, bits = _stored(label_map)
    return png_bytes(pixels, bits=bits, palette=_padded(label_map))


def _stored(label_map: LabelMap) -> tuple[NDArray[Any], int]:
    """The pixels as they were stored, where that can hold the labels, and how many bits each has."""
    labels = label_map.labels
    if label_map.mode == "1" and labels.max() <= 1:
        return labels.astype(bool), 1
    if label_map.mode == "RGB" and labels.dtype == np.uint8:
        return np.stack([labels] * 3, axis=-1), 8
    return labels, 8


def _padded(label_map: LabelMap) -> NDArray[np.uint8] | None:
    """The palette with a colour for each label.

    A PNG of few colours has few bits per pixel, which would cut off the labels that have none, mostly 255.
    """
    if label_map.palette is None:
        return None
    lacking = max(0, int(label_map.labels.max()) + 1 - len(label_map.palette))
    more = np.zeros((lacking, label_map.palette.shape[1]), np.uint8)
    more[:, 3:] = 255
    return np.concatenate([label_map.palette, more])


def read_ids(source: Encoded) -> NDArray[np.int32]:
    """Reads the segment ids `(H, W)` of a panoptic PNG, `R + 256 G + 256² B`, with or without a palette.

    Raises:
        MaskError: It cannot be read, has no colours, is partly transparent, or is a JPEG.
    """
    given = Given(describe("panoptic map", source), MaskError)
    return ids_of(decode(source, given, MAX_PIXELS), given)


def write_ids(path: str | PathLike[str], ids: NDArray[np.int32]) -> None:
    """The inverse of `read_ids`. Raises `OutputError`, also for ids that three bytes cannot hold."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= LARGEST_ID:
        raise OutputError(f"ids from {ids.min()} to {ids.max()} cannot be colours: expected 0 to {LARGEST_ID}")
    write_png(path, np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8))
