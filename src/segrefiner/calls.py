"""What a refiner's calls ask for, checked, and their masks in groups of a size that memory holds."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from .diffusion import NUM_TIMESTEPS
from .errors import InputError
from .geometry import Box
from .pipeline import Job

_GROUP = 64
_GROUP_PIXELS = 64_000_000
"""Masks that are refined together, at most, and pixels of them."""


def check_options(seed: int, steps: int | None, max_shift: float | None, strength: float) -> None:
    """Raises `InputError` for what no call takes."""
    if steps is not None and (not isinstance(steps, int) or not 1 <= steps <= NUM_TIMESTEPS):
        raise InputError(f"steps is {steps!r}: expected a whole number from 1 to {NUM_TIMESTEPS}")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}: expected a whole number from 0 up")
    if not 0 <= strength <= 1:
        raise InputError(f"strength is {strength!r}: expected a number from 0 to 1")
    if max_shift is not None and not max_shift >= 0:
        raise InputError(f"max_shift is {max_shift!r}: expected a number of pixels, 0 or more")


def whole_box(values: Sequence[float], size: tuple[int, ...]) -> Box:
    """The box of whole pixels around `x0, y0, x1, y1`, inside a photo of this `(height, width)`."""
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"box is {values!r}: expected four numbers, x0, y0, x1, y1") from error
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise InputError(f"box is {x0:g}, {y0:g}, {x1:g}, {y1:g}: expected finite x0 < x1 and y0 < y1")
    box = Box(math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)).clip(size[0], size[1])
    if not (box.width and box.height):
        raise InputError(f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside of the photo of {size[1]}x{size[0]}")
    return box


def next_group(jobs: Iterator[Job]) -> list[Job]:
    """The next jobs that are refined together: enough to fill batches, few enough for their results to fit."""
    group: list[Job] = []
    pixels = 0
    for job in jobs:
        group.append(job)
        pixels += job.mask.numel()
        if len(group) == _GROUP or pixels >= _GROUP_PIXELS:
            break
    return group


def nothing_to_do(coarse: Tensor) -> str:
    """Why a mask `(H, W)` bool, on the CPU, comes back as it is, or an empty string."""
    values = coarse.numpy()
    if not values.any():
        return "the mask is empty: returned as it is"
    if values.all():
        return "the mask covers the whole photo: returned as it is"
    return ""
