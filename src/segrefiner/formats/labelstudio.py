"""Label Studio's JSON export: tasks with annotations and predictions, whose results hold brush masks and polygons.

Polygons are in per cent of the photo, brush masks in Label Studio's own packing; all other results stay.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..errors import MaskError
from ..imaging.files import Json, atomic_write
from ..imaging.json_files import write_json
from ..imaging.listing import SUFFIXES
from .coco import nan_notes
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto
from .json_edits import Edit, JsonFile, Members, Span, element_spans, member_edits, member_spans
from .masks import Mask, encode_mask, finite, flat_points, image_size, paired_points

_LISTS = ("annotations", "predictions", "completions")
_HASH = 8
"""Characters that an upload's name begins with, before a minus."""
_LONGEST = 4000
"""Characters of an address, at its end, that are looked at."""
_PICTURE = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})([?#].*)?$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class LabelStudioDocument:
    """An export.

    Attributes:
        source: Where it was read.
        file: What stands in it.
    """

    source: Path
    file: JsonFile

    @property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        return "labelstudio"

    @property
    def _tasks(self) -> list[Any]:
        return self.file.value if isinstance(self.file.value, list) else [self.file.value]

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        photos: list[AnnotatedPhoto] = []
        failures: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for index, task in enumerate(self._tasks):
            key = str(index)
            names = _photo_names(task)
            if not names:
                failures[f"task {index}"] = "expected an object with data, which names one photo"
                continue
            instances = []
            for place, result in _results(task):
                told = f"task {index}: {place}"
                try:
                    instance = result_instance(place, told, result)
                except MaskError as error:
                    failures[told] = str(error)
                    continue
                if instance is None:
                    left_out[told] = f"{_type(result)!s:.30}, which is no mask and stays as it is"
                else:
                    instances.append(instance)
            photos.append(AnnotatedPhoto(key, names, tuple(instances)))
        root = self.source.parent
        notes = nan_notes([], self.file.value) if self.file.odd else ()
        labels = dict.fromkeys(instance.label for photo in photos for instance in photo.instances)
        folders = (root, root / "images")
        return Contents(tuple(photos), failures, left_out, notes, tuple(filter(None, labels)), folders)

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        text = self.file.text
        edits: list[Edit] = []
        tasks = element_spans(text, 0) if isinstance(self.file.value, list) else [(0, len(text))]
        for key, new in results.items():
            spans = _result_spans(text, tasks[int(key)]) if new else {}
            found = dict(_results(self._tasks[int(key)]))
            for place, one in new.items():
                edits += member_edits(text, spans[place][0], _members(found[place], one["mask"]))
        content = self.file.edited(edits)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda stream: stream.write(content))


def is_labelstudio(value: Any) -> bool:
    """Whether JSON is an export of Label Studio."""
    return any(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and any(name in task for name in _LISTS)
        for task in (value if isinstance(value, list) else [value])
    )


def is_json_min(value: Any) -> bool:
    """Whether JSON is Label Studio's short export, which has the values of the first annotation of each task alone."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and "data" not in first and {"annotation_id", "annotator"} & first.keys() != set()


def _results(task: Json) -> Iterator[tuple[str, Any]]:
    """The results of a task, and their places."""
    for name in _LISTS:
        listed = task.get(name)
        for outer, one in enumerate(listed if isinstance(listed, list) else []):
            results = one.get("result") if isinstance(one, dict) else None
            for inner, result in enumerate(results if isinstance(results, list) else []):
                yield f"{name} {outer} result {inner}", result


def _result_spans(text: str, task: Span) -> dict[str, Span]:
    """Where the same results are in the text."""
    found = {}
    members = member_spans(text, task[0])
    for name in _LISTS:
        if name not in members or text[members[name][0]] != "[":
            continue
        for outer, (start, _) in enumerate(element_spans(text, members[name][0])):
            result = member_spans(text, start).get("result") if text[start] == "{" else None
            if result and text[result[0]] == "[":
                for inner, span in enumerate(element_spans(text, result[0])):
                    found[f"{name} {outer} result {inner}"] = span
    return found


def _type(result: Any) -> Any:
    return result.get("type") if isinstance(result, dict) else "something else than an object"


def result_instance(place: str, told: str, result: Any) -> Instance | None:
    """The mask of a result, with its size and label; None for what is none. Raises `MaskError`."""
    value = result.get("value") if isinstance(result, dict) else None
    if not isinstance(value, dict) or not ("rle" in value or ("points" in value and "polygon" in str(_type(result)))):
        return None
    if result.get("image_rotation") not in (None, 0):
        raise MaskError(
            f"its image is rotated by {result['image_rotation']!r:.20}: rotate the photo itself, and export"
        )
    size = image_size(result.get("original_height"), result.get("original_width"))
    if size is None:
        raise MaskError("it has no original_width and original_height: expected whole numbers")
    if "rle" in value:
        stored: Json = {"brush": value["rle"]}
    else:
        stored = {"polygons": [flat_points(value["points"])], "scale": [size[1] / 100, size[0] / 100]}
    stored["size"] = list(size)
    score = finite(result.get("score", value.get("score")))
    layer = place.rpartition(" result ")[0]
    return Instance(place, told, stored, _label(result, value), score=score, layer=layer)


def refined_result(result: Json, mask: Mask) -> tuple[Json, str]:
    """The same result with another mask `(H, W)` bool that has any pixel.

    Returns:
        The result, and what a polygon, which is one ring, has joined: parts and holes, in words, or an empty string.
    """
    is_brush = "rle" in result["value"]
    encoded, joined = encode_mask(mask, "brush" if is_brush else "ring")
    new = {"rle": encoded["brush"]} if is_brush else {"points": _per_cent(encoded, result)}
    return result | {"value": result["value"] | new}, joined


def _label(result: Json, value: Json) -> str:
    for name in (str(_type(result)), "brushlabels", "polygonlabels", "labels"):
        labels = value.get(name)
        if isinstance(labels, list) and labels and isinstance(labels[0], str):
            return labels[0]
    return ""


def _members(result: Json, mask: Any) -> Json:
    """What a result takes on with another mask: a brush's bytes, or the ring of a polygon."""
    value = result["value"]
    is_brush = isinstance(mask, dict)
    if is_brush == ("rle" in value):
        return {"value": Members(rle=mask["brush"]) if is_brush else Members(points=_per_cent(mask, result))}
    kind = "brushlabels" if is_brush else "polygonlabels"
    label = _label(result, value)
    new = {"format": "rle", "rle": mask["brush"]} if is_brush else {"points": _per_cent(mask, result), "closed": True}
    return {"type": kind, "value": new | ({kind: [label]} if label else {})}


def _per_cent(ring: list[float], result: Json) -> list[list[float]]:
    width, height = result["original_width"], result["original_height"]
    return paired_points([value * 100 / (height if index % 2 else width) for index, value in enumerate(ring)])


def _photo_names(task: Any) -> tuple[str, ...]:
    """What a task's photo may be called: paths below a storage, and the name alone, without an upload's hash."""
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        return ()
    address = _address(data)
    try:
        parts = urlsplit(address)
        local = parse_qs(parts.query).get("d", [])
    except ValueError:
        return ()
    path = unquote(local[0] if local else parts.path).replace("\\", "/").lstrip("/")
    if parts.scheme == "data" or not path:
        return ()
    if ".." in path.split("/"):
        return (path,)
    for prefix in ("data/upload/", "data/local-files/"):
        path = path.removeprefix(prefix)
    name = PurePosixPath(path).name
    plain = name[_HASH + 1 :] if name[_HASH : _HASH + 1] == "-" and name[:_HASH].isalnum() else name
    return tuple(dict.fromkeys(filter(None, (path, name, plain))))


def _address(data: Json) -> str:
    """The value of a task that names its photo: `image`, or else the first that ends as pictures do, or the first."""
    if "image" in data:
        texts = [data["image"]]
    else:
        texts = sorted(data.values(), key=lambda text: not _PICTURE.search(str(text)[-_LONGEST:]))
    # One photo in a list is that photo; of several, results would have to say which.
    alone = [text[0] if isinstance(text, list) and len(text) == 1 else text for text in texts]
    return next((text for text in alone if isinstance(text, str) and text and "\0" not in text), "")


def write_labelstudio(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes tasks with annotations, for a labelling interface whose tags are called `brush` and `polygon`."""
    tasks = []
    for photo in photos:
        height, width = photo.size
        results = []
        for index, (instance, new) in enumerate(photo.objects):
            is_brush = isinstance(new["mask"], dict)
            kind = "brushlabels" if is_brush else "polygonlabels"
            size = {"original_width": width, "original_height": height}
            value = (
                {"format": "rle", "rle": new["mask"]["brush"]}
                if is_brush
                else {"points": _per_cent(new["mask"], size), "closed": True}
            )
            results.append({
                "id": f"object{index}", "type": kind, "from_name": kind.removesuffix("labels"), "to_name": "image",
                **size, "image_rotation": 0, "value": value | {kind: [instance.label or "object"]},
            })  # fmt: skip
        name = f"/data/local-files/?d={photo.name}"
        tasks.append({"data": {"image": name}, "annotations": [{"result": results}]})
    write_json(target, tasks)
