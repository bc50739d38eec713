"""What a refinement may be asked for: options of the right kind and in their range, for every door alike."""

import math
import numbers
from decimal import Decimal
from typing import Any

import numpy as np

from ...errors import InputError
from .arrays import as_numpy

MAX_STEPS = 6
"""Diffusion steps of the published schedule."""
MAX_SEED = 2**63 - 1


def whole_number(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Check a whole number.

    Args:
        name: Of the option, for the message.
        value: An integer of Python or NumPy, or an array or tensor that holds one and nothing else.
        low: The smallest that is allowed; by default any.
        high: The largest that is allowed; by default any.

    Raises:
        InputError: It is no whole number, is a bool, or lies outside.
    """
    number = _scalar(value)
    if isinstance(number, numbers.Integral):
        whole = int(number)
        if (low is None or low <= whole) and (high is None or whole <= high):
            return whole
    bounds = "" if low is None else f" from {low} up" if high in (None, MAX_SEED) else f" from {low} to {high}"
    raise InputError(f"{name} is {shown(value)}: expected a whole number{bounds}")


def real_number(
    name: str, value: object, low: float, high: float = math.inf, *, expected: str, below: bool = False
) -> float:
    """Check a real number.

    Args:
        name: Of the option, for the message.
        value: A real number of Python or NumPy, or an array or tensor that holds one and nothing else.
        low: The smallest that is allowed.
        high: The largest that is allowed.
        expected: What is expected, for the message.
        below: Whether `high` itself is not allowed.

    Raises:
        InputError: It is no real number, is a bool or NaN, or lies outside.
    """
    number = _scalar(value)
    try:
        real = float(number) if isinstance(number, numbers.Real | Decimal) else math.nan
    except OverflowError:
        real = math.nan
    if low <= real <= high and not (below and real == high):
        return real
    raise InputError(f"{name} is {shown(value)}: expected {expected}")


def listed_boxes(boxes: Any) -> list[Any]:
    """List boxes `(N, 4)` of any library, box by box, as numbers of Python. Raises `InputError` for what are none."""
    try:
        return [as_numpy(box).tolist() for box in (as_numpy(boxes) if hasattr(boxes, "dtype") else boxes)]
    except Exception as error:  # Whatever a foreign library raises.
        raise InputError(f"boxes are {shown(boxes)}: expected four numbers for each mask") from error


def finite_number(name: str, value: object) -> float:
    """Check a number of any size, such as a threshold; the arguments and the error are those of `real_number`."""
    number = real_number(name, value, -math.inf, expected="a finite number")
    if not math.isfinite(number):
        raise InputError(f"{name} is {shown(value)}: expected a finite number")
    return number


def shown(value: object) -> str:
    """Show a value in a message: on one line, and not all of a long one."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # Python refuses to spell out whole numbers of thousands of digits; others may raise anything.
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."


def _scalar(value: object) -> object:
    """Take a number out of NumPy or of an array of no dimensions; what is no number, and bools, become None."""
    if hasattr(value, "dtype"):
        try:
            array = as_numpy(value)
        except Exception:
            return None
        value = array.item() if array.ndim == 0 else None
    return None if isinstance(value, bool | np.bool_) else value
