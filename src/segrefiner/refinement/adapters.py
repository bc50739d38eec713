"""What other libraries found in a photo, with refined masks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from PIL import Image

from ..errors import InputError
from ..imaging.codecs.arrays import as_numpy
from ..imaging.reading import ImageSource
from .outputs.arrays import is_stack, like
from .outputs.dicts import is_record, refined_dict, refined_records
from .outputs.libraries import is_element, refined_detections, refined_element, refined_instances, refined_results
from .outputs.maps import holds_labels, is_label_map, refined_labels
from .outputs.photo_refinement import PhotoRefinement
from .outputs.stacks import is_rle, refined_stack
from .refiner import Refiner

Outputs = TypeVar("Outputs")

_SUPPORTED = (
    "supervision Detections, ultralytics Results, detectron2 Instances, samples of mmdetection and mmsegmentation, "
    "dicts of transformers, torchvision or SAM, masks (N, H, W), or a label map (H, W)"
)


def refine_outputs(
    refiner: Refiner,
    image: ImageSource | Sequence[ImageSource] | None,
    outputs: Outputs,
    *,
    ignore: Sequence[int] = (),
    **options: Any,
) -> Outputs:
    """Refines all masks that another library found in a photo, or in several, in shared batches.

    Refined masks of a photo overlap at most where those found do; see `instances.separate`. Several masks of one
    object, `(N, K, H, W)`, do not compete.

    Args:
        refiner: Refines the masks.
        image: The photo, as for `reading.read_image`, `None` for ultralytics, whose results hold theirs; a list for
            a list of outputs.
        outputs: What was found:

            - `supervision.Detections`: `xyxy` becomes the box of the refined `mask`, whose far corner is the last pixel
              inside, as `sv.mask_to_xyxy` has it; that of a mask that became empty stays.
            - ultralytics `Results`: `masks` are refined at the photo's size, also where the network's size and its
              padding were left in them, and `semantic_mask` is, where 255 is no class.
            - What transformers post-processes to with `target_sizes`: instances, panoptic and semantic maps, masks of
              SAM, SAM 2 and SAM 3; the lists and dicts of its pipelines. Where refined segments of one map overlap, the
              more probable one gets the pixel. Segments that are not in `segments_info` are not refined.
            - The list of SAM's and SAM 2's automatic masks: `area` and `bbox` follow `segmentation`, array or RLE.
            - The dict of torchvision's detectors, with `masks` `(N, 1, H, W)`, whose probabilities stay probabilities.
            - Detectron2's `Instances`, and the dict of its predictor with `instances` and `panoptic_seg`.
            - `DetDataSample` of mmdetection, `SegDataSample` of mmsegmentation, `InstanceData` and `PixelData`.
            - Masks `(N, H, W)` or `(N, K, H, W)`, a list of masks as arrays, Pillow images or RLE, masks by the numbers
              of objects, as SAM 2's videos have them, or a label map `(H, W)` of whole numbers.

            Boxes or areas that were exactly those of the masks follow them; boxes that a detector gave stay.
        ignore: Labels of label maps that are no class; they stay.
        options: As for `Refiner.many`: `seed`, `steps`, `threshold`, `max_shift`, `strength`, `on_progress`.

    Returns:
        A copy of the same kind, with arrays of the same library, type and device. What was not refined is shared with
        `outputs`, and `outputs` itself comes back where it has no masks.

    Raises:
        InputError: `outputs` is none of these, the photo is missing, or as `Refiner.many` does.

    Warns:
        InputWarning: What was found has no masks, or a part with pixels is none that can be refined.

    >>> from PIL import Image
    >>> found = [{"label": "cat", "score": 0.9, "mask": Image.open("coarse.png")}]  # As of a pipeline of transformers.
    >>> refined = refine_outputs(refiner, "photo.jpg", found)
    >>> refined[0]["label"], refined[0]["mask"].size
    ('cat', (128, 96))
    """
    several = _several(outputs, image)
    if several is None:
        return cast(Outputs, _refined(PhotoRefinement(refiner, _one(image), options, ignore), outputs))
    pairs = zip(_photos(image, several), several, strict=True)
    refined = [refine_outputs(refiner, photo, one, ignore=ignore, **options) for photo, one in pairs]
    return cast(Outputs, like(outputs, np.stack(refined)) if is_stack(outputs) else type(several)(refined))


def _refined(photo: PhotoRefinement, kind: Any) -> Any:
    refined: Any
    if isinstance(kind, list | tuple) and not kind:
        refined = kind
    elif _are_records(kind):
        refined = refined_records(photo, kind)
    elif is_record(kind):
        refined = refined_records(photo, [kind])[0]
    elif is_rle(kind):
        refined = refined_stack(photo, [kind])[0][0]
    elif isinstance(kind, Mapping):
        refined = refined_dict(photo, kind)
    elif _has(kind, "masks", "orig_img", "update"):
        refined = refined_results(photo, kind)
    elif _has(kind, "mask", "xyxy"):
        refined = refined_detections(photo, kind)
    elif _has(kind, "get_fields", "image_size", "set"):
        refined = refined_instances(photo, kind)
    elif is_element(kind):
        refined = refined_element(photo, kind)
    elif is_label_map(kind):
        refined = refined_labels(photo, kind)
    elif is_stack(kind) and kind.ndim == 2:
        refined = refined_stack(photo, kind[None])[0][0]
    elif is_stack(kind) and kind.ndim == 3 and holds_labels(kind):
        raise InputError(f"outputs is {len(kind)} label maps: give a list of {len(kind)} photos, or one of the maps")
    elif is_stack(kind) or _are_masks(kind):
        refined = refined_stack(photo, kind)[0]
    else:
        raise InputError(f"outputs is a {type(kind).__name__}: expected {_SUPPORTED}{_advice(kind)}")
    return refined


def _advice(kind: object) -> str:
    if isinstance(kind, Iterator):
        return "; give list(outputs) with a list of photos, or one of them"
    return "; for one mask, call the refiner: refiner(photo, mask)" if isinstance(kind, Image.Image) else ""


def _has(kind: object, *names: str) -> bool:
    return all(hasattr(kind, name) for name in names)


def _are_records(kind: object) -> bool:
    return isinstance(kind, list | tuple) and all(map(is_record, kind))


def _are_masks(kind: object) -> bool:
    """Whether this is a list of one photo's masks: arrays `(H, W)`, Pillow images or RLE."""
    return isinstance(kind, list | tuple) and all(
        isinstance(one, Image.Image) or is_rle(one) or (is_stack(one) and one.ndim == 2) for one in kind
    )


def _several(outputs: Any, image: Any) -> list[Any] | tuple[Any, ...] | None:
    """The outputs of each photo, where they are several photos'; `None` for those of one."""
    given = isinstance(image, list | tuple)
    if is_stack(outputs) and given:
        return [as_numpy(one) for one in outputs]
    if not isinstance(outputs, list | tuple) or not outputs or _are_records(outputs):
        return None
    if _are_masks(outputs) and not given and len(outputs) > 1:
        return None
    return outputs


def _photos(image: Any, several: Sequence[Any]) -> Sequence[Any]:
    count = len(several)
    if image is None:
        return [None] * count
    if isinstance(image, list | tuple):
        if len(image) != count:
            raise InputError(f"outputs holds those of {count} photos, but image has {len(image)}: give one for each")
        return image
    if count == 1:
        return [image]
    raise InputError(
        f"outputs is a {type(several).__name__} of {count}, but image is one photo: give a list of {count} photos, or "
        "the outputs of one photo, such as outputs[0]"
    )


def _one(image: Any) -> Any:
    """The photo of outputs that are one photo's."""
    if isinstance(image, list | tuple) and image and not isinstance(image[0], int | float | list | tuple):
        if len(image) == 1:
            return image[0]
        raise InputError(f"image is a list of {len(image)} photos, but outputs is that of one: give one photo")
    return image
