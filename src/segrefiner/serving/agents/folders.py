"""The folders that an agent may use, and the paths that it names in them.

An agent's paths come from whatever it reads. A path counts as inside a folder where it really lies, after all links and
`..` are followed. What lies elsewhere is refused in the same words whether it is there or not.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from ...errors import InputError, reason
from ...imaging.files import check_output
from ...imaging.listing import ensure_regular

_ENTRIES = 100_000
"""Of a folder that a job may be asked for: each of them is looked at before anything is done."""


class AllowedFolders:
    """Folders that were named at the start; nothing outside of them is read or written.

    Args:
        folders: At least one. A relative path is meant below it where there is only one.

    Raises:
        InputError: One of them is no folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{str(folder)!r} is no folder: name one that agents may read and write")
        self.roots = tuple(dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders))

    def file(self, name: str, what: str) -> Path:
        """The regular file that a name means. Raises `InputError`."""
        path = self._inside(name, what)
        try:
            ensure_regular(path)
        except OSError as error:
            raise InputError(f"{what} {name!r} cannot be read ({reason(error)}): check the path") from error
        return path

    def content(self, name: str, what: str, most: int) -> bytes:
        """What stands in a file of at most so many bytes. Raises `InputError`."""
        path = self.file(name, what)
        try:
            with open(path, "rb") as stream:
                content = stream.read(most + 1)
        except OSError as error:
            raise InputError(f"{what} {name!r} cannot be read ({reason(error)}): check the path") from error
        if len(content) > most:
            raise InputError(f"{what} {name!r} is larger than {most / 1e6:g} MB, the limit: use a smaller file")
        return content

    def folder(self, name: str, what: str) -> Path:
        """The folder that a name means, whose links all stay inside. Raises `InputError`."""
        path = self._inside(name, what)
        if not path.is_dir():
            raise InputError(f"{what} {name!r} is no folder: check the path")
        self._check_links(path)
        return path

    def new_file(self, name: str, what: str, *, replace: bool) -> Path:
        """Where a PNG may be written. Raises `InputError`, also where a file is there that is not to be replaced."""
        path = self._inside(name, what)
        check_output(path)
        if path.exists() and not replace:
            raise InputError(f"{what} {name!r} is there already: choose another name, or say replace")
        return path

    def new_folder(self, name: str, what: str) -> Path:
        """The folder that a name means, which need not be there yet. Raises `InputError`."""
        path = self._inside(name, what)
        if path.exists():
            return self.folder(name, what)
        return path

    def contains(self, path: str | os.PathLike[str]) -> bool:
        """Whether something really lies inside."""
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(root) for root in self.roots)

    def _inside(self, name: str, what: str) -> Path:
        """Where a name leads, without links."""
        foreign = os.name != "nt" and PureWindowsPath(name).drive
        path = Path(name)
        if not path.is_absolute():
            if len(self.roots) > 1:
                raise InputError(f"{what} {name!r} is relative, which is not clear with several folders: {self._told}")
            path = self.roots[0] / path
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError):
            real = None
        if real is None or foreign or "\0" in name or not name or not self.contains(real):
            raise InputError(f"{what} {name!r} is outside of what this tool may use: {self._told}")
        return real

    @property
    def _told(self) -> str:
        return f"expected a path inside {' or '.join(map(str, self.roots))}"

    def _check_links(self, folder: Path) -> None:
        """Refuses a folder with links to elsewhere, which a job would follow."""
        for count, entry in enumerate(_entries(folder), 1):
            if count > _ENTRIES:
                raise InputError(f"{str(folder)!r} holds more than {_ENTRIES} files: name a smaller folder")
            if not self.contains(entry):
                raise InputError(f"{entry!r} is a link that leads out of what this tool may use: remove it")


def _entries(folder: Path) -> Iterator[str]:
    """The links and folders below a folder, and its files; folders behind links as well, each once."""
    waiting, seen = [os.fspath(folder)], set[str]()
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(place) as found:
                entries = list(found)
        except OSError as error:
            raise InputError(f"the folder {place!r} cannot be read ({reason(error)}): check its permissions") from error
        for entry in entries:
            # Before it is entered, who asks has said that it lies inside.
            yield entry.path
            if entry.is_dir():
                waiting.append(entry.path)
