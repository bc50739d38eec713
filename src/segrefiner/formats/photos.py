"""The photos of a document: which files they are."""

import os
from collections.abc import Iterable
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
            for name in photo.names:
                try:
                    path = inside(names.folder, _look_up(names, _below(names.folder, name), photo))
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
            return unused_files(self._images, self._found) if self._images.is_dir() else {}
        others: dict[str, str] = {}
        for folder in sorted({path.parent for path in self._found}):
            others |= unused_files(folder, self._found, below=False)
        return others


def unused_files(folder: Path, used: Iterable[Path], *, below: bool = True) -> dict[str, str]:
    """What lies in a folder and is none of the photos that are used, with the reason.

    Files of annotations and hidden ones are passed over.

    Args:
        folder: Of the photos.
        used: The files that masks are of.
        below: Whether to look into its folders, too.
    """
    known, listing = {os.path.normpath(path) for path in used}, list_pictures(folder, below=below)
    pictures = (folder / path for path in listing.pictures)
    return {str(path): NO_MASK for path in pictures if os.path.normpath(path) not in known} | {
        entry.name: entry.reason
        for entry in listing.left_out
        if entry.reason != HIDDEN and Path(entry.name).suffix.lower() not in _ANNOTATIONS
    }


NO_MASK = "a photo that no mask is of"
_ANNOTATIONS = (".json", ".xml", ".txt", ".yaml", ".yml", ".cache", ".md")


def _look_up(names: Names, name: str, photo: AnnotatedPhoto) -> str:
    """The name of the file that is there; names may lack their suffix, as CVAT's of a clip's frames do."""
    found = name if photo.any_suffix else names.find(name)
    lacks_suffix = photo.any_suffix or PurePosixPath(name.replace("\\", "/")).suffix.lower() not in SUFFIXES
    return names.find_picture(name) if lacks_suffix and not _is_file(names.folder / found) else found


def _below(folder: Path, name: str) -> str:
    """A whole path as a name below a folder, where it lies in it."""
    root = os.path.normpath(folder.absolute())
    return os.path.relpath(name, root) if os.path.isabs(name) and Path(name).is_relative_to(root) else name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name that no file system takes.
        return False
