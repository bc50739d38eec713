"""Jobs over COCO files: results of a network or annotations, refined and written back with everything else unchanged.

Refined masks are run-length encodings: compressed ones, but for masks that were given with a list of counts. `area` and
`bbox` are those of the refined mask where there were any. Crowds stay as they are, and so does what cannot be read,
which is reported mask by mask. Refined masks of a photo overlap at most where the coarse ones do; crowds that stay do
not count.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, SegRefinerError
from ..formats.coco import (
    NO_SEGMENTATION,
    digits_name,
    file_name,
    image_entries,
    image_key,
    is_crowd,
    is_empty,
    listed_size,
    nan_notes,
    read_records,
    stored_segmentation,
)
from ..formats.photos import unused_files
from ..imaging.coco_masks import decode_rle, encode_rle, tight_box
from ..imaging.files import Json
from ..imaging.json_files import write_json
from ..imaging.listing import Names, inside
from ..imaging.reading import read_photo
from ..refinement.options import PLAIN, Options
from .instances import CROWD_STAYS, Crowds, LoadedMasks, RefinedMasks, StoredMask, load_masks, refine_masks
from .job import Item, Job, SavedItem

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner


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

    work = CocoProcessor(target.absolute().parent, options)
    notes = nan_notes(rows, document) if odd else ()
    return Job(items, work, finish, failures, left_out, notes, _is_result)


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
        elif is_crowd(row) and crowds == "keep":
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
