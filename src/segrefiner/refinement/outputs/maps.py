"""Maps of what each pixel belongs to: label maps of semantic segmentation, and maps of segments with a list of them."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, MaskError
from ...imaging.codecs.arrays import as_numpy
from ...imaging.reading import warn_of
from .arrays import is_stack, like
from .photo_refinement import PhotoRefinement
from .stacks import refined_stack

_VOID = -1


def is_label_map(value: Any) -> bool:
    """Whether an array is a label map: `(H, W)` integers, or `(1, H, W)` or floats of more than a mask's two values."""
    if not is_stack(value) or not _is_map(value):
        return False
    return (value.ndim == 2 and as_numpy(value).dtype.kind in "ui") or holds_labels(value)


def holds_labels(value: Any) -> bool:
    """Whether an array has whole numbers of more than a mask's two values."""
    values = as_numpy(value)
    return bool(values.size and _is_whole(values) and not np.isin(values, (0, values.max())).all())


def _is_map(value: Any) -> bool:
    return 0 not in value.shape and all(side == 1 for side in value.shape[:-2])


def _is_whole(values: NDArray[Any]) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isfinite(values).all() and (values == np.round(values)).all())
    return values.dtype.kind in "ui"


def refined_labels(photo: PhotoRefinement, given: Any, ignore: Sequence[int] = ()) -> Any:
    """A label map `(H, W)` or `(1, H, W)`, refined, as the same kind of array.

    Raises:
        MaskError: It is no label map.
    """
    values = as_numpy(given) if is_stack(given) else None
    if values is None or not _is_map(values) or not _is_whole(values):
        shape = tuple(getattr(given, "shape", ()))
        raise MaskError(f"a label map has shape {shape}: expected (H, W) whole numbers; of logits, give their argmax")
    labels = photo.labels(values.reshape(values.shape[-2:]), ignore)
    return like(given, labels.reshape(values.shape))


def refined_segments(photo: PhotoRefinement, given: Any, ids: Iterable[int]) -> Any:
    """A map `(H, W)` of segments' ids, or their masks `(N, H, W)`, refined, as the same kind of array.

    Args:
        photo: What refines.
        given: A map is refined as label maps are, so that a contour between two segments is decided once. What is of
            no segment is a label like others.
        ids: Of the segments that are refined; others stay as they are, as they do where somebody has filtered the list.

    Raises:
        MaskError: It is neither.
    """
    if not is_stack(given) or given.ndim not in (2, 3):
        raise MaskError(
            "segmentation is not (H, W) or (N, H, W): call the post-processing without return_coco_annotation"
        )
    if given.ndim == 3:
        return refined_stack(photo, given)[0]
    values, listed = as_numpy(given), {int(one) for one in ids}
    present = {int(one) for one in np.unique(values)}
    # Some post-processings count from 1 and leave 0 for nothing, others count from 0 and leave -1.
    nothing = _VOID if 0 in listed or _VOID in present else 0
    refined = refined_labels(photo, given, sorted(present - listed - {nothing}))
    left = {int(one) for one in np.unique(as_numpy(refined))}
    if vanished := sorted(present & listed - left):
        warn_of((f"of segment {', '.join(map(str, vanished))} no pixel is left; segments_info lists it still",))
    return refined


def segment_ids(listed: Iterable[Any]) -> list[int]:
    """The ids of segments that a library lists. Raises `InputError` where one has none."""
    ids = [one.get("id") if isinstance(one, Mapping) else None for one in listed]
    for index, value in enumerate(ids):
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise InputError(f"segment {index} of segments_info has the id {value!r:.40}: expected a whole number")
    return [int(value) for value in ids if value is not None]


def refined_panoptic(photo: PhotoRefinement, given: tuple[Any, Any]) -> tuple[Any, Any]:
    """Detectron2's `panoptic_seg`: a map of segments with a list of them, whose areas follow; or with none."""
    segments, listed = given
    ids = segment_ids(listed) if listed is not None else np.unique(as_numpy(segments)).tolist()
    ids = [one for one in ids if one != _VOID]
    if not ids:
        return given
    refined = refined_segments(photo, segments, ids)
    if listed is None:
        return refined, None
    before, after = as_numpy(segments), as_numpy(refined)
    infos = [copy.copy(one) for one in listed]
    for info in infos:
        area = info.get("area")
        if area is not None and area == np.count_nonzero(before == info["id"]):
            info["area"] = type(area)(np.count_nonzero(after == info["id"]))
    return refined, infos
