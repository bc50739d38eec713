"""The masks of a photo's objects, however a library holds them, and the boxes and areas that belong to them."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ...errors import MaskError
from ...imaging.boxes import Box, mask_box
from ...imaging.coco_masks import decode_rle, encode_rle
from ...imaging.codecs.arrays import as_numpy
from ..refiner import Result
from .arrays import is_stack, like, plane, redrawn
from .photo_refinement import PhotoRefinement


@dataclass(frozen=True)
class MaskChange:
    """What became of one mask.

    Attributes:
        before: Box of the coarse mask; `None` where it is empty.
        after: Box of the refined mask.
        areas: Pixels before and after.
        is_changed: Whether any pixel has changed sides.
    """

    before: Box | None
    after: Box | None
    areas: tuple[int, int]
    is_changed: bool

    @classmethod
    def of(cls, coarse: NDArray[np.bool_], refined: NDArray[np.bool_]) -> "MaskChange":
        """Compare two masks `(H, W)` bool."""
        boxes = mask_box(torch.from_numpy(coarse)), mask_box(torch.from_numpy(refined))
        areas = int(np.count_nonzero(coarse)), int(np.count_nonzero(refined))
        return cls(*boxes, areas, not np.array_equal(coarse, refined))


def refined_stack(photo: PhotoRefinement, held: Any) -> tuple[Any, list[MaskChange]]:
    """Refines the masks of a photo's objects.

    Args:
        photo: What refines.
        held: `(N, H, W)`, `(N, 1, H, W)`, or `(N, K, H, W)` with K masks for each object, of which it is one: an array
            or tensor, or what holds one as `tensor` or `masks`; or a list of masks: arrays, Pillow images or RLE.

    Returns:
        The same kind, with what became of the (first) mask of each object.

    Raises:
        MaskError: It is none of these.
    """
    for name in ("tensor", "masks"):
        if not is_stack(held) and is_stack(getattr(held, name, None)):
            refined = copy.copy(held)
            inner, changes = refined_stack(photo, getattr(held, name))
            setattr(refined, name, inner)
            return refined, changes
    if is_stack(held):
        return _refined_array(photo, held)
    if isinstance(held, list | tuple):
        return _refined_list(photo, held)
    advice = "; turn polygons into bitmaps first" if "polygon" in type(held).__name__.lower() else ""
    raise MaskError(f"masks are a {type(held).__name__}: expected (N, H, W), or a list of masks{advice}")


def _refined_array(photo: PhotoRefinement, given: Any) -> tuple[Any, list[MaskChange]]:
    shape = tuple(given.shape)
    if len(shape) not in (3, 4):
        raise MaskError(f"masks have shape {shape}: expected (N, H, W) or (N, 1, H, W)")
    if 0 in shape:
        return given, []
    refined = np.zeros(shape, plane(given[0] if len(shape) == 3 else given[0, 0]).dtype)
    changes: list[MaskChange] = []
    # Several masks of one object are guesses, of which one will be taken: they do not compete for pixels.
    for guess in range(shape[1] if len(shape) == 4 else 1):
        of_guess: Any = (lambda i, k=guess: (i, k)) if len(shape) == 4 else (lambda i: i)
        found = []
        for i, (values, change) in enumerate(_each(photo, [given[of_guess(i)] for i in range(shape[0])])):
            refined[of_guess(i)] = values
            found.append(change)
        changes = changes or found
    return like(given, refined), changes


def _each(photo: PhotoRefinement, masks: Sequence[Any]) -> Iterator[tuple[NDArray[Any], MaskChange]]:
    """Each mask in the values that it had, and what became of it."""
    for given, (coarse, result) in zip(masks, photo.masks(plane(mask) for mask in masks), strict=True):
        change = MaskChange.of(coarse, result.mask)
        yield redrawn(plane(given), coarse, result.mask, result.probability), change


def _refined_list(photo: PhotoRefinement, held: list[Any] | tuple[Any, ...]) -> tuple[Any, list[MaskChange]]:
    refined, changes = [], []
    pairs = photo.masks(decoded(one) for one in held)
    for given, (coarse, result) in zip(held, pairs, strict=True):
        refined.append(encoded(given, coarse, result))
        changes.append(MaskChange.of(coarse, result.mask))
    return type(held)(refined), changes


def is_rle(value: object) -> bool:
    """Whether this is a run-length encoding, as COCO and SAM have it."""
    return isinstance(value, dict) and {"size", "counts"} <= value.keys()


def decoded(mask: Any) -> NDArray[Any]:
    """The values `(H, W)` of a mask: an array, a Pillow image or an RLE. Raises `MaskError`."""
    if isinstance(mask, dict):
        size = mask.get("size")
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise MaskError(f"a mask is a dict without its size: expected an RLE, with {['size', 'counts']}")
        return decode_rle(mask, (int(size[0]), int(size[1])))
    if isinstance(mask, Image.Image):
        return _grey(mask)
    return plane(mask)


def _grey(picture: Image.Image) -> NDArray[Any]:
    if picture.mode not in ("1", "L"):
        raise MaskError(f"a mask is a picture of mode {picture.mode}: expected L or 1, as pipelines give it")
    return np.array(picture)


def encoded(given: Any, coarse: NDArray[np.bool_], result: Result) -> Any:
    """A refined mask in the form of the given one, which comes back itself where no pixel has changed."""
    if np.array_equal(coarse, result.mask):
        return given
    if isinstance(given, dict):
        return encoded_rle(given, result.mask)
    if isinstance(given, Image.Image):
        return Image.fromarray(result.mask * np.uint8(255)).convert(given.mode)
    values = redrawn(plane(given), coarse, result.mask, result.probability)
    return like(given, values.reshape(given.shape) if hasattr(given, "shape") else values)


def encoded_rle(given: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask `(H, W)` bool as an RLE with counts of the given one's type."""
    counts = given["counts"]
    rle = encode_rle(mask, compressed=not isinstance(counts, list))
    return {**given, "counts": rle["counts"].encode() if isinstance(counts, bytes) else rle["counts"]}


def followed_boxes(boxes: Any, changes: Sequence[MaskChange]) -> Any:
    """The boxes of refined masks, where all boxes were those of the coarse masks; a detector's boxes stay.

    Args:
        boxes: `(N, 4)`, `x0, y0, x1, y1`, as an array, a tensor or what holds one as `tensor`; the far corner is the
            last pixel of the mask or the one behind it.
        changes: What became of each mask.
    """
    if not is_stack(boxes):
        if not is_stack(getattr(boxes, "tensor", None)):
            return boxes
        followed = copy.copy(boxes)
        followed.tensor = followed_boxes(boxes.tensor, changes)
        return boxes if followed.tensor is boxes.tensor else followed
    values = np.array(as_numpy(boxes))
    if values.shape != (len(changes), 4) or getattr(getattr(boxes, "format", None), "name", "XYXY") != "XYXY":
        return boxes
    for last in (1, 0):
        known = [i for i, change in enumerate(changes) if change.before]
        tight = np.array([_corners(changes[i].before, last) for i in known]).reshape(-1, 4)
        if known and np.array_equal(values[known], as_numpy(like(boxes, tight))):
            for i, change in enumerate(changes):
                if change.is_changed and change.after:
                    values[i] = _corners(change.after, last)
            return like(boxes, values)
    return boxes


def followed_areas(areas: Any, changes: Sequence[MaskChange]) -> Any:
    """The pixels of refined masks `(N,)`, where all areas were those of the coarse masks."""
    if getattr(areas, "shape", None) != (len(changes),):
        return areas
    before = as_numpy(like(areas, np.array([change.areas[0] for change in changes])))
    if not np.array_equal(as_numpy(areas), before):
        return areas
    return like(areas, np.array([change.areas[1] for change in changes]))


def _corners(box: Box | None, last: int) -> list[int]:
    assert box is not None
    return [box.x0, box.y0, box.x1 - last, box.y1 - last]
