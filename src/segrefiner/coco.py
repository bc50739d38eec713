"""Jobs over COCO files: results of a network or annotations, refined and written back with everything else unchanged.

Refined masks are run-length encodings: compressed ones, but for masks that were given with a list of counts. `area` and
`bbox` are those of the refined mask where there were any. Crowds stay as they are, and so does what cannot be read,
which is reported mask by mask.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .batch import Item, Job, Saved, inside
from .errors import InputError, MaskError, SegRefinerError
from .folders import summary_of
from .formats.coco import file_name, image_entries, image_key
from .imaging.coco_masks import decode_rle, draw_polygons, encode_rle, rle_runs, tight_box
from .imaging.files import Json
from .imaging.json_files import count_nan, read_json, read_odd, write_json
from .imaging.listing import Names
from .imaging.reading import check_fits, read_photo
from .refinement.options import PLAIN, Options

if TYPE_CHECKING:
    from .refinement.refiner import Refiner


Crowds: TypeAlias = Literal["keep", "refine"]
"""What becomes of masks of crowds: they stay as they are, or are refined like others."""
CROWD_STAYS = "a crowd, which stays as it is; --crowds refine refines it"


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
    document, rows, listed, odd = _read(source, annotations)
    entries, failures = (None, {}) if "images" not in listed else image_entries(listed["images"])
    by_image, left_out = _masks_by_image(rows, crowds, failures)
    if rows and not by_image and left_out:
        raise InputError(f"{source}: all {len(left_out)} masks are crowds, which stay: give --crowds refine")
    items = []
    names = Names(images)
    for key, forms in by_image.items():
        try:
            name = _digits(key) if entries is None else file_name(key, entries)
            photo = inside(images, names.find(name))
        except SegRefinerError as error:
            failures[f"image {key}"] = f"{error} ({_places(forms)})"
            continue
        items.append(Item(key, (photo,), {"size": _size((entries or {}).get(key, {})), "masks": forms}))
    if not rows:
        left_out[str(source)] = "it lists no mask"
    left_out |= images_without_masks(rows, {} if annotations else listed)

    def finish(results: dict[str, Any]) -> None:
        for key in results:
            for index, refined in results[key].items():
                row = rows[int(index)]
                row.update({name: value for name, value in refined.items() if name == "segmentation" or name in row})
        write_json(target, document)

    return Job(
        items,
        CocoWork(target.absolute().parent, options),
        finish,
        failures,
        left_out,
        nan_notes(rows, document) if odd else (),
        _is_result,
    )


def _check_places(source: Path, images: Path, target: Path, annotations: Path | None) -> None:
    if target.resolve() in (source.resolve(), annotations and annotations.resolve()):
        raise InputError(f"the output {target} is an input: choose another name")
    if target.is_dir():
        raise InputError(f"the output {target} is a folder: expected the name of a JSON file")
    if not images.is_dir():
        raise InputError(f"{images} is no folder")


def _read(source: Path, annotations: Path | None) -> tuple[Any, list[Any], Json, bool]:
    """The document, its masks, the document that lists the photos, and what `read_odd` says. Raises `InputError`."""
    document, odd = read_odd(source)
    if isinstance(document, list):
        rows, listed = document, read_json(annotations) if annotations else {}
    elif isinstance(document, dict) and isinstance(document.get("annotations"), list):
        rows, listed = document["annotations"], document
    else:
        raise InputError(f'{source} is neither a list of results nor annotations: expected a list, or "annotations"')
    if not isinstance(listed, dict) or not isinstance(listed.get("images", []), list):
        raise InputError(f'{annotations or source}: expected "images", a list')
    return document, rows, listed, odd


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


def _is_result(item: Item, result: Any) -> bool:
    """Whether a result is one that `CocoWork` gives for an item."""
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


def _digits(key: str) -> str:
    if not key.isdecimal():
        raise InputError("the image id is no number: give the annotations, which say how its file is called")
    return f"{key.zfill(12)}.jpg"


def _size(entry: Json) -> list[int] | None:
    """Height and width of a photo as its entry says, if it does."""
    sides = [entry[name] for name in ("height", "width") if isinstance(entry.get(name), int) and entry[name] > 0]
    return sides if len(sides) == 2 else None


def _encoding(segmentation: Any, size: tuple[int, int]) -> Json:
    """A segmentation as a sound run-length encoding: the given one, or that of its polygons. Raises `MaskError`."""
    if not isinstance(segmentation, dict):
        return encode_rle(draw_polygons(segmentation, size))
    rle_runs(segmentation, size)
    return segmentation


@dataclass(frozen=True)
class CocoWork:
    """The masks of one photo → their refined segmentations.

    An item's payload is the coarse ones, with their places, and the size of the photo as the file says it.
    """

    root: Path
    options: Options

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        return {"kind": "coco", **asdict(self.options)}

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:  # noqa: D102
        photo = read_photo(contents[0], name=f"photo {str(item.inputs[0])!r}")
        masks: list[tuple[Json, Json]] = []
        failures = {}
        height, width = photo.pixels.shape[:2]
        listed = item.payload["size"] or [height, width]
        for form in item.payload["masks"]:
            try:
                # Encodings know their size. Polygons would be drawn askew, into a photo that EXIF turns for example.
                if listed != [height, width] and not isinstance(form["segmentation"], dict):
                    given = f"{listed[1]}x{listed[0]}"
                    raise MaskError(f"polygons of an image of {given}, but it is {width}x{height} (width x height)")
                encoding = _encoding(form["segmentation"], (height, width))
                if photo.orientation > 1:
                    check_fits(photo, decode_rle(encoding, (height, width)))
                masks.append((form, encoding))
            except MaskError as error:
                failures[f"annotation {form['index']} of image {item.key}"] = str(error)
        return photo, masks, failures

    def refine(self, refiner: "Refiner", loaded: Any) -> Any:  # noqa: D102
        photo, masks, failures = loaded
        segmentations, notes, idle = {}, [], {}
        # Decoded when their turn comes: thousands of masks of one photo are small as encodings alone.
        pairs = ((photo, decode_rle(encoding, photo.pixels.shape[:2])) for _, encoding in masks)
        results = refiner.many(pairs, **asdict(self.options))
        for (form, _), result in zip(masks, results, strict=True):
            if result.report.note or not result.mask.any():
                if result.report.note:
                    idle[f"annotation {form['index']}"] = result.report.note
                else:
                    notes.append(f"annotation {form['index']}: nothing would be left: kept as it was")
                continue
            given = form["segmentation"]
            listed = isinstance(given, dict) and isinstance(given["counts"], list)
            segmentations[str(form["index"])] = {
                "segmentation": encode_rle(result.mask, compressed=not listed),
                "area": float(result.mask.sum()),
                "bbox": tight_box(result.mask),
                "report": summary_of(result.report),
            }
            notes += [f"annotation {form['index']}: {warning}" for warning in result.report.warnings]
        return segmentations, failures, tuple(notes), idle

    def save(self, item: Item, refined: Any) -> Saved:  # noqa: D102
        segmentations, failures, notes, idle = refined
        return Saved({}, segmentations, failures, notes, idle)
