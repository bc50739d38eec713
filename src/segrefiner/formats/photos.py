"""The photos of a document: which files they are."""

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ..errors import InputError, OutputError, SegRefinerError
from ..imaging.listing import HIDDEN, SUFFIXES, Names, inside, list_pictures
from .documents import AnnotatedPhoto, Contents


class PhotoFinder:
    """Finds the photos of a document.

    Args:
        contents: Of the document.
        images: The folder that the user named; by default the document's own are searched.
    """

    def __init__(self, contents: Contents, images: Path | None) -> None:
        self._images = images
        self._found: set[Path] = set()
        self._folders = [Names(folder) for folder in ([images] if images else contents.folders) if folder.is_dir()]

    def find(self, photo: AnnotatedPhoto) -> tuple[Path, str]:
        """The file of a photo, and its name below its folder.

        Raises:
            InputError: There is none, or a name may mean several.
            OutputError: A name leads out of the folder.
        """
        if photo.embedded and not self._images:
            return photo.embedded, PurePosixPath(photo.names[-1]).name
        refused: OutputError | None = None
        for names in self._folders:
            look_up = names.find_picture if photo.any_suffix else names.find
            for name in photo.names:
                try:
                    path = inside(names.folder, look_up(_below(names.folder, name)))
                except OutputError as error:
                    refused = refused or error
                    continue
                if _is_file(path):
                    self._found.add(path)
                    return path, path.relative_to(os.path.normpath(names.folder)).as_posix()
        if photo.embedded:
            return photo.embedded, PurePosixPath(photo.names[-1]).name
        if refused:
            raise refused
        folders = ", ".join(str(names.folder) for names in self._folders) or "any folder: name that of the photos"
        suffix, other = (SUFFIXES[0], " or suffixes") if photo.any_suffix else ("", "")
        others = f" (nor with {len(photo.names) - 1} other names{other})" if len(photo.names) > 1 or suffix else ""
        raise InputError(f"there is no photo {photo.names[0] + suffix!r}{others} in {folders}")

    def note(self, photo: AnnotatedPhoto) -> None:
        """Find a photo of which nothing is needed, so that `unused` passes over it."""
        with suppress(SegRefinerError):
            self.find(photo)

    def unused(self) -> dict[str, str]:
        """What lies beside the photos that were found, or in the folder that the user named, and is none of them.

        Files of annotations and hidden ones are passed over.
        """
        if self._images:
            listings = [(self._images, list_pictures(self._images))] if self._images.is_dir() else []
        else:
            places = sorted({path.parent for path in self._found})
            listings = [(folder, list_pictures(folder, below=False)) for folder in places]
        known = {os.path.normpath(path) for path in self._found}
        others: dict[str, str] = {}
        for folder, listing in listings:
            pictures = (folder / path for path in listing.pictures)
            others |= {str(path): NO_MASK for path in pictures if os.path.normpath(path) not in known}
            others |= {
                entry.name: entry.reason
                for entry in listing.left_out
                if entry.reason != HIDDEN and Path(entry.name).suffix.lower() not in _ANNOTATIONS
            }
        return others


NO_MASK = "a photo that no mask is of"
_ANNOTATIONS = (".json", ".xml", ".txt", ".yaml", ".yml", ".cache", ".md")


def _below(folder: Path, name: str) -> str:
    """A whole path as a name below a folder, where it lies in it."""
    root = os.path.normpath(folder.absolute())
    return os.path.relpath(name, root) if os.path.isabs(name) and Path(name).is_relative_to(root) else name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name that no file system takes.
        return False
