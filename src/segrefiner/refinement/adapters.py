"""What other libraries found in a photo, with refined masks.

They are told by their shape, so that none of them is imported or needs to be installed.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError, MaskError
from ..imaging.boxes import mask_box
from ..imaging.codecs.arrays import as_numpy
from ..imaging.ops import resize
from ..imaging.reading import ImageSource, MaskSource
from .refiner import Refiner, Result

Outputs = TypeVar("Outputs")

_SUPPORTED = (
    "supervision Detections, ultralytics Results, the list of an image-segmentation pipeline of transformers, "
    "or the dict of its post_process_instance_segmentation or post_process_panoptic_segmentation"
)

_NO_IMAGE = "image is None: give the photo in which the masks were found"


def refine_outputs(refiner: Refiner, image: ImageSource | None, outputs: Outputs, **options: Any) -> Outputs:
    """Refines all masks that another library found in one photo, in shared batches.

    Refined masks overlap at most where those found do; see `instances.separate`.

    Args:
        refiner: Refines the masks.
        image: The photo; see `reading.read_image`. It may be `None` for ultralytics, whose results hold theirs.
        outputs: What was found in this one photo:

            - `supervision.Detections`: `mask` is refined, and `xyxy` is the box of the refined mask, whose far corner
              is the last pixel inside, as `sv.mask_to_xyxy` has it. The box of a mask that became empty stays.
            - ultralytics `Results`: `masks` are refined at the photo's size, also where the network's size and its
              padding were left in them. The boxes stay what the detector said.
            - The list of an image-segmentation pipeline of transformers: each `mask` is refined.
            - The dict of `post_process_instance_segmentation` or `post_process_panoptic_segmentation` of transformers,
              made with `target_sizes`: `segmentation` is refined, segment by segment. Where refined segments overlap,
              the more probable one gets the pixel, or of equally probable ones the one that had it. What no segment
              claims any more belongs to none, and segments that are not in `segments_info` are not refined. With
              `return_binary_maps`, segments may overlap.
        options: As for `Refiner.many`: `seed`, `steps`, `threshold`, `max_shift`, `strength`, `on_progress`.

    Returns:
        A copy of the same kind, with arrays of the same library, type and device. What was not refined is shared with
        `outputs`, and `outputs` itself comes back where it has no masks.

    Raises:
        InputError: `outputs` is none of these, the photo is missing, or as `Refiner.many` does.

    >>> from PIL import Image
    >>> found = [{"label": "cat", "score": 0.9, "mask": Image.open("coarse.png")}]  # As of a pipeline of transformers.
    >>> refined = refine_outputs(refiner, "photo.jpg", found)
    >>> refined[0]["label"], refined[0]["mask"].size
    ('cat', (128, 96))
    """
    kind: Any = outputs
    refined: Any
    if isinstance(kind, list) and all(_is_entry(entry) for entry in kind):
        refined = _entries(refiner, image, kind, options)
    elif isinstance(kind, dict) and {"segmentation", "segments_info"} <= kind.keys():
        refined = _segments(refiner, image, kind, options)
    elif all(hasattr(kind, name) for name in ("masks", "orig_img", "update")):
        refined = _results(refiner, image, kind, options)
    elif all(hasattr(kind, name) for name in ("mask", "xyxy")):
        refined = _detections(refiner, image, kind, options)
    else:
        advice = "; give the outputs of one photo, such as outputs[0]" if isinstance(kind, list | tuple) else ""
        raise InputError(f"outputs is a {type(kind).__name__}: expected {_SUPPORTED}{advice}")
    return cast(Outputs, refined)


def _refine(
    refiner: Refiner, image: ImageSource | None, masks: Iterable[MaskSource], options: dict[str, Any]
) -> Iterator[Result]:
    if image is None:
        raise InputError(_NO_IMAGE)
    return refiner.instances(image, masks, separate=True, **options)


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("mask"), Image.Image)


def _entries(
    refiner: Refiner, image: ImageSource | None, entries: list[dict[str, Any]], options: dict[str, Any]
) -> list[dict[str, Any]]:
    if not entries:
        return entries
    results = _refine(refiner, image, (entry["mask"] for entry in entries), options)
    return [
        {**entry, "mask": Image.fromarray(result.mask * np.uint8(255)).convert(entry["mask"].mode)}
        for entry, result in zip(entries, results, strict=True)
    ]


def _detections(refiner: Refiner, image: ImageSource | None, detections: Any, options: dict[str, Any]) -> Any:
    given = detections.mask
    if given is None or not len(given):
        return detections
    masks = np.zeros(given.shape, bool)
    boxes = np.array(as_numpy(detections.xyxy))
    # One by one, because supervision can keep masks in a packed form, of which a whole stack is much larger.
    for i, result in enumerate(_refine(refiner, image, (given[i] for i in range(len(given))), options)):
        masks[i] = result.mask
        box = mask_box(torch.from_numpy(result.mask))
        if box:
            boxes[i] = box.x0, box.y0, box.x1 - 1, box.y1 - 1
    refined = copy.copy(detections)
    refined.xyxy = boxes
    packed = getattr(type(given), "from_dense", None)
    refined.mask = packed(masks, boxes, image_shape=masks.shape[1:]) if packed else masks
    return refined


def _results(refiner: Refiner, image: ImageSource | None, results: Any, options: dict[str, Any]) -> Any:
    if results.masks is None or not len(results.masks.data):
        return results
    if image is None:
        blue_first = results.orig_img
        image = np.ascontiguousarray(blue_first[..., ::-1]) if blue_first.shape[-1] == 3 else blue_first
    given = results.masks.data
    height, width = results.masks.orig_shape[:2]
    whole = (_without_letterbox(torch.from_numpy(as_numpy(mask)), height, width) for mask in given)
    masks = np.zeros((len(given), height, width), bool)
    for i, result in enumerate(_refine(refiner, image, whole, options)):
        masks[i] = result.mask
    refined = copy.copy(results)
    refined.update(masks=_like(given, masks))
    return refined


def _without_letterbox(mask: torch.Tensor, height: int, width: int) -> NDArray[np.bool_]:
    """A mask `(h, w)` at the network's size as one of a photo of this size.

    The network saw the photo at the largest size that fits, in the middle; of an odd rest, the larger half of the
    padding is below or on the right.
    """
    rows, columns = mask.shape
    values = mask.float()
    if (rows, columns) != (height, width):
        scale = min(rows / height, columns / width)
        inner_rows, inner_columns = max(round(height * scale), 1), max(round(width * scale), 1)
        top, left = (rows - inner_rows) // 2, (columns - inner_columns) // 2
        values = resize(values[None, top : top + inner_rows, left : left + inner_columns], height, width)[0]
    return np.asarray(values >= 0.5)


def _segments(
    refiner: Refiner, image: ImageSource | None, found: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    given = found["segmentation"]
    if given is None or not found["segments_info"]:
        return found
    if not hasattr(given, "ndim") or given.ndim not in (2, 3):
        raise MaskError("segmentation is not (H, W) or (N, H, W): call the post-processing without RLE")
    values = as_numpy(given)
    if values.ndim == 3:
        refined = np.zeros(values.shape, bool)
        for i, result in enumerate(_refine(refiner, image, (one != 0 for one in values), options)):
            refined[i] = result.mask
    else:
        # Segments of one kind that were fused are listed each, under one id.
        ids = list(dict.fromkeys(segment["id"] for segment in found["segments_info"]))
        if image is None:
            raise InputError(_NO_IMAGE)
        # Whoever is the most probable gets a pixel, whoever had it: that separates them already.
        results = refiner.many(((image, values == one) for one in ids), **options)
        refined = _most_probable(values, ids, results)
    changed = copy.copy(found)
    changed["segmentation"] = _like(given, refined)
    return changed


def _most_probable(before: NDArray[Any], ids: list[int], results: Iterable[Result]) -> NDArray[Any]:
    """The id map `(H, W)` in which each pixel belongs to the most probable of the refined segments that claim it."""
    # Some post-processings count from 1 and leave 0 for nothing, others count from 0 and leave -1.
    nothing = -1 if 0 in ids or (before == -1).any() else 0
    # Segments that are not listed stay, as they do where somebody has filtered the list.
    after = np.where(np.isin(before, ids), np.array(nothing, before.dtype), before)
    best = np.zeros(before.shape, np.float32)
    for one, result in zip(ids, results, strict=True):
        probability = result.probability
        wins = result.mask & ((probability > best) | ((probability == best) & (before == one)))
        after[wins], best[wins] = one, probability[wins]
    return after


def _like(given: Any, values: NDArray[Any]) -> Any:
    """The values as an array of the library, type and device of the one given."""
    return torch.from_numpy(values).to(given) if isinstance(given, torch.Tensor) else values.astype(given.dtype)
