"""Dicts of transformers, torchvision, SAM and detectron2."""

import copy
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .arrays import is_stack, like, names_of_planes, plane, size_of
from .libraries import refined_instances
from .maps import is_label_map, refined_labels, refined_panoptic, refined_segments, segment_ids
from .notes import note_left
from .photo_refinement import PhotoRefinement
from .stacks import MaskChange, decoded, encoded, encoded_rle, followed_areas, followed_boxes, refined_stack

_RAW = ("pred_masks", "masks_queries_logits", "logits", "semantic_seg", "class_queries_logits")
"""Of what networks of transformers give before it is post-processed."""


def is_record(value: object) -> bool:
    """Whether this is a dict with one mask, of many in one photo: of a pipeline, or of SAM's automatic masks."""
    if not isinstance(value, Mapping):
        return False
    return "mask" in value or ("segmentation" in value and "segments_info" not in value and not _is_semantic(value))


def _is_semantic(value: Mapping[str, Any]) -> bool:
    return "segmentation_scores" in value or ("area" not in value and is_label_map(value["segmentation"]))


def refined_records(photo: PhotoRefinement, records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The dicts of a photo's masks, each as `mask` or `segmentation`; of SAM's, area and box follow the mask."""
    names = ["mask" if "mask" in record else "segmentation" for record in records]
    masks = photo.masks(decoded(record[name]) for record, name in zip(records, names, strict=True))
    refined = []
    for record, name, (coarse, result) in zip(records, names, masks, strict=True):
        changed: Any = copy.copy(record)
        changed[name] = encoded(record[name], coarse, result)
        if name == "segmentation":
            _follow(changed, MaskChange.of(coarse, result.mask))
        refined.append(changed)
    return refined


def _follow(record: MutableMapping[str, Any], change: MaskChange) -> None:
    """Area and box `x, y, width, height` of a mask that has changed.

    SAM counts a box from the first pixel to the last, COCO to the one behind it.
    """
    if not change.is_changed:
        return
    if (area := record.get("area")) is not None:
        record["area"] = type(area)(change.areas[1])
    given = record.get("bbox")
    if given is None or len(given) != 4 or not change.after:
        return
    coco, box = change.before, change.after
    is_coco = coco is not None and [float(v) for v in given] == [coco.x0, coco.y0, coco.width, coco.height]
    values = [box.x0, box.y0, box.width - (not is_coco), box.height - (not is_coco)]
    if isinstance(given, list | tuple):
        record["bbox"] = type(given)(type(old)(new) for old, new in zip(given, values, strict=True))
    else:
        record["bbox"] = like(given, np.array(values))


def refined_dict(photo: PhotoRefinement, given: Mapping[str, Any]) -> Any:
    """The dict of one photo, with masks, segments, a label map, or what detectron2's predictor gives.

    Raises:
        InputError: It is none of these.
    """
    refined: Any = copy.copy(given)
    if "segments_info" in given and "segmentation" in given:
        if given["segmentation"] is not None and given["segments_info"]:
            ids = segment_ids(given["segments_info"])
            refined["segmentation"] = refined_segments(photo, given["segmentation"], ids)
            return refined
        return given
    if "masks" in given:
        return _refined_masks(photo, given, refined)
    if "segmentation" in given:
        refined["segmentation"] = refined_labels(photo, given["segmentation"])
        note_left(names_of_planes(given, size_of(given["segmentation"])) - {"segmentation"})
        return refined
    parts = given.keys() & {"instances", "panoptic_seg"}
    if "instances" in parts:
        refined["instances"] = refined_instances(photo, given["instances"])
    if "panoptic_seg" in parts:
        refined["panoptic_seg"] = refined_panoptic(photo, given["panoptic_seg"])
    if parts:
        note_left(given.keys() & {"sem_seg", "proposals"})
        return refined
    if given and all(isinstance(key, int) and is_stack(mask) for key, mask in given.items()):
        masks = refined_stack(photo, list(given.values()))[0]
        refined.update(zip(given, masks, strict=True))
        return refined
    raise InputError(_refused(given))


def _refined_masks(photo: PhotoRefinement, given: Mapping[str, Any], refined: Any) -> Any:
    masks = given["masks"]
    if masks is None or not len(masks):
        return given
    refined["masks"], changes = refined_stack(photo, masks)
    for name in ("boxes", "bounding_boxes"):
        if name in given:
            refined[name] = followed_boxes(given[name], changes)
    if "area" in given:
        refined["area"] = followed_areas(given["area"], changes)
    if isinstance(given.get("rle_mask"), list):
        refined["rle_mask"] = _encoded_again(given["rle_mask"], refined["masks"], changes)
    one = masks if is_stack(masks) else masks[0]
    if is_stack(one):
        note_left(names_of_planes(given, size_of(one)) - {"masks"})
    return refined


def _encoded_again(rles: list[Any], masks: Iterable[Any], changes: Sequence[MaskChange]) -> list[Any]:
    """The encodings of masks that stand beside them."""
    result = []
    for rle, mask, change in zip(rles, masks, changes, strict=True):
        result.append(encoded_rle(rle, plane(mask) > 0) if change.is_changed else rle)
    return result


def _refused(given: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, list(given)[:8])) or "nothing"
    if given.keys() & set(_RAW):
        return (
            f"outputs is what a network gives ({names}): post-process it first, such as with "
            "processor.post_process_instance_segmentation(outputs, target_sizes=[(height, width)])[0]"
        )
    if "sem_seg" in given:
        return "outputs has sem_seg alone, the scores of classes: give outputs['sem_seg'].argmax(0)"
    if "out" in given:
        return "outputs has out, the scores of classes: give outputs['out'].argmax(1), with a list of photos"
    return f"outputs is a dict of {names}: expected masks, segmentation, instances or panoptic_seg"
