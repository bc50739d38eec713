"""Folders that hold one annotation file for each photo, read file by file: one that is damaged fails alone."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ..errors import InputError, OutputError
from ..imaging.files import Json, atomic_write
from ..imaging.listing import HIDDEN, NO_FILE, NO_PICTURE, NOWHERE, list_files
from .documents import AnnotatedPhoto, Contents, Results
from .json_edits import JsonFile, read_json_file

ReadPhoto: TypeAlias = Callable[[str, JsonFile], tuple[AnnotatedPhoto, Contents]]
"""The photo of a file, by its path, and what else is to be said of it."""


@dataclass(frozen=True)
class JsonFolder:
    """A JSON file, or a folder of them.

    Attributes:
        source: File or folder.
    """

    source: Path

    @property
    def root(self) -> Path:
        """The folder of the file, or the folder itself."""
        return self.source if self.source.is_dir() else self.source.parent

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The files, by their paths below the root."""
        found = files_below(self.source, ".json") if self.source.is_dir() else [self.source]
        return {path.relative_to(self.root).as_posix(): path for path in found}

    def contents(self, read_photo: ReadPhoto, belongs: Callable[[Any], bool]) -> Contents:
        """The photos of all files; those that are no JSON fail, and those of another kind are left out."""
        photos: list[AnnotatedPhoto] = []
        failures: dict[str, str] = {}
        left_out = odd_files(self.root, ".json") if self.source.is_dir() else {}
        notes: list[str] = []
        for key, path in self.paths.items():
            try:
                file = read_json_file(path)
                if not belongs(file.value):
                    left_out[key] = "a JSON file of another kind"
                    continue
                photo, told = read_photo(key, file)
            except InputError as error:
                failures[key] = str(error)
                continue
            photos.append(photo)
            failures |= told.failures
            left_out |= told.left_out
            notes += told.notes
        labels = dict.fromkeys(instance.label for photo in photos for instance in photo.instances)
        folders = (self.root, self.root / "images", self.root.parent / "images")
        return Contents(tuple(photos), failures, left_out, tuple(notes), tuple(filter(None, labels)), folders)

    def write(self, target: Path, results: Results, edited: Callable[[JsonFile, dict[str, Json]], bytes]) -> None:
        """Writes all files, also those that cannot be read, to a folder, or a single one to a file."""
        for key, path in self.paths.items():
            new = dict(results.get(key, {}))
            content = edited(read_json_file(path), new) if new else path.read_bytes()
            place = target / key if self.source.is_dir() else target
            place.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(place, _writer(content))


def _writer(content: bytes) -> Callable[[Any], object]:
    return lambda stream: stream.write(content)


def names_beside(key: str, name: str) -> tuple[str, ...]:
    """Where a photo may be whose file of this path calls it so: beside the file, or at that path itself.

    Of either, folders that the name begins with may be those of another machine, or that of the photos itself.
    """
    parent = PurePosixPath(key).parent
    names = (one.replace("\\", "/") for one in names_below(name))
    return tuple(dict.fromkeys(found for one in names for found in (str(parent / one), str(PurePosixPath(one)))))


def names_below(name: str) -> tuple[str, ...]:
    """What a photo may be called below the folder that is given, which may be one that its name begins with.

    A name that leads out of the folder is left alone, so that it is refused, whatever it ends with.
    """
    slashed = name.replace("\\", "/")
    outside = ".." in slashed.split("/") or slashed.startswith("/")
    return (name,) if outside else tuple(dict.fromkeys((name, PurePosixPath(slashed).name)))


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """Files with one of the suffixes below a folder, sorted, but hidden ones; links to folders are followed."""
    return [folder / path for path in list_files(folder, suffixes).pictures]


def odd_files(folder: Path, *suffixes: str) -> dict[str, str]:
    """What may hold annotations and cannot be read: pipes and links to nowhere of a suffix, closed folders, cycles."""
    odd = {}
    for entry in list_files(folder, suffixes).left_out:
        path = Path(entry.name)
        is_other = entry.reason in (HIDDEN, NO_PICTURE)
        if not is_other and (path.suffix.lower() in suffixes or entry.reason not in (NO_FILE, NOWHERE)):
            odd[path.relative_to(folder).as_posix()] = entry.reason
    return odd


def output_place(target: Path, photo: str, suffix: str) -> Path:
    """Where the annotations of a photo go, below a folder that is made. Raises `OutputError`."""
    place = Path(os.path.normpath(target / Path(photo).with_suffix(suffix)))
    if not place.is_relative_to(os.path.normpath(target)):
        raise OutputError(f"{photo!r} leads out of {str(target)!r}: expected a name inside it")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
