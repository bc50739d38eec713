"""The photos of a document: which files they are."""

import os
from pathlib import Path, PurePosixPath

from ..errors import InputError, OutputError
from ..imaging.listing import SUFFIXES, Names, inside
from .documents import AnnotatedPhoto, Contents


class PhotoFinder:
    """Finds the photos of a document.

    Args:
        contents: Of the document.
        images: The folder that the user named; by default the document's own are searched.
    """

    def __init__(self, contents: Contents, images: Path | None) -> None:
        self._is_named = images is not None
        self._folders = [Names(folder) for folder in ([images] if images else contents.folders) if folder.is_dir()]

    def find(self, photo: AnnotatedPhoto) -> tuple[Path, str]:
        """The file of a photo, and its name below its folder.

        Raises:
            InputError: There is none, or a name may mean several.
            OutputError: A name leads out of the folder.
        """
        if photo.embedded and not self._is_named:
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
                    return path, path.relative_to(os.path.normpath(names.folder)).as_posix()
        if photo.embedded:
            return photo.embedded, PurePosixPath(photo.names[-1]).name
        if refused:
            raise refused
        folders = ", ".join(str(names.folder) for names in self._folders) or "any folder: name that of the photos"
        suffix, other = (SUFFIXES[0], " or suffixes") if photo.any_suffix else ("", "")
        others = f" (nor with {len(photo.names) - 1} other names{other})" if len(photo.names) > 1 or suffix else ""
        raise InputError(f"there is no photo {photo.names[0] + suffix!r}{others} in {folders}")


def _below(folder: Path, name: str) -> str:
    """A whole path as a name below a folder, where it lies in it."""
    root = os.path.normpath(folder.absolute())
    return os.path.relpath(name, root) if os.path.isabs(name) and Path(name).is_relative_to(root) else name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # A name that no file system takes.
        return False
