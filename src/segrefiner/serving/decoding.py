"""What the server's decoding processes do: files to arrays, without PyTorch."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MaskError
from ..imaging.coco_masks import decode_rle
from ..imaging.codecs.decoder_process import within_limits
from ..imaging.codecs.pictures import Encoded
from ..imaging.label_files import read_labels
from ..imaging.reading import read_mask, read_photo


def photo(source: Encoded, max_pixels: int) -> tuple[Any, ...]:
    """As `reading.read_photo`, in parts."""
    return read_photo(source, max_pixels=max_pixels).parts()


def mask(source: Encoded, threshold: float | None, max_pixels: int) -> NDArray[np.bool_]:
    """As `reading.read_mask`."""
    return read_mask(source, threshold=threshold, max_pixels=max_pixels)


def labels(source: Encoded, max_pixels: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """As `label_files.read_labels`: labels, and their palette if there is one."""
    label_map = read_labels(source, max_pixels=max_pixels)
    return label_map.labels, label_map.palette


def encoded_masks(text: str, size: tuple[int, int], most: int) -> list[NDArray[np.bool_]] | int:
    """The masks of a COCO RLE or a list of them.

    Args:
        text: JSON.
        size: Height and width that they must have.
        most: How many are decoded.

    Returns:
        `(H, W)` bool each; how many there are, if they are more.

    Raises:
        MaskError: It is no JSON, or one of them is no encoding of a mask of this size.
    """
    with within_limits(most * size[0] * size[1]):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MaskError("rle is no JSON: expected a COCO RLE or a list of them") from error
        encodings = given if isinstance(given, list) else [given]
        if not encodings:
            raise MaskError("rle holds no encoding: expected one for each mask")
        if len(encodings) > most:
            return len(encodings)
        masks = []
        for number, one in enumerate(encodings, 1):
            try:
                masks.append(decode_rle(one, size))
            except MaskError as error:
                raise MaskError(
                    f"mask {number} of {len(encodings)}: {error}" if len(encodings) > 1 else str(error)
                ) from error
        return masks
