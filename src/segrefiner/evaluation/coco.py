"""Mask AP and boundary AP of detections, against COCO's annotations or LVIS's.

With COCO's annotations the rules are COCO's: every category is annotated in every image, the best 100 detections
of each category and image count. With LVIS v1 annotations they are LVIS's (Gupta et al., CVPR 2019): an image
knows of some categories only, the best 300 detections of an image count; detections have COCO's category ids and
`segrefiner.evaluation.coco_categories` says which LVIS category is which. Boundary AP (Cheng et al., CVPR 2021)
replaces the IoU by the smaller of mask IoU and boundary IoU.

Small, medium and large are mask areas below 32², from there to 96², and above; a detection's area is that of its
mask, whatever box stands beside it.

faster-coco-eval does the counting. It trusts its input, so everything is checked here first.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import InputError, MaskError, MissingExtraError
from ..formats.coco import is_crowd, is_empty, read_records
from ..formats.json_edits import read_values
from ..formats.masks import whole
from ..imaging.coco_masks import rle_runs, sound_polygons
from ..imaging.reading import MAX_PIXELS
from ..ledger import Entry
from .coco_categories import COCO_CATEGORIES
from .protocol import Failure, Measurement, Scores

Json: TypeAlias = dict[str, Any]
OnLoaded: TypeAlias = Callable[[Iterable[Json]], Iterable[Json]]

MAX_DETECTIONS = {"coco": 100, "lvis": 300}
KINDS = {"": "segm", "boundary_": "boundary"}
"""Prefix of the figures, and faster-coco-eval's name."""

_SYNSETS = {category.synset: category for category in COCO_CATEGORIES}
_RANGES = ("", "_small", "_medium", "_large")


@dataclass
class Truth:
    """Annotations, checked and in COCO's categories.

    Args:
        lvis: Whether LVIS's rules hold.
        dataset: Images, annotations and categories as faster-coco-eval reads them.
        sizes: `(height, width)` by image id.
        notes: What was left out on purpose.
        failures: What was left out because it is damaged.
        left_out: Annotations that have no mask; a note counts them.
    """

    lvis: bool
    dataset: dict[str, list[Json]]
    sizes: dict[int, tuple[int, int]]
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: list[Entry] = field(default_factory=list)

    @property
    def categories(self) -> dict[int, str]:
        """Names by id."""
        return {category["id"]: category["name"] for category in self.dataset["categories"]}


def load_truth(path: Path, *, all_images: bool = False, progress: OnLoaded = iter) -> Truth:
    """Read annotations.

    Args:
        path: A COCO or LVIS v1 file of annotated instances.
        all_images: Score all of LVIS's images. LVIS's validation set has images of COCO's training set in it, on
            which COCO detectors have been trained; by default only the images of val2017 count, as in the
            published tables.
        progress: Wraps the loop over the annotations.

    Returns:
        What can be scored; damaged annotations are in `failures`.

    Raises:
        InputError: The file is no such file, or there is nothing in it.
        MissingExtraError: faster-coco-eval is not installed.
    """
    file = read_values(path)
    if not isinstance(file.value, dict) or not all(_is_records(file.value.get(part)) for part in _PARTS):
        raise InputError(f"{str(path)!r} is no file of annotations: expected lists of {', '.join(_PARTS)}")
    data = read_records(path, file=file).listed
    lvis = any("synset" in category for category in data["categories"])
    mapping, names = _category_mapping(data["categories"], lvis, path)
    truth = Truth(lvis, {"images": [], "annotations": [], "categories": names}, {})
    _add_images(truth, data["images"], mapping, all_images)
    listed = {number for image in data["images"] if (number := whole(image.get("id"))) is not None}
    _add_annotations(truth, progress(data["annotations"]), mapping, listed)
    if not truth.sizes or not truth.dataset["annotations"]:
        first = str(truth.failures[0]) if truth.failures else "it is empty"
        raise InputError(f"{str(path)!r} has no annotation that can be scored; first problem: {first}")
    return truth


_PARTS = ("images", "annotations", "categories")


def load_detections(path: Path, truth: Truth, *, progress: OnLoaded = iter) -> tuple[list[Json], list[Failure]]:
    """Read detections, `[{"image_id": …, "category_id": …, "score": …, "segmentation": …}, …]`.

    Args:
        path: The file.
        truth: What they will be scored against.
        progress: Wraps the loop over the detections.

    Returns:
        The sound ones as faster-coco-eval reads them, and a failure for each damaged one, by its position in the
        file, for each unknown image or category, and if none is left.

    Raises:
        InputError: The file is no such file.
        MissingExtraError: faster-coco-eval is not installed.
    """
    file = read_values(path)
    if not _is_records(file.value):
        raise InputError(f"{str(path)!r} is no file of detections: expected a list of objects")
    detections: list[Json] = []
    failures: list[Failure] = []
    strange: dict[str, Counter[int]] = {"image": Counter(), "category": Counter()}
    for index, record in enumerate(progress(read_records(path, file=file).rows)):
        name = f"detection {index}"
        try:
            image, category = _whole(record, "image_id"), _whole(record, "category_id")
            score = _real(record, "score")
            if image not in truth.sizes:
                strange["image"][image] += 1
                continue
            if category not in truth.categories:
                strange["category"][category] += 1
                continue
            segmentation, area, notes = _encoded(record.get("segmentation"), truth.sizes[image])
            truth.notes += [f"{name} in {path.name}: left out: {note}" for note in notes]
        except MaskError as error:
            failures.append(Failure(name, f"{error} (in {path.name})"))
            continue
        number = len(detections) + 1
        detections.append(
            {"id": number, "image_id": image, "category_id": category, "score": score, "area": area, "iscrowd": 0}
            | {"segmentation": segmentation}
        )
    failures += _unknown(strange, truth, path)
    if not detections:
        failures.append(Failure(path.name, "it has no detection that can be scored, so every AP is 0"))
    return detections, failures


def measure_detections(
    truth: Truth, detections: list[Json], coarse: list[Json] | None = None, *, max_detections: int | None = None
) -> Iterator[Measurement]:
    """Yield a row of APs for each category that has truth; the means over the rows are the set's APs.

    Args:
        truth: From `load_truth`.
        detections: From `load_detections`.
        coarse: Detections with the coarse masks, if gains are wanted.
        max_detections: How many detections count, per image with LVIS, per image and category with COCO.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    limit = max_detections or MAX_DETECTIONS["lvis" if truth.lvis else "coco"]
    after = _average_precisions(truth, detections, limit)
    before = None if coarse is None else _average_precisions(truth, coarse, limit)
    for number, name in truth.categories.items():
        if not math.isnan(after[number]["ap"]):
            scores = None if before is None else Scores(before[number])
            yield Measurement(name, Scores(after[number]), scores)


def _average_precisions(truth: Truth, detections: list[Json], limit: int) -> dict[int, dict[str, float]]:
    evaluator = _faster_coco_eval()
    if truth.lvis:
        detections = _best_of_each_image(detections, limit)
    # The library writes into the records.
    records = [dict(record) for record in detections]
    found = evaluator.COCO({**truth.dataset, "annotations": records})
    true = evaluator.COCO({**truth.dataset, "annotations": [dict(record) for record in truth.dataset["annotations"]]})
    figures: dict[int, dict[str, float]] = {number: {} for number in truth.categories}
    for prefix, kind in KINDS.items():
        run = evaluator.COCOeval_faster(true, found, kind, lvis_style=truth.lvis)
        run.params.maxDets = [limit]
        run.evaluate()
        run.accumulate()
        # IoU thresholds, recalls, categories, areas.
        precision = np.asarray(run.eval["precision"])[..., -1]
        for index, number in enumerate(run.params.catIds):
            figures[number] |= _summarised(precision[:, :, index], prefix, run.params.iouThrs)
    return figures


def _summarised(precision: Any, prefix: str, thresholds: Any) -> dict[str, float]:
    def mean(values: Any) -> float:
        return float(values.mean()) if (values > -1).all() else math.nan

    whole = {f"{prefix}ap{part}": mean(precision[:, :, index]) for index, part in enumerate(_RANGES)}
    at = {f"{prefix}ap{percent}": mean(precision[np.isclose(thresholds, percent / 100), :, 0]) for percent in (50, 75)}
    return whole | at


def _best_of_each_image(detections: list[Json], limit: int) -> list[Json]:
    images: dict[int, list[Json]] = defaultdict(list)
    for detection in detections:
        images[detection["image_id"]].append(detection)
    # A stable sort, as in LVIS's own evaluation: of equal scores the earlier one counts.
    return [best for group in images.values() for best in sorted(group, key=lambda one: -one["score"])[:limit]]


def _category_mapping(categories: list[Json], lvis: bool, path: Path) -> tuple[dict[int, int], list[Json]]:
    """COCO's id by the file's, and the categories to be scored."""
    mapping: dict[int, int] = {}
    kept: list[Json] = []
    for record in categories:
        number, name = whole(record.get("id")), record.get("name")
        if number is None or not isinstance(name, str) or number in mapping:
            raise InputError(f"{str(path)!r} has a category without an id of its own or without name: {record!r:.80}")
        category = _SYNSETS.get(str(record.get("synset")))
        if lvis and category is None:
            continue
        mapping[number] = category.id if lvis and category else number
        # The frequency is only there because faster-coco-eval groups by it.
        kept.append({"id": mapping[number], "name": category.name if lvis and category else name, "frequency": "f"})
    return mapping, sorted(kept, key=lambda record: record["id"])


def _add_images(truth: Truth, images: list[Json], mapping: dict[int, int], all_images: bool) -> None:
    skipped = 0
    for record in images:
        try:
            number = _whole(record, "id")
            size = (_whole(record, "height"), _whole(record, "width"))
            if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
                raise MaskError(f"height and width are {list(size)}: expected 1 to {MAX_PIXELS} pixels")
            if number in truth.sizes:
                raise MaskError("its id is that of another image")
            lists = {key: [mapping[one] for one in _numbers(record, key) if one in mapping] for key in _FEDERATED}
        except MaskError as error:
            truth.failures.append(Failure(f"image {record.get('id')!r:.40}", str(error)))
            continue
        if truth.lvis and not all_images and "/val2017/" not in str(record.get("coco_url", "/val2017/")):
            skipped += 1
            continue
        truth.sizes[number] = size
        truth.dataset["images"].append({"id": number, "height": size[0], "width": size[1], **lists})
    if skipped:
        truth.notes.append(
            f"Left out: {skipped} images of COCO's training set. Scored: {len(truth.sizes)} images of val2017."
        )


_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")


def _add_annotations(truth: Truth, annotations: Iterable[Json], mapping: dict[int, int], listed: set[int]) -> None:
    left_out = 0
    for index, record in enumerate(annotations):
        try:
            image, category = _whole(record, "image_id"), _whole(record, "category_id")
            if image not in truth.sizes and image not in listed:
                raise MaskError(f"there is no image {image}")
            if category not in mapping and not truth.lvis:
                raise MaskError(f"there is no category {category}")
            if category not in mapping or image not in truth.sizes:
                left_out += category not in mapping
                continue
            if is_empty(record.get("segmentation")):
                name = f"annotation {record.get('id', f'at {index}')!r:.40}"
                truth.left_out.append(Entry(name, "its segmentation is empty"))
                continue
            segmentation, mask_area, notes = _encoded(record.get("segmentation"), truth.sizes[image])
            truth.notes += [f"annotation {record.get('id', f'at {index}')!r:.40}: left out: {note}" for note in notes]
            area = _real(record, "area") if "area" in record else mask_area
        except MaskError as error:
            truth.failures.append(Failure(f"annotation {record.get('id', f'at {index}')!r:.40}", str(error)))
            continue
        # Ids from 1 on: faster-coco-eval takes 0 for "unmatched", and files may repeat ids.
        number = len(truth.dataset["annotations"]) + 1
        truth.dataset["annotations"].append(
            {"id": number, "image_id": image, "category_id": mapping[category], "area": area}
            | {"iscrowd": int(is_crowd(record)), "segmentation": segmentation}
        )
    if truth.left_out:
        truth.notes.append(f"Left out: {len(truth.left_out)} annotations whose segmentation is empty.")
    if left_out:
        truth.notes.append(f"Left out: {left_out} annotations of LVIS categories that are not COCO's.")


def _unknown(strange: dict[str, Counter[int]], truth: Truth, path: Path) -> list[Failure]:
    """Failures for unknown ids; with LVIS, which has not all images and categories of COCO, mostly notes."""
    failures = []
    coco_ids = {category.id for category in COCO_CATEGORIES}
    for kind, counts in strange.items():
        expected = [number for number in counts if truth.lvis and (kind == "image" or number in coco_ids)]
        if expected:
            lost = sum(counts[number] for number in expected)
            truth.notes.append(
                f"Left out: {lost} detections in {path.name}, of {len(expected)} {_PLURALS[kind]} without annotations."
            )
        failures += [
            Failure(f"{kind} {number}", f"is in no annotation, but {count} detections in {path.name} are of it")
            for number, count in counts.items()
            if number not in expected
        ]
    return failures


_PLURALS = {"image": "images", "category": "categories"}


def _encoded(segmentation: Any, size: tuple[int, int]) -> tuple[Json, int, tuple[str, ...]]:
    """A compressed encoding of what has been checked, its area, and which of its polygons are left out."""
    masks = _faster_coco_eval().mask
    notes: tuple[str, ...] = ()
    if isinstance(segmentation, list):
        segmentation, notes = sound_polygons(segmentation, size)
        encoding = masks.merge(masks.frPyObjects(segmentation, *size))
        runs = rle_runs({**encoding, "size": list(size)}, size)
    else:
        runs = rle_runs(segmentation, size)
        encoding = segmentation
        if isinstance(segmentation["counts"], list):
            encoding = masks.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return {"size": list(size), "counts": encoding["counts"]}, int(runs[1::2].sum()), notes


def _faster_coco_eval() -> Any:
    try:
        return import_module("faster_coco_eval")
    except ImportError:
        raise MissingExtraError.needed_by("COCO evaluation", package="faster-coco-eval", extra="eval") from None


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(record, dict) for record in value)


def _whole(record: Json, key: str) -> int:
    found = whole(record.get(key))
    if found is None:
        raise MaskError(f"{key} is {record.get(key)!r:.40}: expected a whole number")
    return found


def _numbers(record: Json, key: str) -> list[int]:
    values = record.get(key, [])
    found = [whole(value) for value in values] if isinstance(values, list) else [None]
    if None in found:
        raise MaskError(f"{key} is {values!r:.40}: expected a list of whole numbers")
    return [value for value in found if value is not None]


def _real(record: Json, key: str) -> float:
    value = record.get(key)
    # The comparison is false for NaN and infinity, and whole numbers in JSON have no end.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise MaskError(f"{key} is {value!r:.40}: expected a finite number")
    return float(value)
