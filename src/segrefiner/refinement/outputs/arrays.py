"""Foreign arrays of masks: one mask at a time as NumPy, and back as the same library, type and device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import MaskError
from ...imaging.codecs.arrays import as_numpy, is_array
from ...imaging.codecs.interpretation import is_within_unit, span

_BELOW, _ABOVE = 0.498, 0.504
"""What no probability lies between that is given back: 16 bits round it to neither side of one half."""


def is_stack(value: object) -> bool:
    """Whether this is an array or tensor with rows and columns, not a list."""
    return is_array(value) and not isinstance(value, list | tuple) and getattr(value, "ndim", 0) >= 2


def size_of(value: Any) -> tuple[int, int]:
    """Rows and columns of a foreign array."""
    return int(value.shape[-2]), int(value.shape[-1])


def names_of_planes(fields: Mapping[str, Any], size: tuple[int, int]) -> set[str]:
    """The names of arrays with so many rows and columns."""
    return {name for name, value in fields.items() if is_stack(value) and size_of(value) == size}


def like(given: Any, values: NDArray[Any]) -> Any:
    """The values as an array of the library, kind, type and device of the one given."""
    if isinstance(given, torch.Tensor):
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(given.device, given.dtype)
        if type(given) is torch.Tensor or given.shape != tensor.shape:
            return tensor
        # A subclass, such as torchvision's boxes, carries more than its values.
        filled = given.detach().clone()
        filled.copy_(tensor)
        return filled
    if isinstance(given, np.ndarray) or not hasattr(given, "__array_namespace__"):
        return values.astype(given.dtype)
    # CuPy, JAX and others follow the array API.
    return given.__array_namespace__().asarray(values, dtype=given.dtype, device=given.device)


def plane(values: Any) -> NDArray[Any]:
    """The values `(H, W)` of one mask as another library gives it.

    Raises:
        MaskError: It is no `(H, W)`, or holds the logits of a network.
    """
    array = as_numpy(values)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise MaskError(f"a mask has shape {array.shape}: expected (H, W); give one mask for each object")
    if array.dtype.kind == "f" and array.size and not (is_within_unit(array) or _is_bytes(array)):
        raise MaskError(
            f"a mask has values of {span(array)}: expected masks, or probabilities in [0, 1]; of logits, give "
            "masks > 0, or their sigmoid"
        )
    return array


def _is_bytes(values: NDArray[Any]) -> bool:
    return bool(np.isin(values, (0, 255)).all())


def redrawn(
    before: NDArray[Any], coarse: NDArray[np.bool_], mask: NDArray[np.bool_], probability: NDArray[np.float32]
) -> NDArray[Any]:
    """A refined mask in the values of the coarse one; the same array where no pixel has changed sides.

    Args:
        before: `(H, W)`, the mask as it was given.
        coarse: `(H, W)` bool, what it means.
        mask: `(H, W)` bool, refined.
        probability: `(H, W)` float32 in [0, 1], for a mask of probabilities.
    """
    if (mask == coarse).all():
        return before
    if before.dtype.kind == "f" and not np.isin(before, (0, 1, 255)).all():
        sided = np.where(mask, np.maximum(probability, _ABOVE), np.minimum(probability, _BELOW))
        return sided.astype(before.dtype)
    inside = before.max() if coarse.any() else 1
    return np.where(mask, inside, 0).astype(before.dtype)
