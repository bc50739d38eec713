"""The classes of other libraries: supervision, ultralytics, detectron2 and OpenMMLab."""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InputError
from ...imaging.boxes import mask_box
from ...imaging.codecs.arrays import as_numpy
from ...imaging.label_conventions import VOID
from ...imaging.ops import resize
from .arrays import is_stack, like, names_of_planes, size_of
from .maps import refined_labels
from .notes import note_left, note_nothing
from .photo_refinement import PhotoRefinement
from .stacks import followed_boxes, refined_stack

_BOXES = ("pred_boxes", "gt_boxes", "bboxes")
"""Fields that hold boxes which may be those of the masks."""


def refined_detections(photo: PhotoRefinement, detections: Any) -> Any:
    """Supervision's `Detections`."""
    given = detections.mask
    if given is None or not len(given):
        note_nothing("masks" if len(detections.xyxy) else "")
        return detections
    masks = np.zeros(given.shape, bool)
    boxes = np.array(as_numpy(detections.xyxy))
    # One by one, because supervision can keep masks in a packed form, of which a whole stack is much larger.
    for i, (_, result) in enumerate(photo.masks(given[i] for i in range(len(given)))):
        masks[i] = result.mask
        box = mask_box(torch.from_numpy(result.mask))
        if box:
            boxes[i] = box.x0, box.y0, box.x1 - 1, box.y1 - 1
    refined = copy.copy(detections)
    refined.xyxy = boxes
    packed = getattr(type(given), "from_dense", None)
    refined.mask = packed(masks, boxes, image_shape=masks.shape[1:]) if packed else like(given, masks)
    return refined


def refined_results(photo: PhotoRefinement, results: Any) -> Any:
    """Ultralytics' `Results`, of instances, of semantic segmentation, or of both."""
    semantic = getattr(results, "semantic_mask", None)
    has_masks = results.masks is not None and len(results.masks.data) > 0
    if not has_masks and semantic is None:
        note_nothing("masks" if _found_something(results) else "")
        return results
    if photo.image is None:
        blue_first = results.orig_img
        image = np.ascontiguousarray(blue_first[..., ::-1]) if blue_first.shape[-1] == 3 else blue_first
        photo = PhotoRefinement(photo.refiner, image, photo.options, photo.ignore)
    refined = copy.copy(results)
    if has_masks:
        refined.update(masks=_refined_letterboxed(photo, results.masks))
    if semantic is not None:
        # Classes that were not asked for are 255 there.
        refined.update(semantic_mask=refined_labels(photo, semantic.data, (VOID,)))
    if getattr(results, "depth", None) is not None:
        note_left(["depth"])
    return refined


def _found_something(results: Any) -> bool:
    parts = (getattr(results, name, None) for name in ("boxes", "obb", "keypoints", "probs", "depth"))
    return any(part is not None and len(part) > 0 for part in parts)


def _refined_letterboxed(photo: PhotoRefinement, held: Any) -> Any:
    given = held.data
    height, width = held.orig_shape[:2]
    whole = (_without_letterbox(torch.from_numpy(as_numpy(mask)), height, width) for mask in given)
    masks = np.zeros((len(given), height, width), bool)
    for i, (_, result) in enumerate(photo.masks(whole)):
        masks[i] = result.mask
    return like(given, masks)


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


def refined_instances(photo: PhotoRefinement, instances: Any) -> Any:
    """Detectron2's `Instances`, with `pred_masks` or `gt_masks`."""
    fields = instances.get_fields()
    names = [name for name in ("pred_masks", "gt_masks") if name in fields]
    if not names:
        note_nothing("pred_masks" if len(fields) and len(instances) else "")
        return instances
    refined = type(instances)(instances.image_size)
    for name, value in fields.items():
        refined.set(name, value)
    if len(instances):
        _refine_fields(photo, fields, names[0], refined.set, instances.image_size)
    return refined


def refined_element(photo: PhotoRefinement, element: Any) -> Any:
    """A data element of OpenMMLab: `DetDataSample`, `SegDataSample`, `InstanceData` or `PixelData`.

    Of a sample, predictions are refined, or the ground truth where there are none.
    """
    fields = dict(element.items())
    refined = element.clone()
    if "masks" in fields:
        if len(element):
            _refine_fields(photo, fields, "masks", lambda name, value: setattr(refined, name, value))
        return refined
    nested = {name: value for name, value in fields.items() if is_element(value) and _has_masks(value)}
    if nested:
        predicted = [name for name in nested if name.startswith("pred")] or list(nested)
        for name in predicted:
            setattr(refined, name, refined_element(photo, nested[name]))
        note_left(nested.keys() - set(predicted))
        return refined
    maps = [name for name in ("sem_seg", "data") if is_stack(fields.get(name))]
    if not maps:
        note_nothing("masks" if fields else "")
        return element
    for name in maps:
        setattr(refined, name, refined_labels(photo, fields[name]))
    note_left(names_of_planes(fields, size_of(fields[maps[0]])) - set(maps))
    return refined


def is_element(value: object) -> bool:
    """Whether this is a data element of OpenMMLab."""
    return all(hasattr(value, name) for name in ("metainfo_items", "set_field", "clone", "items"))


def _has_masks(element: Any) -> bool:
    return any(name in element for name in ("masks", "sem_seg", "data"))


def _refine_fields(
    photo: PhotoRefinement, fields: dict[str, Any], name: str, put: Any, size: tuple[int, int] | None = None
) -> None:
    """Puts the refined masks of a field, and boxes that were theirs."""
    masks = fields[name]
    if size is not None and is_stack(masks) and size_of(masks) != tuple(size):
        raise InputError(
            f"{name} has shape {tuple(masks.shape)} of a photo of {tuple(size)} (height, width): "
            "paste the masks into the photo first, with detectron2's detector_postprocess"
        )
    refined, changes = refined_stack(photo, masks)
    put(name, refined)
    for box in _BOXES:
        if box in fields and (followed := followed_boxes(fields[box], changes)) is not fields[box]:
            put(box, followed)
    known = {name, *_BOXES}
    if is_stack(masks):
        note_left(names_of_planes(fields, size_of(masks)) - known)
