"""Signed distances to a mask's contour, and how packs of training photos hold them in a byte."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

DISTANCE_RANGE = 64.0


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance `(H, W)` float32 in pixels of every pixel centre to the mask's contour, positive inside.

    Without a contour it is infinite: positive for a full mask, negative for an empty one.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, math.inf if mask.any() else -math.inf, np.float32)
    inside = distance_transform_edt(mask) - 0.5
    outside = distance_transform_edt(~mask) - 0.5
    return np.where(mask, inside, -outside).astype(np.float32)


def encode_distance(distance: NDArray[np.float32], reach: float = DISTANCE_RANGE) -> NDArray[np.uint8]:
    """Signed distance → uint8, companded by a square root so that it is finest at the contour; saturates at ±reach."""
    companded = np.sign(distance) * np.sqrt(np.minimum(np.abs(distance), reach) / reach)
    return np.clip(np.round(128 + 127 * companded), 1, 255).astype(np.uint8)


def decode_distance(encoded: Tensor, reach: float = DISTANCE_RANGE) -> Tensor:
    """The inverse of `encode_distance` for a float tensor of any shape."""
    companded = (encoded - 128) / 127
    return reach * companded * companded.abs()


def distance_reach(size: int) -> float:
    """Where the distances of photos of this long side saturate, in pixels."""
    return max(DISTANCE_RANGE, size / 6)
