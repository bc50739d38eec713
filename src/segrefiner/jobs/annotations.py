"""Jobs over annotation files of any format: every mask is refined, and the same document, or another, is written."""

import base64
import binascii
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, InputError, SegRefinerError
from ..formats.documents import AnnotatedPhoto, Contents, Document, Format, Instance, Kind, WrittenPhoto
from ..formats.masks import encode_mask, kept_value
from ..formats.photos import PhotoFinder
from ..formats.recognition import SINGLE_FILE, WRITERS, form_of, read
from ..formats.yolo import YoloDocument
from ..imaging.coco_masks import decode_rle, encode_rle, tight_box
from ..imaging.files import Json
from ..imaging.json_files import read_json
from ..imaging.listing import folded
from ..imaging.reading import read_photo
from ..refinement.options import PLAIN, Options
from .instances import (
    CROWD_STAYS,
    Crowds,
    LoadedMasks,
    RefinedMask,
    RefinedMasks,
    StoredMask,
    load_masks,
    refine_masks,
)
from .job import Item, Job, SavedItem

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner

CROWD_LEFT = "a crowd, which the format cannot mark: it is not written; --crowds refine writes it as an object"


def annotations_job(
    source: Path,
    target: Path,
    *,
    images: Path | None = None,
    to: Format | None = None,
    kind: Kind = "same",
    crowds: Crowds = "keep",
    options: Options = PLAIN,
) -> Job:
    """Refines the masks of annotation files.

    Args:
        source: A file or folder of a format that `recognition.read` knows.
        target: The file or folder to write, of the same kind as the format's.
        images: Folder of the photos; by default they are looked for beside the annotations.
        to: The format to write; by default the one that was read.
        kind: Whether masks are written as they were read, as pixels, or as polygons.
        crowds: Whether masks of crowds stay or are refined.
        options: Of each refinement.

    Raises:
        InputError: The source has no known format, or all its masks are of crowds that stay.
    """
    document = read(source)
    contents = document.contents
    same = to in (None, document.format)
    goal = document.format if same or to is None else to
    is_single = _is_single(document, source, goal, same)
    check_target(source, target, images, single=is_single)
    if isinstance(document, YoloDocument):
        check_target(document.root, target, images, single=is_single)
    if images is not None and not images.is_dir():
        raise InputError(f"{images} is no folder")
    found = _Items(contents, goal, same, kind, crowds)
    left_out = contents.left_out | found.crowds(source)
    finder = PhotoFinder(contents, images)
    for photo in contents.photos:
        if not photo.instances:
            left_out[_told(photo)] = "the file has no mask of it"
        found.add(photo, finder)
    left_out |= finder.unused()
    if not contents.photos and not contents.failures and not left_out:
        left_out[str(source)] = "it lists no mask"

    def finish(results: dict[str, Any]) -> None:
        if same:
            document.write(target, {key: _changed(result) for key, result in results.items()})
        else:
            WRITERS[goal](target, contents.labels, found.written(results))

    work = AnnotationProcessor(target.absolute().parent, options)
    failures = contents.failures | found.failures
    notes = contents.notes + found.notes()
    return Job(found.items, work, finish, failures, left_out, notes, _is_result, writes_file=is_single)


class _Items:
    """The items of a document, as its photos are found one after another."""

    def __init__(self, contents: Contents, goal: Format, same: bool, kind: Kind, crowds: Crowds) -> None:
        self._contents, self._goal, self._same, self._kind, self._crowds = contents, goal, same, kind, crowds
        self._marks_crowds = same or goal in ("coco", "lvis")
        self._photos: list[tuple[AnnotatedPhoto, str]] = []
        self._taken: set[str] = set()
        self._entries: Counter[Path] = Counter()
        self.items: list[Item] = []
        self.failures: dict[str, str] = {}

    def crowds(self, source: Path) -> dict[str, str]:
        """The crowds that stay, and why. Raises `InputError` where nothing else is there."""
        if self._crowds == "refine":
            return {}
        every = [instance for photo in self._contents.photos for instance in photo.instances]
        why = CROWD_STAYS if self._marks_crowds else CROWD_LEFT
        stay = {instance.name: why for instance in every if instance.crowd}
        if stay and len(stay) == len(every):
            raise InputError(f"{source}: all {len(stay)} masks are crowds, which stay: give --crowds refine")
        return stay

    def add(self, photo: AnnotatedPhoto, finder: PhotoFinder) -> None:
        """Make an item of a photo that has masks or is to be written; a photo that is not there has failed."""
        masks = [
            _mask(instance, form_of(instance.mask, self._kind, self._goal, same=self._same), self._crowds)
            for instance in photo.instances
            if not (instance.crowd and self._crowds == "keep" and (self._same or not self._marks_crowds))
        ]
        if not masks and self._same:
            finder.note(photo)
            return
        try:
            path, name = finder.find(photo)
            if not self._same and self._goal not in SINGLE_FILE and path not in self._entries:
                check_place(name, self._taken)
        except SegRefinerError as error:
            self.failures[_told(photo)] = f"{error} ({_count(photo)})"
            return
        payload = {"size": photo.size, "masks": masks, "same": self._same, "embedded": path == photo.embedded}
        self.items.append(Item(photo.key, (path,), payload))
        self._photos.append((photo, name))
        self._entries[path] += 1

    def notes(self) -> tuple[str, ...]:
        """Which photos the document lists several times, that a new one lists once."""
        several = {path: count for path, count in self._entries.items() if count > 1 and not self._same}
        return tuple(
            f"{count} entries are of {path}: it is written once, with their masks" for path, count in several.items()
        )

    def written(self, results: dict[str, Any]) -> list[WrittenPhoto]:
        """The photos of a new document, each once."""
        photos: dict[str, WrittenPhoto] = {}
        for photo, name in self._photos:
            if photo.key in results:
                new = _written(photo, name, results[photo.key])
                before = photos.get(name)
                photos[name] = replace(new, objects=[*before.objects, *new.objects]) if before else new
        return list(photos.values())


def _is_single(document: Document, source: Path, goal: Format, same: bool) -> bool:
    return goal in SINGLE_FILE or (same and goal != "yolo" and not source.is_dir())


def check_target(source: Path, target: Path, images: Path | None, *, single: bool) -> None:
    """Raises `InputError` where an output would be an input, or is a folder in place of a file."""
    taken = [source.resolve(), *([images.resolve()] if images else [])]
    if target.resolve() in taken:
        raise InputError(f"the output {target} is an input: choose another name")
    is_set = source.is_dir() or source.suffix.lower() in (".yaml", ".yml")
    if is_set and target.resolve().is_relative_to((source if source.is_dir() else source.parent).resolve()):
        raise InputError(f"the output {target} lies in the folder of the input: choose another one")
    if single and target.is_dir():
        raise InputError(f"the output {target} is a folder: expected the name of a file")
    if not single and target.is_file():
        raise InputError(f"the output {target} is a file: expected the name of a folder")


def check_place(name: str, taken: set[str]) -> None:
    """Raises `InputError` where another photo's annotations have the name of this one's, which joins those taken."""
    place = folded(str(PurePosixPath(name).with_suffix("")))
    if place in taken:
        raise InputError(f"the annotations of {name} would be those of another photo: rename one of the two")
    taken.add(place)


def _mask(instance: Instance, form: str, crowds: Crowds) -> Json:
    stays = instance.crowd and crowds == "keep"
    group = f"{instance.group} {instance.label}" if instance.group else ""
    stored = {"key": instance.key, "name": instance.name, "mask": instance.mask, "form": form, "stays": stays}
    return stored | {"group": group, "layer": instance.layer}


def _told(photo: AnnotatedPhoto) -> str:
    return f"image {photo.key}"


def _count(photo: AnnotatedPhoto) -> str:
    names = [instance.name for instance in photo.instances]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "no mask"


def _changed(result: Json | None) -> dict[str, Json]:
    masks = result["masks"].items() if result else ()
    return {key: new | {"size": result["size"]} for key, new in masks if result and "mask" in new}


def _written(photo: AnnotatedPhoto, name: str, result: Json) -> WrittenPhoto:
    masks = result["masks"]
    objects = [(instance, masks[instance.key]) for instance in photo.instances if "mask" in masks.get(instance.key, {})]
    return WrittenPhoto(name, (result["size"][0], result["size"][1]), objects)


def _is_result(item: Item, result: Any) -> bool:
    """Whether a result is one that `AnnotationProcessor` gives for an item."""
    if result is None:
        return bool(item.payload["same"])
    keys = {mask["key"] for mask in item.payload["masks"]}
    masks = result.get("masks") if isinstance(result, dict) else None
    if not isinstance(masks, dict) or not masks.keys() <= keys or not isinstance(result.get("size"), list):
        return False
    return all(
        isinstance(new, dict) and ("mask" not in new or {"area", "bbox"} <= new.keys()) for new in masks.values()
    )


@dataclass(frozen=True)
class AnnotationProcessor:
    """The masks of one photo → their refined ones, as they will be written.

    An item's payload is the coarse ones as they are stored, with their places and forms, and the size of the photo as
    the file says it.
    """

    root: Path
    options: Options

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        return {"kind": "annotations", **self.options.settings()}

    def load(self, item: Item, contents: Sequence[bytes]) -> LoadedMasks:  # noqa: D102
        content = _embedded(item.inputs[0]) if item.payload["embedded"] else contents[0]
        photo = read_photo(content, name=f"photo {str(item.inputs[0])!r}")
        stored = (
            StoredMask(one["key"], one["name"], one["mask"], one["layer"], one["stays"])
            for one in item.payload["masks"]
        )
        return load_masks(item.key, photo, stored, item.payload["size"])

    def refine(self, refiner: "Refiner", loaded: LoadedMasks) -> RefinedMasks:  # noqa: D102
        return refine_masks(refiner, loaded, self.options)

    def save(self, item: Item, refined: RefinedMasks) -> SavedItem:  # noqa: D102
        payloads = {one["key"]: one for one in item.payload["masks"]}
        found = [_Found(payloads[one.key], encoding, refined.refined.get(one.key)) for one, encoding in refined.coarse]
        same, notes = item.payload["same"], list(refined.notes)
        written: dict[str, Json] = {}
        joined = []
        for one in found if same else merged(found, refined.size):
            new: Json = {"report": one.refined.summary} if one.refined else {}
            if one.is_changed or not same or _is_other(one.stored):
                encoded, lost = _encoded(one, refined.size)
                new |= encoded
                joined += [f"{one.stored['name']} has {lost}"] * bool(lost)
                notes += [] if encoded or same else [f"{one.stored['name']}: it is empty, and so not written"]
            if new:
                written[one.stored["key"]] = new
        if joined:
            more = f"; so it is with {len(joined) - 1} more of this photo" if len(joined) > 1 else ""
            notes.append(f"{joined[0]}, joined to its outline by lines without width, for a polygon has none{more}")
        result = {"size": list(refined.size), "masks": written} if written or not same else None
        return SavedItem({}, result, refined.failures, tuple(notes), refined.idle)


@dataclass(frozen=True)
class _Found:
    """A mask of an item's payload, its coarse encoding, and what became of it."""

    stored: Json
    coarse: Json
    refined: RefinedMask | None

    @property
    def is_changed(self) -> bool:
        return self.refined is not None and self.refined.is_changed

    @property
    def encoding(self) -> Json:
        return self.refined.encoding if self.refined and self.refined.is_changed else self.coarse


def merged(found: list[_Found], size: tuple[int, int]) -> list[_Found]:
    """The masks with one for each group, where its first one is: all pixels of the refined ones."""
    groups: dict[str, list[_Found]] = {}
    for one in found:
        groups.setdefault(one.stored["group"] or one.stored["key"], []).append(one)
    return [group[0] if len(group) == 1 else _union(group, size) for group in groups.values()]


def _union(group: list[_Found], size: tuple[int, int]) -> _Found:
    mask = np.zeros(size, np.bool_)
    for one in group:
        mask |= decode_rle(one.encoding, size)
    summary = group[0].refined.summary if group[0].refined else {}
    return replace(group[0], refined=RefinedMask(encode_rle(mask), True, summary))


def _is_other(stored: Json) -> bool:
    """Whether a mask is to be written in another form than it has, although it stays the same."""
    kinds = {"rle": ("rle", "counts"), "polygons": ("polygons", "ring")}
    (form, _), *_ = stored["mask"].items()
    return stored["form"] not in kinds.get(form, (form,))


def _encoded(one: _Found, size: tuple[int, int]) -> tuple[Json, str]:
    """A mask with area and box in the form that is written, and what the form cannot hold."""
    mask = decode_rle(one.encoding, size)
    if not mask.any():
        return {}, ""
    value, lost = None, ""
    if not one.is_changed:
        value = kept_value(one.stored["mask"], one.stored["form"], size)
    if value is None:
        value, lost = encode_mask(mask, one.stored["form"])
    return {"mask": value, "area": float(mask.sum()), "bbox": tight_box(mask)}, lost


def _embedded(path: Path) -> bytes:
    """The photo that lies in a LabelMe file. Raises `ImageError`."""
    document = read_json(path)
    try:
        return base64.b64decode(document["imageData"], validate=True)
    except (binascii.Error, ValueError, TypeError, KeyError) as error:
        raise ImageError(f"the imageData of {str(path)!r} is no base 64: give the folder of the photos") from error
