"""Jobs over COCO files: results of a network or annotations, refined and written back with everything else unchanged.

Refined masks are run-length encodings: compressed ones, but for masks that were given with a list of counts. `area` and
`bbox` are those of the refined mask where there were any. Crowds stay as they are, and so does what cannot be read,
which is reported mask by mask. Refined masks of a photo overlap at most where the coarse ones do; crowds that stay do
not count.

Jobs over COCO panoptic files: a JSON file and a folder of PNGs whose colours are segment ids.

Every segment is refined, then one is decided for each pixel. Pixels of no segment and of crowds stay as they are.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError, MaskError, SegRefinerError
from ..formats.coco import (
    NO_SEGMENTATION,
    digits_name,
    file_name,
    image_entries,
    image_key,
    is_empty,
    listed_size,
    nan_notes,
    read_records,
    stored_segmentation,
)
from ..formats.photos import unused_files
from ..imaging.coco_masks import decode_rle, encode_rle, tight_box
from ..imaging.files import Json
from ..imaging.json_files import read_odd, write_json
from ..imaging.label_files import LARGEST_ID, read_ids, write_ids
from ..imaging.listing import Names, inside, list_pictures
from ..imaging.reading import check_same_size, read_photo
from ..refinement.options import PLAIN, Options
from .instances import CROWD_STAYS, Crowds, LoadedMasks, RefinedMasks, StoredMask, load_masks, refine_masks
from .job import Item, Job, SavedItem, written

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner

VOID = 0
"""The id of pixels of no segment."""


def coco_job(
    source: Path,
    images: Path,
    target: Path,
    *,
    annotations: Path | None = None,
    crowds: Crowds = "keep",
    options: Options = PLAIN,
) -> Job:
    """Refines the masks of a COCO file.

    Args:
        source: Results, a list, or annotations, with "images" and "annotations".
        images: Folder of the photos.
        target: The JSON file to write.
        annotations: For results, the file whose "images" say how photos are called; without, they are called by their
            image id of twelve digits and `.jpg`, as COCO's are.
        crowds: Whether masks with `iscrowd` stay or are refined.
        options: Of each refinement.

    Raises:
        InputError: A file is not as described, or all its masks are of crowds that stay.
    """
    _check_places(source, images, target, annotations)
    records = read_records(source, annotations)
    document, rows, listed, odd = records.file.value, records.rows, records.listed, records.file.odd
    entries, failures = (None, {}) if "images" not in listed else image_entries(listed["images"])
    by_image, left_out = _masks_by_image(rows, crowds, failures)
    if (crowded := sum(why == CROWD_STAYS for why in left_out.values())) and not by_image:
        raise InputError(f"{source}: all {crowded} masks are crowds, which stay: give --crowds refine")
    items = []
    names = Names(images)
    for key, forms in by_image.items():
        try:
            name = digits_name(key) if entries is None else file_name(key, entries)
            photo = inside(images, names.find(name))
        except SegRefinerError as error:
            failures[f"image {key}"] = f"{error} ({_places(forms)})"
            continue
        items.append(Item(key, (photo,), {"size": listed_size((entries or {}).get(key, {})), "masks": forms}))
    if not rows:
        left_out[str(source)] = "it lists no mask"
    unmasked = {key: entry for key, entry in (entries or {}).items() if key not in by_image}
    left_out |= images_without_masks(rows, {} if annotations else listed) | _strays(items, unmasked, names)

    def finish(results: dict[str, Any]) -> None:
        for key in results:
            for index, refined in results[key].items():
                row = rows[int(index)]
                row.update({name: value for name, value in refined.items() if name == "segmentation" or name in row})
        write_json(target, document)

    return Job(
        items,
        CocoProcessor(target.absolute().parent, options),
        finish,
        failures,
        left_out,
        nan_notes(rows, document) if odd else (),
        _is_result,
    )


def _strays(items: Sequence[Item], unmasked: dict[str, Any], names: Names) -> dict[str, str]:
    """What lies among the photos and is none that the file lists, with masks or without."""
    listed = {path for item in items for path in item.inputs}
    for key in unmasked:
        with suppress(SegRefinerError):
            listed.add(names.folder / names.find(file_name(key, unmasked)))
    return unused_files(names.folder, listed)


def _check_places(source: Path, images: Path, target: Path, annotations: Path | None) -> None:
    if target.resolve() in (source.resolve(), annotations and annotations.resolve()):
        raise InputError(f"the output {target} is an input: choose another name")
    if target.is_dir():
        raise InputError(f"the output {target} is a folder: expected the name of a JSON file")
    if not images.is_dir():
        raise InputError(f"{images} is no folder")


def _masks_by_image(
    rows: list[Any], crowds: Crowds, failures: dict[str, str]
) -> tuple[dict[str, list[Json]], dict[str, str]]:
    """The masks of each image id, and the crowds that stay; what is neither is added to the failures."""
    by_image: dict[str, list[Json]] = {}
    left_out = {}
    for index, row in enumerate(rows):
        name = f"annotation {index}"
        key = image_key(row.get("image_id")) if isinstance(row, dict) else None
        if key is None:
            failures[name] = "expected an object with image_id, a whole number or a string"
        elif row.get("iscrowd") and crowds == "keep":
            left_out[name] = CROWD_STAYS
        elif is_empty(row.get("segmentation")):
            left_out[name] = NO_SEGMENTATION
        else:
            form = {"index": index, "segmentation": row.get("segmentation")}
            by_image.setdefault(key, []).append(form)
    return by_image, left_out


def _places(forms: list[Json]) -> str:
    """The masks of an image, by their places in the file."""
    places = [str(form["index"]) for form in forms]
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return f"annotation{'s' * (len(places) > 1)} {', '.join(places[:5])}{more}"


def images_without_masks(rows: list[Any], listed: Json) -> dict[str, str]:
    """The photos of a file of annotations that have none."""
    with_masks = {image_key(row.get("image_id")) for row in rows if isinstance(row, dict)}
    keys = (image_key(entry.get("id")) for entry in listed.get("images", []) if isinstance(entry, dict))
    return {f"image {key}": "the file has no mask of it" for key in keys if key is not None and key not in with_masks}


def _is_result(item: Item, result: Any) -> bool:
    """Whether a result is one that `CocoProcessor` gives for an item."""
    places = {str(form["index"]) for form in item.payload["masks"]}
    return isinstance(result, dict) and result.keys() <= places and all(map(_is_refined, result.values()))


def _is_refined(refined: Any) -> bool:
    if not isinstance(refined, dict):
        return False
    encoding, area, box = (refined.get(name) for name in ("segmentation", "area", "bbox"))
    return (
        isinstance(encoding, dict)
        and encoding.keys() == {"size", "counts"}
        and isinstance(encoding["counts"], str | list)
        and isinstance(area, float)
        and isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, float) for value in box)
    )


@dataclass(frozen=True)
class CocoProcessor:
    """The masks of one photo → their refined segmentations.

    An item's payload is the coarse ones, with their places, and the size of the photo as the file says it.
    """

    root: Path
    options: Options

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        return {"kind": "coco", **self.options.settings()}

    def load(self, item: Item, contents: Sequence[bytes]) -> LoadedMasks:  # noqa: D102
        photo = read_photo(contents[0], name=f"photo {str(item.inputs[0])!r}")
        stored = [
            StoredMask(str(form["index"]), f"annotation {form['index']}", stored_segmentation(form["segmentation"]))
            for form in item.payload["masks"]
        ]
        return load_masks(item.key, photo, stored, item.payload["size"])

    def refine(self, refiner: "Refiner", loaded: LoadedMasks) -> RefinedMasks:  # noqa: D102
        return refine_masks(refiner, loaded, self.options)

    def save(self, item: Item, refined: RefinedMasks) -> SavedItem:  # noqa: D102
        given = {str(form["index"]): form["segmentation"] for form in item.payload["masks"]}
        segmentations = {}
        for index, one in refined.refined.items():
            mask = decode_rle(one.encoding, refined.size)
            listed = isinstance(given[index], dict) and isinstance(given[index]["counts"], list)
            segmentations[index] = {
                "segmentation": encode_rle(mask, compressed=False) if listed else one.encoding,
                "area": float(mask.sum()),
                "bbox": tight_box(mask),
                "report": one.summary,
            }
        return SavedItem({}, segmentations, refined.failures, tuple(refined.notes), refined.idle)


def panoptic_job(
    source: Path, maps: Path, images: Path, output: Path, *, crowds: Crowds = "keep", options: Options = PLAIN
) -> Job:
    """Refines panoptic maps.

    Args:
        source: The JSON file, with "images" and "annotations".
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
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "annotations")):
        raise InputError(f'{source} is no panoptic file: expected "images" and "annotations"')
    entries, failures = image_entries(document["images"])
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
    return Job(items, work, finish, failures, left_out, notes, _panoptic_is_result)


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


def _panoptic_is_result(item: Item, result: Any) -> bool:
    """Whether a result is one that `PanopticProcessor` gives."""
    segments = result.get("segments_info") if isinstance(result, dict) else None
    ids = [segment.get("id") for segment in item.payload if isinstance(segment, dict)]
    return isinstance(segments, list) and all(isinstance(one, dict) and one.get("id") in ids for one in segments)


def _crowds(segments: list[Any]) -> int:
    return sum(bool(segment.get("iscrowd")) for segment in segments if isinstance(segment, dict))


def _place(row: Any, maps: Names) -> str:
    """Where an annotation's map is, the same for all spellings of its name; an empty string for what has none."""
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str):
        return ""
    with suppress(InputError):
        name = maps.find(name)
    return os.path.normpath(name).lower()


def _item(row: Any, entries: dict[str, Json], maps: Names, images: Names, output: Path) -> Item:
    if not isinstance(row, dict) or not {"image_id", "file_name", "segments_info"} <= row.keys():
        raise InputError("expected an object with image_id, file_name and segments_info")
    name, segments = row["file_name"], row["segments_info"]
    photo = file_name(str(image_key(row["image_id"])), entries)
    if not isinstance(name, str) or Path(name).suffix.lower() != ".png":
        raise InputError(f"file_name is {name!r}: expected the name of a PNG")
    if not isinstance(segments, list):
        raise InputError("segments_info is no list")
    files = inside(images.folder, images.find(photo)), inside(maps.folder, maps.find(name))
    item = Item(name, files, segments)
    _target(item, output)
    return item


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
        kept = [segment["id"] for segment in segments if segment.get("iscrowd") and self.crowds == "keep"]
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
