"""SA-1B's annotation files: one JSON file for each photo, with `image` and `annotations`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..imaging.files import Json
from ..imaging.json_files import write_json
from .coco import NO_SEGMENTATION, is_empty, listed_size, nan_notes, photo_place, row_edits, stored_segmentation
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto
from .folders import JsonFolder, names_beside, output_place
from .json_edits import JsonFile, element_spans, member_spans


@dataclass(frozen=True)
class Sa1bDocument:
    """SA-1B files.

    Attributes:
        folder: The files.
    """

    folder: JsonFolder

    @property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        return "sa1b"

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        return self.folder.contents(_read_photo, is_sa1b)

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        self.folder.write(target, results, _edited)


def is_sa1b(value: Any) -> bool:
    """Whether JSON is of an SA-1B file."""
    return (
        isinstance(value, dict) and isinstance(value.get("image"), dict) and isinstance(value.get("annotations"), list)
    )


def _read_photo(key: str, file: JsonFile) -> tuple[AnnotatedPhoto, Contents]:
    image, rows = file.value["image"], file.value["annotations"]
    name = photo_place(image)
    if name is None:
        raise InputError("its image has no file_name: expected the photo's name")
    instances, failures, left_out = [], {}, {}
    for index, row in enumerate(rows):
        told = f"{key}: annotation {index}"
        if not isinstance(row, dict):
            failures[told] = "expected an object with segmentation"
        elif is_empty(row.get("segmentation")):
            left_out[told] = NO_SEGMENTATION
        else:
            instances.append(Instance(str(index), told, stored_segmentation(row.get("segmentation"))))
    notes = nan_notes(rows, file.value) if file.odd else ()
    photo = AnnotatedPhoto(key, names_beside(key, name), tuple(instances), listed_size(image))
    return photo, Contents((), failures, left_out, tuple(f"{key}: {note}" for note in notes))


def _edited(file: JsonFile, new: dict[str, Json]) -> bytes:
    start = member_spans(file.text, 0)["annotations"][0]
    spans = element_spans(file.text, start)
    edits = [
        edit
        for index, one in new.items()
        for edit in row_edits(file.text, spans[int(index)][0], file.value["annotations"][int(index)], one)
    ]
    return file.edited(edits)


def write_sa1b(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes a JSON file for each photo to a folder; the format has no labels."""
    number = 0
    for index, photo in enumerate(photos, 1):
        rows = []
        for _, new in photo.objects:
            number += 1
            box = [int(side) for side in new["bbox"]]
            rows.append({"id": number, "segmentation": new["mask"], "bbox": box, "area": int(new["area"])})
        height, width = photo.size
        image = {"image_id": index, "width": width, "height": height, "file_name": Path(photo.name).name}
        write_json(output_place(target, photo.name, ".json"), {"image": image, "annotations": rows})
