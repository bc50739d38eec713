"""Jobs over COCO panoptic files: a JSON file and a folder of PNGs whose colours are segment ids.

Every segment is refined, then one is decided for each pixel. Pixels of no segment and of crowds stay as they are.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError, MaskError, SegRefinerError
from ..formats.coco import (
    file_name,
    image_entries,
    image_key,
    is_crowd,
    nan_notes,
)
from ..imaging.files import Json
from ..imaging.json_files import read_odd, write_json
from ..imaging.label_files import LARGEST_ID, read_ids, write_ids
from ..imaging.listing import Names, inside, list_pictures
from ..imaging.reading import check_same_size, read_photo
from ..refinement.options import PLAIN, Options
from .coco import images_without_masks
from .instances import Crowds
from .job import Item, Job, SavedItem, written

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner

VOID = 0
"""The id of pixels of no segment."""


def panoptic_job(
    source: Path, maps: Path, images: Path, output: Path, *, crowds: Crowds = "keep", options: Options = PLAIN
) -> Job:
    """Refines panoptic maps.

    Args:
        source: The JSON file, with "annotations". Results may lack "images": photos are called as the maps are, then.
        maps: Folder of the PNGs.
        images: Folder of the photos.
        output: Folder for PNGs of the same names, and the JSON file under its own.
        crowds: Whether segments with `iscrowd` stay or are refined.
        options: Of each refinement.

    Raises:
        InputError: A file or folder is not as described, or all its segments are of crowds that stay.
    """
    output = output.absolute()
    for folder in (maps, images):
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder")
    if output.resolve() in (maps.resolve(), images.resolve(), source.resolve().parent):
        raise InputError(f"the output {output} is a folder of inputs: choose another one")
    document, odd = read_odd(source)
    lists = [document.get("images", []), document.get("annotations")] if isinstance(document, dict) else [None]
    if not all(isinstance(one, list) for one in lists) or not ("images" in document or document["annotations"]):
        raise InputError(f'{source} is no panoptic file: expected "images" and "annotations"')
    entries, failures = image_entries(document["images"]) if "images" in document else (None, {})
    items, rows = [], {}
    places, photos = Names(maps), Names(images)
    taken = Counter(_place(row, places) for row in document["annotations"])
    for index, row in enumerate(document["annotations"]):
        try:
            item = _item(row, entries, places, photos, output)
            if taken[_place(row, places)] > 1:
                raise InputError(f"{row['file_name']} belongs to several annotations: expected one")
        except SegRefinerError as error:
            failures[f"annotation {index}"] = str(error)
            continue
        items.append(item)
        rows[item.key] = row
    if crowds == "keep" and 0 < sum(len(item.payload) for item in items) == sum(
        _crowds(item.payload) for item in items
    ):
        raise InputError(f"{source}: all its segments are crowds, which stay: give --crowds refine")
    left_out = _left_out(source, document, places, output)

    def finish(results: dict[str, Any]) -> None:
        for key, result in results.items():
            rows[key]["segments_info"] = result["segments_info"]
        write_json(output / source.name, document)

    work = PanopticProcessor(output, options, crowds)
    notes = nan_notes(document["annotations"], document) if odd else ()
    return Job(items, work, finish, failures, left_out, notes, _is_result)


def _left_out(source: Path, document: Json, maps: Names, output: Path) -> dict[str, str]:
    """What no annotation names, and why."""
    listing = list_pictures(maps.folder, without=output)
    named = {_place(row, maps) for row in document["annotations"]}
    found = {entry.name: entry.reason for entry in listing.left_out} | {
        str(maps.folder / path): "no annotation of it"
        for path in listing.pictures
        if os.path.normpath(path).lower() not in named
    }
    if not document["annotations"]:
        found[str(source)] = "it lists no map"
    return found | images_without_masks(document["annotations"], document)


def _is_result(item: Item, result: Any) -> bool:
    """Whether a result is one that `PanopticProcessor` gives."""
    segments = result.get("segments_info") if isinstance(result, dict) else None
    ids = [segment.get("id") for segment in item.payload if isinstance(segment, dict)]
    return isinstance(segments, list) and all(isinstance(one, dict) and one.get("id") in ids for one in segments)


def _crowds(segments: list[Any]) -> int:
    return sum(is_crowd(segment) for segment in segments if isinstance(segment, dict))


def _place(row: Any, maps: Names) -> str:
    """Where an annotation's map is, the same for all spellings of its name; an empty string for what has none."""
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str):
        return ""
    with suppress(InputError):
        name = maps.find(name)
    return os.path.normpath(name).lower()


def _item(row: Any, entries: dict[str, Json] | None, maps: Names, images: Names, output: Path) -> Item:
    if not isinstance(row, dict) or not {"image_id", "file_name", "segments_info"} <= row.keys():
        raise InputError("expected an object with image_id, file_name and segments_info")
    name, segments = row["file_name"], row["segments_info"]
    if not isinstance(name, str) or Path(name).suffix.lower() != ".png":
        raise InputError(f"file_name is {name!r}: expected the name of a PNG")
    if not isinstance(segments, list):
        raise InputError("segments_info is no list")
    if entries is None:
        photo = images.find_picture(PurePosixPath(name).with_suffix("").as_posix())
    else:
        photo = file_name(str(image_key(row["image_id"])), entries)
    files = _photo(photo, images), inside(maps.folder, maps.find(name))
    item = Item(name, files, segments)
    _target(item, output)
    return item


_CITYSCAPES = re.compile(r"(([^_/\\]+)_.+)_gt(?:Fine|Coarse)_leftImg8bit(\.\w+)$")
"""How Cityscapes' script calls photos in its panoptic files: by the names of the maps, which no photo has."""


def _photo(name: str, images: Names) -> Path:
    """The file of a photo; Cityscapes' are without `_gtFine`, in a folder for each city, and mostly for each split."""
    path = inside(images.folder, images.find(name))
    found = _CITYSCAPES.match(name)
    if not found or path.exists():
        return path
    photo, city = f"{found[1]}_leftImg8bit{found[3]}", found[2]
    splits = (f"{split}/{city}" for split in ("train", "val", "test"))
    for folder in (".", city, *splits):
        other = inside(images.folder, images.find(f"{folder}/{photo}"))
        if other.exists():
            return other
    return path


def _target(item: Item, output: Path) -> Path:
    """Where an item's map goes. Backslashes are folders, unless the coarse map's own name has them."""
    slashed = "\\" in item.inputs[1].name
    return inside(output, item.key if slashed else item.key.replace("\\", "/"))


def check_segments(segments: Any, ids: NDArray[np.int32]) -> None:
    """Raises `MaskError` where `segments_info` and the ids of a map do not belong together."""
    listed = []
    for segment in segments:
        value = segment.get("id") if isinstance(segment, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST_ID:
            raise MaskError(f"segments_info holds the id {value!r}: expected a whole number from 1 to {LARGEST_ID}")
        listed.append(value)
    double = [value for value, count in Counter(listed).items() if count > 1]
    if double:
        raise MaskError(f"segments_info lists segment {double[0]} more than once: segments may not overlap")
    present = set(np.unique(ids).tolist()) - {VOID}
    if unknown := sorted(present - set(listed)):
        raise MaskError(f"the map has segments {unknown[:5]} that segments_info does not list")
    if absent := sorted(set(listed) - present):
        raise MaskError(f"segments_info lists segments {absent[:5]} that the map does not have")


@dataclass(frozen=True)
class PanopticProcessor:
    """A photo and its panoptic map → the refined one; an item's payload is its `segments_info`."""

    root: Path
    options: Options
    crowds: Crowds = "keep"

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        # Without the default, so that what was done before there was a choice stays done.
        chosen = {"crowds": self.crowds} if self.crowds != "keep" else {}
        return {"kind": "panoptic", **chosen, **self.options.settings()}

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:  # noqa: D102
        photo, ids = read_photo(contents[0], name=f"photo {str(item.inputs[0])!r}"), read_ids(contents[1])
        check_same_size(photo.pixels, ids, image_source=contents[0])
        check_segments(item.payload, ids)
        return photo, ids, item.payload

    def refine(self, refiner: "Refiner", loaded: Any) -> Any:  # noqa: D102
        from ..refinement.label_maps import refine_labels

        photo, ids, segments = loaded
        kept = [segment["id"] for segment in segments if is_crowd(segment) and self.crowds == "keep"]
        refined = refine_labels(refiner, photo, ids, ignore=[VOID, *kept], options=self.options)
        told = "" if refined.reports else "fewer than two segments that are no crowds, so no contour: written as it was"
        if not refined.reports and len(segments) - len(kept) > 1:
            told = f"{refined.warnings[-1]}: written as it was"
        return refined.labels, segments, refined.changed, kept, told, refined.warnings

    def save(self, item: Item, refined: Any) -> SavedItem:  # noqa: D102
        ids, segments, changed, crowds, idle, warnings = refined
        target = _target(item, self.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_ids(target, ids)
        kept, vanished = [], []
        present, numbers, areas = np.unique(ids, return_inverse=True, return_counts=True)
        places = dict(zip(present.tolist(), ndimage.find_objects(numbers.reshape(ids.shape) + 1), strict=True))
        counts = dict(zip(present.tolist(), areas.tolist(), strict=True))
        for segment in segments:
            if segment["id"] in places:
                rows, columns = places[segment["id"]]
                box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
                kept.append(segment | {"area": counts[segment["id"]], "bbox": box})
            else:
                vanished.append(segment["id"])
        notes = [*([f"no pixel is left of segments {vanished}"] if vanished else []), *warnings]
        result = {"segments_info": kept, "vanished": vanished, "changed": round(changed, 6)}
        left_out = {
            f"segment {value} of {item.key}": "a crowd, which stays; --crowds refine refines it" for value in crowds
        }
        if idle:
            left_out[item.key] = idle
        named = tuple(f"{item.key}: {note}" for note in notes)
        return SavedItem(written(self.root, [target]), result, notes=named, left_out=left_out)
