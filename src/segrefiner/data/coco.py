"""Objects of COCO and LVIS annotation files as training data."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, InputError, MaskError
from ..formats.coco import (
    decode_segmentation,
    image_key,
    is_crowd,
    is_empty,
    photo_place,
    read_records,
    split_folders,
)
from ..imaging.codecs.option_checks import shown
from ..imaging.listing import Names, names_in
from ..imaging.reading import check_fits, read_photo, warn_of
from ..ledger import Entry
from .sources import Sample, validate

_PAGES = "COCO is to be had at https://cocodataset.org, LVIS at https://www.lvisdataset.org"


@dataclass(frozen=True, eq=False)
class CocoObjects:
    """The objects of an annotation file, one sample each.

    Segmentations stay text until they are read, one after another in one array of bytes: LVIS has 1.3 million, which as
    Python objects would fill ten times the memory, in every worker process.

    Attributes:
        name: What messages call the source.
        root: Folder of the photos; names that lead out of it are refused.
        files: File of each photo, below `root`.
        photo_of: `(N,)` int32, the photo of each object.
        ids: Id of each object's annotation.
        text: `(M,)` uint8, JSON of the segmentations.
        ends: `(N,)` int64, where each of them ends.
        objects: Always true: samples are single objects of photos that show more than these.
        left_out: Annotations that are no samples, and why.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    photo_of: NDArray[np.int32]
    ids: tuple[Any, ...]
    text: NDArray[np.uint8]
    ends: NDArray[np.int64]
    objects: bool = True
    left_out: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Sample:
        """Reads one object, with the whole photo. Raises `InputError` where photo or segmentation cannot be read."""
        file = self.files[self.photo_of[index]]
        path = self.root / names_in(self.root).find(file)
        where = f"annotation {self.ids[index]!r} of {file}"
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ImageError(f"{where} names a photo outside {self.root}: expected a name without ..")
        photo = read_photo(path)
        start = int(self.ends[index - 1]) if index else 0
        segmentation = json.loads(self.text[start : int(self.ends[index])].tobytes())
        try:
            mask, notes = decode_segmentation(segmentation, photo.pixels.shape[:2])
            warn_of((*check_fits(photo, mask), *(f"{where}: {note}" for note in notes)))
        except MaskError as error:
            raise MaskError(f"{where}: {error}") from error
        return validate(Sample(f"{path.stem}_{self.ids[index]}", photo.pixels, mask, None), where)


def open_coco(annotations: Path, images: Path | None = None) -> CocoObjects:
    """The objects of a COCO or LVIS v1 annotation file. Crowds are left out.

    Args:
        annotations: The JSON file. LVIS names its photos by `coco_url`, whose last two parts are their place.
        images: Folder of the photos. By default the folder of the file, the one above it, or `images/` or a folder
            named like the file's split in one of them, whichever holds one of the first photos.

    Raises:
        InputError: The file is no such file, has no objects, or the photos are nowhere to be found.
    """
    records = read_records(annotations)
    listed, objects = records.listed.get("images"), records.rows
    if listed is None:
        raise InputError(f"{annotations} has no lists images and annotations: expected COCO or LVIS annotations")
    files, places = _listed_photos(annotations, listed)
    ids: list[Any] = []
    photo_of: list[int] = []
    texts: list[bytes] = []
    seen: set[Any] = set()
    left_out: list[Entry] = []
    for index, entry in enumerate(objects):
        if not isinstance(entry, dict) or is_crowd(entry):
            left_out.append(Entry(f"annotation {index}", "a crowd" if isinstance(entry, dict) else "no object of JSON"))
            continue
        if is_empty(entry.get("segmentation")):
            left_out.append(Entry(f"annotation {index}", "its segmentation is empty"))
            continue
        photo, name = entry.get("image_id"), entry.get("id", len(ids))
        if not isinstance(name, int | float | str):
            raise InputError(
                f"{annotations}: annotation {index} has the id {shown(name)}: expected a number or a string"
            )
        place = places.get(image_key(photo))
        if place is None:
            raise InputError(f"{annotations}: annotation {name!r} is of photo {shown(photo)}, which is not listed")
        if name in seen:
            raise InputError(f"{annotations} has two annotations with the id {name!r}: ids must differ")
        seen.add(name)
        ids.append(name)
        photo_of.append(place)
        texts.append(json.dumps(entry.get("segmentation")).encode())
    if not ids:
        crowds = f" but {len(left_out)} that are left out, such as crowds" if left_out else ""
        raise InputError(f"{annotations} has no objects{crowds}: expected annotations with segmentations")
    return CocoObjects(
        str(annotations),
        _root(annotations, images, [files[place] for place in photo_of[:20]]),
        tuple(files),
        np.array(photo_of, np.int32),
        tuple(ids),
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([len(text) for text in texts], dtype=np.int64),
        left_out=tuple(left_out),
    )


def _listed_photos(annotations: Path, listed: list[Any]) -> tuple[list[str], dict[str | None, int]]:
    """The photos' files, and the number of each by its id. Raises `InputError` where an entry is none, or ids recur."""
    files: list[str] = []
    places: dict[str | None, int] = {}
    for entry in listed:
        file = photo_place(entry)
        key = None if file is None else image_key(entry.get("id"))
        if file is None or key is None:
            raise InputError(f"{annotations} lists a photo without id or name of a file: {str(entry)[:200]}")
        if key in places:
            raise InputError(f"{annotations} lists two photos with the id {entry['id']!r}: ids must differ")
        places[key] = len(files)
        files.append(file)
    return files, places


def _is_there(names: Names, file: str) -> bool:
    try:
        return os.path.isfile(names.folder / names.find(file))
    except InputError:
        return False


def _root(annotations: Path, images: Path | None, files: list[str]) -> Path:
    """The folder that holds most of the first photos; some may be absent, but not all."""
    candidates = [images] if images else split_folders(annotations)
    inside = [file for file in files if ".." not in Path(file).parts]
    there = [sum(_is_there(names, file) for file in inside) for names in map(Names, candidates)]
    if any(there):
        return candidates[there.index(max(there))]
    tried = ", ".join(str(root) for root in candidates)
    raise InputError(f"{annotations}: its photos, such as {files[0]}, are not in {tried}: name their folder as "
                     f"{annotations}@FOLDER. {_PAGES}")  # fmt: skip
