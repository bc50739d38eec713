"""LabelMe's files, and X-AnyLabeling's: one JSON file for each photo, with `shapes`.

Polygons and masks are refined; all other shapes stay. One shape stays one shape: parts and holes of a mask that is
written as a polygon are joined to its outline.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, MaskError
from ..imaging.files import Json
from ..imaging.json_files import write_json
from .coco import nan_notes
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto
from .folders import JsonFolder, names_beside, output_place
from .json_edits import JsonFile, element_spans, member_edits, member_spans
from .masks import finite, flat_points, image_size, paired_points, whole

_VERSION = "5.5.0"
"""Of LabelMe, the first whose files may have masks of a photo of any size."""


@dataclass(frozen=True)
class LabelMeDocument:
    """LabelMe files.

    Attributes:
        folder: The files.
    """

    folder: JsonFolder

    @property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        return "labelme"

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        paths = self.folder.paths

        def read_photo(key: str, file: JsonFile) -> tuple[AnnotatedPhoto, Contents]:
            return _read_photo(key, file, paths[key])

        return self.folder.contents(read_photo, is_labelme)

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        self.folder.write(target, results, _edited)


def is_labelme(value: Any) -> bool:
    """Whether JSON is of a LabelMe file."""
    return isinstance(value, dict) and isinstance(value.get("shapes"), list)


def _read_photo(key: str, file: JsonFile, path: Path) -> tuple[AnnotatedPhoto, Contents]:
    value = file.value
    name, data = value.get("imagePath"), value.get("imageData")
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError("it has no imagePath: expected the photo's name")
    instances, failures, left_out = [], {}, {}
    for index, shape in enumerate(value["shapes"]):
        told = f"{key}: shape {index}"
        try:
            stored = _stored(shape)
        except MaskError as error:
            failures[told] = str(error)
            continue
        if stored is None:
            left_out[told] = f"a {shape.get('shape_type')!s:.20}, which stays as it is"
            continue
        label = shape.get("label")
        number = whole(shape.get("group_id"))
        group = "" if number is None else str(number)
        label = label if isinstance(label, str) else ""
        instances.append(Instance(str(index), told, stored, label, score=finite(shape.get("score")), group=group))
    photo = AnnotatedPhoto(
        key,
        (*names_beside(key, name), *_from_here(path, name)),
        tuple(instances),
        image_size(value.get("imageHeight"), value.get("imageWidth")),
        path if isinstance(data, str) and data else None,
    )
    notes = nan_notes([], value) if file.odd else ()
    return photo, Contents((), failures, left_out, tuple(f"{key}: {note}" for note in notes))


def _from_here(path: Path, name: str) -> tuple[str, ...]:
    """The whole path of a photo in a folder beside that of its file: it counts if the user names that folder."""
    slashed = name.replace("\\", "/")
    return (os.path.normpath(path.parent.absolute() / slashed),) if ".." in slashed.split("/") else ()


def _stored(shape: Any) -> Json | None:
    """A shape's mask; None for what is no mask. Raises `MaskError`."""
    if not isinstance(shape, dict):
        raise MaskError("expected an object with label, points and shape_type")
    kind = shape.get("shape_type") or "polygon"
    if kind == "polygon":
        return {"polygons": [flat_points(shape.get("points"))]}
    if kind == "mask":
        points = shape.get("points")
        return {"png": shape.get("mask"), "corner": points[0] if isinstance(points, list) and points else None}
    return None


def _edited(file: JsonFile, new: dict[str, Json]) -> bytes:
    spans = element_spans(file.text, member_spans(file.text, 0)["shapes"][0])
    edits = []
    for index, one in new.items():
        shape = file.value["shapes"][int(index)]
        values = _members(one["mask"])
        if values["shape_type"] == (shape.get("shape_type") or "polygon"):
            del values["shape_type"]
            if "mask" not in shape:
                values.pop("mask")
        edits += member_edits(file.text, spans[int(index)][0], values)
    return file.edited(edits)


def _members(mask: Any) -> Json:
    """What a shape has of a mask: one ring, or a PNG and its box."""
    if isinstance(mask, list):
        return {"points": paired_points(mask), "shape_type": "polygon", "mask": None}
    left, top, right, bottom = (float(side) for side in mask["box"])
    return {"points": [[left, top], [right, bottom]], "shape_type": "mask", "mask": mask["png"]}


def write_labelme(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes a JSON file for each photo to a folder, without the photo in it."""
    for photo in photos:
        plain: Json = {"group_id": None, "description": "", "flags": {}}
        shapes = [
            {"label": instance.label or "object"} | plain | _members(new["mask"]) for instance, new in photo.objects
        ]
        height, width = photo.size
        document: Json = {
            "version": _VERSION, "flags": {}, "shapes": shapes, "imagePath": PurePosixPath(photo.name).name,
            "imageData": None, "imageHeight": height, "imageWidth": width,
        }  # fmt: skip
        write_json(output_place(target, photo.name, ".json"), document)
