"""What a metric takes as a mask, and what it says of anything else."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import MaskError, SizeMismatchError
from ..imaging.codecs.arrays import as_numpy

Mask: TypeAlias = npt.NDArray[np.bool_]
MaskLike: TypeAlias = npt.NDArray[Any]


def binary_pair(pred: MaskLike, truth: MaskLike) -> tuple[Mask, Mask]:
    """Both masks as `(H, W)` bool arrays of one size, or an error that says what is wrong.

    Args:
        pred: `(H, W)`; bool, or numbers that are all 0 or 1, or all 0 or 255.
        truth: The same.

    Returns:
        `(pred, truth)`, bool; views where the input was bool already.

    Raises:
        MaskError: A mask is not a binary `(H, W)` array.
        SizeMismatchError: The sizes differ.
    """
    pred, truth = binary_mask(pred, "prediction"), binary_mask(truth, "truth")
    check_same_size(pred, truth)
    return pred, truth


def binary_mask(mask: MaskLike, name: str) -> Mask:
    """One mask as an `(H, W)` bool array.

    Args:
        mask: `(H, W)`; bool, or numbers that are all 0 or 1, or all 0 or 255.
        name: What the error calls it.

    Raises:
        MaskError: It is not a binary `(H, W)` array with at least one pixel.
    """
    mask = as_numpy(mask)
    check_plane(mask, name)
    if mask.dtype == np.bool_:
        return mask
    top = mask.max()
    truthy: Mask = mask == top
    if top == 0:
        truthy = np.zeros(mask.shape, np.bool_)
    if top not in (0, 1, 255) or not (truthy | (mask == 0)).all():
        raise MaskError(
            f"{name} holds {mask.dtype} values from {mask.min():.6g} to {top:.6g} that are not "
            "all 0 or 1, nor all 0 or 255: this metric is defined for binary masks, so threshold it first"
        )
    return truthy


def check_plane(array: MaskLike, name: str) -> None:
    """Raise MaskError unless the array is `(H, W)`, of bool or real numbers, with at least one pixel."""
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "buif":
        raise MaskError(
            f"{name} has shape {array.shape} and dtype {array.dtype}: expected one (H, W) array of bool or numbers"
        )


def check_same_size(pred: MaskLike, truth: MaskLike) -> None:
    """Raise SizeMismatchError unless the two `(H, W)` arrays have one size."""
    if pred.shape != truth.shape:
        (height, width), (true_height, true_width) = pred.shape, truth.shape
        raise SizeMismatchError(
            f"prediction is {width}x{height} but truth is {true_width}x{true_height} (width x height): "
            "metrics compare pixel by pixel, so resize the prediction to the truth's size"
        )
