"""What a refiner's calls ask for, checked, and their masks in groups of a size that memory holds."""

from collections.abc import Iterable, Iterator
from os import PathLike
from typing import Any

from torch import Tensor

from .errors import InputError
from .imaging.boxes import Box, whole_box
from .imaging.codecs.option_checks import listed_boxes, shown
from .imaging.reading import ImageSource, MaskSource, Photo
from .pipeline import Job

_GROUP = 64
_GROUP_PIXELS = 64_000_000
"""Masks that are refined together, at most, and pixels of them."""


def whole_boxes(boxes: Any, count: int, size: tuple[int, ...]) -> list[Box | None]:
    """The boxes of whole pixels around boxes, one for each of so many masks.

    Args:
        boxes: `(N, 4)` of any library, or N of four numbers each, `x0, y0, x1, y1` in pixels; `None` for none at all.
        count: N.
        size: `(height, width)` of the photo.

    Raises:
        InputError: They are not as described, or one lies outside of the photo.
    """
    if boxes is None:
        return [None] * count
    listed = listed_boxes(boxes)
    if len(listed) != count:
        raise InputError(f"{count} masks but {len(listed)} boxes: expected a box for each mask, or none at all")
    return [whole_box(box, size) for box in listed]


def triples(
    pairs: Iterable[tuple[ImageSource | Photo, MaskSource]],
) -> Iterator[tuple[ImageSource | Photo, MaskSource, Box | None]]:
    """The pairs without boxes. Raises `InputError` at what is no pair."""
    try:
        remaining = iter(pairs)
    except TypeError as error:
        raise InputError(
            f"pairs are {shown(pairs)}: expected photos with their masks, such as [(photo, mask)]"
        ) from error
    for index, pair in enumerate(remaining):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} is {shown(pair)}: expected a photo and its mask")
        yield pair[0], pair[1], None


def same_photo(image: ImageSource | Photo, source: ImageSource | Photo) -> bool:
    """Whether two photos are the same object or the same path; arrays would be compared pixel by pixel."""
    both_paths = isinstance(image, str | PathLike) and isinstance(source, str | PathLike)
    return image is source or (both_paths and image == source)


def next_group(jobs: Iterator[Job]) -> tuple[list[Job], Exception | None]:
    """The next jobs that are refined together: enough to fill batches, few enough for their results to fit.

    An error in making a job comes beside those before it, whose results shall not be lost.
    """
    group: list[Job] = []
    pixels = 0
    try:
        for job in jobs:
            group.append(job)
            pixels += job.mask.numel()
            if len(group) == _GROUP or pixels >= _GROUP_PIXELS:
                break
    except Exception as error:
        return group, error
    return group, None


def nothing_to_do(coarse: Tensor) -> str:
    """Why a mask `(H, W)` bool, on the CPU, comes back as it is, or an empty string."""
    values = coarse.numpy()
    if not values.any():
        return "the mask is empty: returned as it is"
    if values.all():
        return "the mask covers the whole photo: returned as it is"
    return ""
