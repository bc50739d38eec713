"""Arrays and tensors of any library to NumPy, without importing any of these libraries."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

_MARKS = ("__array__", "__array_interface__", "__cuda_array_interface__", "__dlpack__", "detach")


def is_array(source: object) -> bool:
    """Tell whether `as_numpy` may be able to read this: an array, a tensor, a buffer, or nested lists of numbers."""
    return isinstance(source, list | tuple | memoryview) or any(hasattr(source, name) for name in _MARKS)


def as_numpy(source: object) -> Array:
    """Copy or view the values of an array as a NumPy array in the machine's byte order.

    Args:
        source: A NumPy array; a torch tensor on any device, of any layout and dtype, with or without gradient; an
            array of CuPy, JAX or another library that NumPy can read; a memoryview; or nested lists of numbers.
            Float types that NumPy lacks, such as bfloat16, become float32, which holds their values exactly.

    Raises:
        Exception: Whatever the foreign library raises for values that it does not hand out.
    """
    if isinstance(source, list | tuple):
        values = np.asarray([as_numpy(one) if is_array(one) else one for one in source])
    elif hasattr(source, "detach") and hasattr(source, "cpu"):
        values = _from_torch(source)
    elif hasattr(source, "__cuda_array_interface__") and hasattr(source, "get"):
        values = np.asarray(source.get())
    elif not hasattr(source, "__array__") and hasattr(source, "__dlpack__"):
        values = np.from_dlpack(source)
    else:
        values = np.asarray(source)
    # Float types that other packages add to NumPy are of the kind V, with a name such as bfloat16.
    if values.dtype.kind == "V" and "float" in values.dtype.name:
        values = values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _from_torch(tensor: Any) -> Array:
    values = tensor.detach()
    if getattr(values, "is_quantized", False):
        values = values.dequantize()
    if hasattr(values, "to_dense"):
        values = values.to_dense()
    values = values.cpu()
    for pending in ("resolve_conj", "resolve_neg"):
        if hasattr(values, pending):
            values = getattr(values, pending)()
    try:
        return np.asarray(values.numpy())
    except TypeError:
        return np.asarray(values.float().numpy())
