"""What the server's decoding processes do: files to arrays, without PyTorch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .io import read_image, read_mask
from .label_files import read_labels
from .pictures import Encoded


def photo(source: Encoded, max_pixels: int) -> NDArray[np.uint8]:
    """As `io.read_image`."""
    return read_image(source, max_pixels=max_pixels)


def mask(source: Encoded, threshold: float | None, max_pixels: int) -> NDArray[np.bool_]:
    """As `io.read_mask`."""
    return read_mask(source, threshold=threshold, max_pixels=max_pixels)


def labels(source: Encoded, max_pixels: int) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """As `label_files.read_labels`: labels, and their palette if there is one."""
    label_map = read_labels(source, max_pixels=max_pixels)
    return label_map.labels, label_map.palette
