"""YOLO's segmentation labels: for each photo a text file, each line a class and one polygon in parts of the sides.

Texts lie in a folder `labels` beside the photos' `images`, with the same folders in it, or each split has both. The
classes' names are in `data.yaml`. A line has one polygon: parts and holes of a mask are joined to its outline by lines
without width, as YOLO's own converter joins parts.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, MissingExtraError, reason
from ..imaging.files import atomic_write
from ..imaging.json_files import json_text
from ..imaging.listing import SUFFIXES, ensure_regular
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto, label_order
from .folders import files_below, odd_files, output_place

_BOX = 5
"""Words of a line that is a box; a polygon has seven or more."""
_ORIENTED = 8
"""Coordinates of a box that may lie askew."""
_CLASSES = "classes.txt"
"""Where other programs list the classes' names, one in a line, beside the labels or among them."""
_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class YoloDocument:
    """A data set.

    Attributes:
        source: Its folder, or the `data.yaml` in it.
    """

    source: Path

    @property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        return "yolo"

    @property
    def root(self) -> Path:
        """The folder in which the texts are: that of the description, or the one that its `path` names."""
        return self._place[0]

    @property
    def labels(self) -> dict[str, Path]:
        """The texts, by their paths below the root."""
        return self._place[1]

    @cached_property
    def _place(self) -> tuple[Path, dict[str, Path]]:
        """The root and its texts."""
        if self.source.is_dir():
            return self.source, _texts(self.source)
        beside = self.source.parent
        if found := label_files(beside):
            return beside, found
        named = read_classes(self.source).folder
        if named and (found := _texts(named)):
            return named, found
        return beside, _texts(beside)

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        classes = read_classes(self.source)
        photos, failures, left_out = [], {}, odd_files(self.root, ".txt")
        for key, path in self.labels.items():
            try:
                lines = _lines(path)
            except InputError as error:
                failures[key] = str(error)
                continue
            instances = []
            for index, line in enumerate(lines, 1):
                words = line.split()
                if not words:
                    continue
                told = f"{key} line {index}"
                if other := classes.no_mask(words):
                    left_out[told] = f"{other}, which stays as it is"
                    continue
                try:
                    instances.append(_instance(index, told, words, classes.names))
                except InputError as error:
                    failures[told] = str(error)
            photos.append(AnnotatedPhoto(key, _photo_names(key), tuple(instances), any_suffix=True))
        if not self.labels:
            failures[str(self.root)] = "there is no text in a folder labels"
        folders = (self.root / "images", self.root, self.root.parent)
        notes = _notes(photos, classes)
        if self._is_elsewhere:
            notes += (f"the data set of {self.source} is in {self.root}: correct path in the copy",)
        return Contents(tuple(photos), failures, left_out, notes, tuple(classes.names.values()), folders)

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the description lies outside of the data set."""
        return self.source.is_file() and not self.source.resolve().is_relative_to(self.root.resolve())

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        for path in files_below(self.root, ".txt", *_YAML):
            key = path.relative_to(self.root).as_posix()
            new = {int(line): one["mask"] for line, one in results.get(key, {}).items()}
            size = next((one["size"] for one in results.get(key, {}).values()), None)
            place = target / key
            place.parent.mkdir(parents=True, exist_ok=True)
            if not new or size is None:
                shutil.copyfile(path, place)
                continue
            content = path.read_bytes()
            lines = content.decode("utf-8").splitlines(keepends=True)
            for number, ring in new.items():
                lines[number - 1] = _rewritten(lines[number - 1], ring, size)
            atomic_write(place, _writer("".join(lines).encode()))
        if self._is_elsewhere:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.source, target / self.source.name)


def _writer(content: bytes) -> Any:
    return lambda stream: stream.write(content)


def label_files(root: Path) -> dict[str, Path]:
    """The texts in folders called `labels` below a folder, or in it if it is called so."""
    names = {path.relative_to(root).as_posix(): path for path in files_below(root, ".txt")}
    return {
        key: path
        for key, path in names.items()
        if "labels" in (root.name, *PurePosixPath(key).parts[:-1]) and path.name != _CLASSES
    }


def _texts(root: Path) -> dict[str, Path]:
    """The texts of a data set: those in folders `labels`, or else those beside the photos that they are of."""
    return label_files(root) or {
        path.relative_to(root).as_posix(): path for path in files_below(root, ".txt") if _is_beside_photo(path)
    }


def _is_beside_photo(path: Path) -> bool:
    """Whether a text begins as labels do, and has a photo of its name: captions and lists of photos have words."""
    if not any(path.with_suffix(end).is_file() for suffix in SUFFIXES for end in (suffix, suffix.upper())):
        return False
    try:
        words = next((line.split() for line in _lines(path) if line.strip()), [])
        numbers = [float(word) for word in words]
    except (InputError, ValueError):
        return False
    return not words or len(numbers) >= _BOX


def description_files(source: Path) -> list[Path]:
    """The `data.yaml` of a data set, or what it is called."""
    if source.is_file():
        return [source]
    found = sorted(path for path in source.iterdir() if path.suffix.lower() in _YAML and path.is_file())
    return sorted(found, key=lambda path: path.stem != "data")


@dataclass(frozen=True)
class Classes:
    """What a data set says of its classes.

    Attributes:
        names: By number.
        points: Of an object's pose, numbers; 0 where the data set is of masks.
        folder: Where the data set is, if that is said and there.
    """

    names: dict[int, str]
    points: int = 0
    folder: Path | None = None

    def no_mask(self, words: Sequence[str]) -> str:
        """What a line of words is in place of a mask; empty for a mask."""
        if len(words) in (_BOX, _BOX + 1):
            return "a box"
        # A pose would pass for a polygon: a box, and then x and y of each point.
        return "a pose" if self.points and len(words) in (_BOX + self.points, _BOX + self.points + 1) else ""


def read_classes(source: Path) -> Classes:
    """The classes of a data set. Raises `InputError` and `MissingExtraError`."""
    description = next(iter(description_files(source)), None)
    if description:
        return _described(description)
    for path in (source / _CLASSES, source / "labels" / _CLASSES):
        if path.is_file():
            return Classes(dict(enumerate(line.strip() for line in _lines(path))))
    return Classes({})


def _notes(photos: Sequence[AnnotatedPhoto], classes: Classes) -> tuple[str, ...]:
    """What of a data set may be other than it looks."""
    every = [instance for photo in photos for instance in photo.instances]
    notes = []
    unnamed = [instance.name for instance in every if classes.names and instance.label not in classes.names.values()]
    if unnamed:
        more = f" and {len(unnamed) - 1} more" if len(unnamed) > 1 else ""
        notes.append(f"{unnamed[0]}{more}: the class is none of the {len(classes.names)} that are named")
    if every and all(len(instance.mask["polygons"][0]) == _ORIENTED for instance in every):
        notes.append("all polygons have four corners, as oriented boxes have, which are none to refine")
    return tuple(notes)


def _described(path: Path) -> Classes:
    """The classes in a `data.yaml`."""
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise MissingExtraError.needed_by("reading data.yaml", package="pyyaml", extra="formats") from error
    try:
        ensure_regular(path)
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{str(path)!r} cannot be read as YAML ({reason(error)})") from error
    names = value.get("names") if isinstance(value, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    points = value.get("kpt_shape") if isinstance(value, dict) else None
    is_pose = isinstance(points, list) and len(points) == 2 and all(type(one) is int and one > 0 for one in points)
    count = points[0] * points[1] if isinstance(points, list) and is_pose else 0
    folder = _named_folder(path, value.get("path") if isinstance(value, dict) else None)
    if names is None:
        return Classes({}, count, folder)
    if not isinstance(names, dict) or not all(str(number).isdecimal() for number in names):
        raise InputError(f"{str(path)!r} has no names of classes: expected names, a list, or names by number")
    return Classes({int(number): str(name) for number, name in names.items()}, count, folder)


def _named_folder(description: Path, name: Any) -> Path | None:
    """The folder that a description names as its own, relative to the description's."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    folder = Path(os.path.normpath(description.parent / name))
    return folder if os.path.isdir(folder) else None


def _lines(path: Path) -> list[str]:
    try:
        ensure_regular(path)
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"it cannot be read ({reason(error)})") from error


def _instance(index: int, told: str, words: list[str], names: dict[int, str]) -> Instance:
    """The object of a line: class, coordinates in pairs, and at the end the confidence, if it is a prediction."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise InputError("expected a class and coordinates, all of them numbers") from None
    if not numbers[0].is_integer() or numbers[0] < 0:
        raise InputError(f"its class is {words[0]:.20}: expected a whole number")
    if len(words) < _BOX:
        raise InputError(f"it has {len(words)} words: expected a class and x and y of three corners or more")
    score = numbers.pop() if len(numbers) % 2 == 0 else None
    label = names.get(int(numbers[0]), str(int(numbers[0])))
    return Instance(str(index), told, {"polygons": [numbers[1:]], "scale": "relative"}, label, score=score)


def _rewritten(line: str, ring: list[float], size: Sequence[int]) -> str:
    """A line with another polygon; class, confidence and the end of the line stay."""
    words = line.split()
    end = line[len(line.rstrip("\r\n")) :]
    score = words[-1:] if len(words) % 2 == 0 else []
    return " ".join([words[0], *_relative(ring, size), *score]) + end


def _relative(ring: list[float], size: Sequence[int]) -> list[str]:
    # Nine digits give back the pixels that were meant, of which the reader knows thousandths.
    found = [min(max(value / size[(index + 1) % 2], 0.0), 1.0) for index, value in enumerate(ring)]
    return [f"{value:.9f}".rstrip("0").rstrip(".") for value in found]


def _photo_names(key: str) -> tuple[str, ...]:
    """Where a text's photo may be: `images` in place of the last `labels`, or below the folder of the photos."""
    parts = list(PurePosixPath(key).with_suffix("").parts)
    places = [parts]
    if "labels" in parts:
        last = len(parts) - 1 - parts[::-1].index("labels")
        below = parts[last + 1 :]
        places = [[*parts[:last], "images", *below], [*parts[:last], *below], below, parts]
    else:
        places = [["images", *parts], parts]
    return tuple(dict.fromkeys("/".join(place) for place in places))


def write_yolo(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes `labels` and `data.yaml`, for photos that come into `images` beside them."""
    order = list(dict.fromkeys(name or "object" for name in label_order(labels, photos)))
    numbers = {name: number for number, name in enumerate(order)}
    for photo in photos:
        lines = [
            " ".join([str(numbers[instance.label or "object"]), *_relative(new["mask"], photo.size)]) + "\n"
            for instance, new in photo.objects
        ]
        atomic_write(output_place(target / "labels", photo.name, ".txt"), _writer("".join(lines).encode()))
    # Strings of JSON are strings of YAML.
    names = "".join(f"  {number}: {json_text(name)}\n" for name, number in numbers.items())
    text = f"path: .\ntrain: images\nval: images\nnames:\n{names}"
    target.mkdir(parents=True, exist_ok=True)
    atomic_write(target / "data.yaml", _writer(text.encode()))
