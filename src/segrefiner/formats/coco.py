"""COCO's annotation files and LVIS's: what their entries say, and the same files with other masks.

A file is annotations, with "images" and "annotations", or results, a list of masks. Jobs and training data read files
here; evaluation, which needs more of them, shares the rules for names, ids and segmentations.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.files import Json, atomic_write
from ..imaging.json_files import count_nan, write_json
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto, label_order
from .folders import names_below
from .json_edits import Edit, JsonFile, element_spans, member_edits, member_spans, read_values
from .masks import decode_mask, finite, image_size

NO_SEGMENTATION = "its segmentation is empty: there is nothing to refine, and it stays as it is"


@dataclass(frozen=True)
class CocoRecords:
    """What stands in a COCO file.

    Attributes:
        file: The file.
        rows: Annotations or results.
        listed: The document whose "images" say how photos are called; empty where there is none.
    """

    file: JsonFile
    rows: list[Any]
    listed: Json

    @property
    def is_results(self) -> bool:
        """Whether the file is a list of results."""
        return isinstance(self.file.value, list)


def read_records(source: Path, annotations: Path | None = None, *, file: JsonFile | None = None) -> CocoRecords:
    """Reads results or annotations.

    Args:
        source: The file.
        annotations: For results, the file whose "images" say how photos are called.
        file: What has been read of the source, if it has; without, the file's text is not kept.

    Raises:
        InputError: One of them is neither.

    >>> from segrefiner.formats.coco import read_records
    >>> records = read_records(Path("annotations.json"))
    >>> len(records.rows), records.is_results
    (2, False)
    """
    file = file or read_values(source)
    document = file.value
    if isinstance(document, list):
        rows, listed = document, read_values(annotations).value if annotations else {}
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        rows, listed = document["annotations"], document
    else:
        raise InputError(f'{source} is neither a list of results nor annotations: expected a list, or "annotations"')
    if not isinstance(listed, dict) or not isinstance(listed.get("images", []), list):
        raise InputError(f'{annotations or source}: expected "images", a list')
    return CocoRecords(file, rows, listed)


def image_entries(listed: list[Any]) -> tuple[dict[str, Json], dict[str, str]]:
    """Entries of "images" by image id, and what is wrong with those of no use.

    An id of several entries has none, unless all of them are the same.
    """
    entries: dict[str, Json] = {}
    failures: dict[str, str] = {}
    different: Counter[str] = Counter()
    for index, entry in enumerate(listed):
        key = image_key(entry.get("id")) if isinstance(entry, dict) else None
        if key is not None:
            different[key] += entries.get(key) != entry
        if key is None or not _has_name(entry):
            failures[f"images {index}"] = "expected an object with id and file_name"
        else:
            entries[key] = entry
    return {key: entry for key, entry in entries.items() if different[key] == 1}, failures


def image_key(value: Any) -> str | None:
    """An image id as text, the same for `7`, `7.0` and `"7"`, which tables turn into one another; none for others."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def file_name(key: str, entries: dict[str, Json]) -> str:
    """What the photo of an image id is called. Raises `InputError` where that is not known."""
    if key not in entries:
        raise InputError(f'"images" has no entry of the id {key}, or several')
    entry = entries[key]
    return str(entry["file_name"]) if isinstance(entry.get("file_name"), str) else str(photo_place(entry))


def digits_name(key: str) -> str:
    """What COCO calls the photo of an image id. Raises `InputError` where the id is no number."""
    if not key.isdecimal():
        raise InputError("the image id is no number: give the annotations, which say how its file is called")
    return f"{key.zfill(12)}.jpg"


def photo_place(entry: Any) -> str | None:
    """The place of a photo below the photos' folder, as its entry gives it: LVIS's by the end of its `coco_url`."""
    if not isinstance(entry, dict):
        return None
    name, url = entry.get("file_name"), entry.get("coco_url")
    if not name and isinstance(url, str):
        name = "/".join(re.split("[?#]", url, maxsplit=1)[0].split("/")[-2:])
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    try:
        os.fsencode(name)
    except ValueError:  # JSON can spell half a character, which no file system takes.
        return None
    return name


def is_crowd(record: Json) -> bool:
    """Whether a record is of a crowd: `iscrowd` may be a number, or a word that a table made of one."""
    flag = record.get("iscrowd")
    if isinstance(flag, str):
        return flag.strip().lower() not in ("", "0", "0.0", "false", "none", "nan")
    return bool(flag) and flag == flag  # NaN is what a table makes of a flag that is missing.


def listed_size(entry: Json) -> tuple[int, int] | None:
    """Height and width of a photo as its entry says, if it does."""
    return image_size(entry.get("height"), entry.get("width"))


def is_empty(segmentation: Any) -> bool:
    """Whether a segmentation is there for the format's sake alone, as in files that know boxes only."""
    return segmentation is None or (isinstance(segmentation, list) and all(one == [] for one in segmentation))


def split_folders(annotations: Path) -> list[Path]:
    """The folders in which the photos of an annotation file mostly are."""
    above = (annotations.parent, annotations.parent.parent)
    splits = [split for split in ("train2017", "val2017", "test2017") if split[:-4] in annotations.stem]
    # Datumaro and CVAT write a file and a folder of photos for each split.
    _, _, own = annotations.stem.partition("_")
    named = [f"images/{own}", own] if own else []
    return [folder / inner for folder in above for inner in (".", "images", *splits, *named)]


def nan_notes(rows: list[Any], document: Any) -> tuple[str, ...]:
    """Which annotations hold numbers that JSON does not have, and how many are elsewhere in the document."""
    total = count_nan(document)
    if not total:
        return ()
    found = {index: count for index, row in enumerate(rows) if (count := count_nan(row))}
    told = "NaN or an infinite number, which JSON does not have: null is written"
    notes = [f"annotation {index} holds {told}" for index in found]
    if total > sum(found.values()):
        notes.append(f"the file holds, outside of its annotations, {told}")
    return tuple(notes)


def _has_name(entry: Json) -> bool:
    name = entry.get("file_name")
    return isinstance(name, str) if name is not None else photo_place(entry) is not None


def is_annotations(value: Any) -> bool:
    """Whether JSON is of a COCO or LVIS file that lists its photos, with masks of them."""
    lists = [value.get(name) for name in ("images", "annotations")] if isinstance(value, dict) else [None]
    return all(isinstance(one, list) for one in lists) and not is_panoptic(value)


def is_panoptic(value: Any) -> bool:
    """Whether JSON is of COCO's panoptic format, whose annotations list the segments of a PNG file."""
    rows = value.get("annotations") if isinstance(value, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    return isinstance(first, dict) and "segments_info" in first and "segmentation" not in first


@dataclass(frozen=True)
class CocoDocument:
    """A COCO or LVIS file.

    Attributes:
        source: Where it was read.
        records: What stands in it.
    """

    source: Path
    records: CocoRecords

    @cached_property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        entries = [entry for entry in self.records.listed.get("images", [])[:100] if isinstance(entry, dict)]
        return (
            "lvis"
            if entries and all("coco_url" in entry and not entry.get("file_name") for entry in entries)
            else "coco"
        )

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        records = self.records
        entries, failures = image_entries(records.listed.get("images", []))
        names = _category_names(records.listed.get("categories"))
        left_out: dict[str, str] = {}
        found: dict[str, list[Instance]] = {key: [] for key in entries}
        for index, row in enumerate(records.rows):
            name = f"annotation {index}"
            key = image_key(row.get("image_id")) if isinstance(row, dict) else None
            if key is None:
                failures[name] = "expected an object with image_id, a whole number or a string"
            elif is_empty(row.get("segmentation")):
                left_out[name] = NO_SEGMENTATION
            else:
                found.setdefault(key, []).append(_instance(index, row, names))
        photos = [self._photo(key, tuple(instances), entries, failures) for key, instances in found.items()]
        if not records.rows:
            left_out[str(self.source)] = "it lists no mask"
        return Contents(
            tuple(photo for photo in photos if photo),
            failures,
            left_out,
            nan_notes(records.rows, records.file.value) if records.file.odd else (),
            tuple(names.values()),
            tuple(split_folders(self.source)),
        )

    def _photo(
        self, key: str, instances: tuple[Instance, ...], entries: dict[str, Json], failures: dict[str, str]
    ) -> AnnotatedPhoto | None:
        try:
            name = file_name(key, entries) if "images" in self.records.listed else digits_name(key)
        except InputError as error:
            failures[f"image {key}"] = f"{error} ({places(instances)})"
            return None
        entry = entries.get(key, {})
        return AnnotatedPhoto(key, names_below(name), instances, listed_size(entry))

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        changed = {int(index): new for found in results.values() for index, new in found.items()}
        file = self.records.file
        edits: list[Edit] = []
        if changed:
            start = 0 if self.records.is_results else member_spans(file.text, 0)["annotations"][0]
            for index, (place, _) in enumerate(element_spans(file.text, start)):
                if index in changed:
                    edits += row_edits(file.text, place, self.records.rows[index], changed[index])
        content = file.edited(edits)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda stream: stream.write(content))


def places(instances: Sequence[Instance]) -> str:
    """The masks of an image, by their places in the file."""
    found = [instance.key for instance in instances]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"annotation{'s' * (len(found) > 1)} {', '.join(found[:5])}{more}"


def _instance(index: int, row: Json, names: dict[str, str]) -> Instance:
    segmentation = row.get("segmentation")
    category = image_key(row.get("category_id"))
    return Instance(
        str(index),
        f"annotation {index}",
        stored_segmentation(segmentation),
        names.get(category, category) if category is not None else "",
        is_crowd(row),
        finite(row.get("score")),
    )


def stored_segmentation(segmentation: Any) -> Json:
    """A segmentation in the form that `masks.decode_mask` reads; VIA writes polygons without the list around them."""
    if isinstance(segmentation, dict):
        return {"rle": segmentation}
    is_flat = isinstance(segmentation, list) and segmentation and not any(isinstance(one, list) for one in segmentation)
    return {"polygons": [segmentation] if is_flat else segmentation}


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The mask `(height, width)` of a segmentation of any type, and what of it was left out. Raises `MaskError`."""
    return decode_mask(stored_segmentation(segmentation), size)


def _category_names(categories: Any) -> dict[str, str]:
    listed = categories if isinstance(categories, list) else []
    entries = ((image_key(one.get("id")), one.get("name")) for one in listed if isinstance(one, dict))
    return {key: name for key, name in entries if key is not None and isinstance(name, str)}


def row_edits(text: str, place: int, row: Json, new: Json) -> list[Edit]:
    """The edits that give a record, which begins at a place, another mask; area and box follow where it has them."""
    values: Json = {"segmentation": new["mask"]}
    if "area" in row:
        values["area"] = int(new["area"]) if type(row["area"]) is int else new["area"]
    if "bbox" in row:
        box = row["bbox"]
        are_whole = isinstance(box, list) and box and all(type(side) is int for side in box)
        values["bbox"] = [int(side) for side in new["bbox"]] if are_whole else new["bbox"]
    return member_edits(text, place, values)


def write_coco(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes annotations of photos to a JSON file. Objects without a label are of the category "object"."""
    order = [name or "object" for name in label_order(labels, photos)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(order), 1)}
    images: list[Json] = []
    annotations: list[Json] = []
    for image, photo in enumerate(photos, 1):
        images.append({"id": image, "file_name": photo.name, "height": photo.size[0], "width": photo.size[1]})
        for instance, new in photo.objects:
            score = {} if instance.score is None else {"score": instance.score}
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": numbers[instance.label or "object"],
                "segmentation": new["mask"], "area": new["area"], "bbox": new["bbox"],
                "iscrowd": int(instance.crowd), **score,
            })  # fmt: skip
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    write_json(target, {"images": images, "annotations": annotations, "categories": categories})
