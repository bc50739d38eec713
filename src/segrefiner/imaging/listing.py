"""Which pictures a folder holds, what else is there, and which names mean the same file."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from unicodedata import normalize

from ..errors import InputError, OutputError, reason
from ..ledger import Entry

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    *(".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
"""Of files in folders that are taken for pictures, in either case."""
HIDDEN = "hidden: its name begins with a dot"
NO_PICTURE = "no picture by its suffix"
NOWHERE = "a link to nowhere"
NO_FILE = "a pipe, socket or device"
CYCLE = "a link to a folder that it lies in"
_OWN = ".segrefiner"
"""What the names of a job's own files begin or end with."""
_VISITS = 32
"""How often one folder is entered by ways through links: links to folders of links would multiply without end."""


@dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Attributes:
        pictures: Regular files with one of the suffixes, relative to the folder, sorted.
        left_out: All else, by path; of a hidden folder, the folder alone.
    """

    pictures: tuple[Path, ...]
    left_out: tuple[Entry, ...]


def list_pictures(folder: Path, *, without: Path | Collection[Path] | None = None, below: bool = True) -> Listing:
    """Lists the pictures below a folder; links to folders are followed, and nothing is opened.

    Args:
        folder: Where to look.
        without: Folders that are not entered and not mentioned, such as that of earlier results.
        below: Whether folders in it are entered; otherwise they are not mentioned.

    Raises:
        InputError: It is no folder.
    """
    return list_files(folder, SUFFIXES, without=without, below=below)


def list_files(
    folder: Path,
    suffixes: Collection[str],
    *,
    without: Path | Collection[Path] | None = None,
    below: bool = True,
) -> Listing:
    """`list_pictures` of files that end in other suffixes, in either case."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    others = [without] if isinstance(without, Path) else without or ()
    barred = {_identity(other) for other in others if other.is_dir()}
    pictures: list[Path] = []
    left_out: list[Entry] = []
    visits: Counter[tuple[int, int]] = Counter()
    waiting: list[tuple[Path, tuple[tuple[int, int], ...], bool]] = [(Path(), (_identity(folder),), False)]
    while waiting:
        place, above, linked = waiting.pop()
        try:
            names = sorted(os.listdir(folder / place))
        except OSError as error:
            left_out.append(Entry(str(folder / place), f"a folder that cannot be read ({reason(error)})"))
            continue
        for name in names:
            path = folder / place / name
            kind = _kind(path, suffixes)
            if name.startswith(_OWN) or name.endswith(_OWN):
                continue
            if isinstance(kind, tuple) and below and kind not in barred:
                by_link = linked or path.is_symlink()
                # The way without links is always taken.
                visits[kind] += by_link
                if kind in above:
                    kind = CYCLE
                elif by_link and visits[kind] > _VISITS:
                    kind = f"a folder that {_VISITS} other links lead to"
                else:
                    waiting.append((place / name, (*above, kind), by_link))
            if kind == "":
                pictures.append(place / name)
            elif isinstance(kind, str):
                left_out.append(Entry(str(path), kind))
    return Listing(tuple(sorted(pictures)), tuple(sorted(left_out, key=lambda entry: entry.name)))


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _kind(path: Path, suffixes: Collection[str]) -> str | tuple[int, int]:
    """The identity of a folder, an empty string for a file with one of the suffixes, or why it is neither."""
    if path.name.startswith("."):
        return HIDDEN
    try:
        found = path.stat()
    except OSError as error:
        return NOWHERE if path.is_symlink() else f"cannot be read ({reason(error)})"
    if stat.S_ISDIR(found.st_mode):
        return found.st_dev, found.st_ino
    if not stat.S_ISREG(found.st_mode):
        return NO_FILE
    return "" if path.suffix.lower() in suffixes else NO_PICTURE


def composed(name: str) -> str:
    """A name with composed characters and with slashes: some systems store `é` as two, some write backslashes."""
    return normalize("NFC", name.replace("\\", "/"))


def folded(name: str) -> str:
    """A name without the difference of upper and lower case."""
    return composed(composed(name).casefold())


SPELLINGS: tuple[Callable[[str], str], ...] = (composed, folded)
"""How names are compared that are not the same, the closest first."""


def same_names(wanted: Iterable[str], present: Iterable[str]) -> dict[str, str]:
    """Which of the names that are there is meant by each that is wanted.

    The same name is, or else the one that differs in how characters are composed, or else in case, where there is
    exactly one such on both sides.
    """
    wanted, present = set(wanted), set(present)
    found = {name: name for name in wanted & present}
    for spelling in SPELLINGS:
        there = _grouped(present - set(found.values()), spelling)
        for key, names in _grouped(wanted - found.keys(), spelling).items():
            others = there.get(key, [])
            if len(names) == len(others) == 1:
                found[names[0]] = others[0]
    return found


def ensure_regular(path: Path) -> None:
    """Raises `InputError` for what must not be opened: a pipe or device could hold the reader for ever.

    Raises `OSError` where there is nothing.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no name that a file can have ({reason(error)}): correct it") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else NO_FILE}: expected a file")


def inside(root: Path, name: str) -> Path:
    """The path of a name inside a folder. Raises `OutputError` where it leads out of it."""
    path = Path(os.path.normpath(root / name))
    if os.path.isabs(name) or not path.is_relative_to(os.path.normpath(root)) or "\0" in name:
        raise OutputError(f"{name!r} leads out of {str(root)!r}: expected a name inside it")
    return path


class Names:
    """Finds the files that names in a document mean, below a folder.

    A name may have backslashes, another composition of characters, or another case than the file, where one file alone
    is meant. Folders are listed once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._groups: dict[Path, list[dict[str, list[str]]]] = {}
        self._stems: dict[Path, list[dict[str, list[str]]]] = {}

    def find(self, name: str) -> str:
        """The name of the file that is there; the given one where there is none. Raises `InputError` for several."""
        slashed = name.replace("\\", "/")
        parts = slashed.split("/")
        # Nothing is looked for outside of the folder.
        if name.startswith("/") or ".." in parts or "\0" in name:
            return name
        for given in dict.fromkeys((name, slashed)):
            if _is_there(self.folder / given):
                return given
        place = Path()
        for part in parts:
            if not _is_there(self.folder / place / part):
                alike: list[str] = next((g[k] for g, k in self._alike(place, part) if k in g), [])
                if not alike:
                    return name
                if len(alike) > 1:
                    raise InputError(f"{name!r} may be any of {', '.join(sorted(alike)[:3])}: expected one such file")
                part = alike[0]
            place = place / part
        return place.as_posix()

    def find_picture(self, stem: str) -> str:
        """The picture of a path without its suffix; that path where there is none.

        Raises `InputError` where there are several.
        """
        # Nothing is looked for outside of the folder.
        if stem.startswith("/") or ".." in stem.replace("\\", "/").split("/") or "\0" in stem:
            return stem
        for given in dict.fromkeys((stem, stem.replace("\\", "/"))):
            parent, _, last = given.rpartition("/")
            place = Path(self.find(parent) if parent else "")
            alike = next((group[key] for group, key in self._alike_stems(place, last) if key in group), [])
            if len(alike) > 1:
                names = ", ".join((place / name).as_posix() for name in sorted(alike)[:3])
                raise InputError(f"the photo {given!r} may be any of {names}: expected one such file")
            if alike:
                return (place / alike[0]).as_posix()
        return stem

    def _alike(self, place: Path, part: str) -> Iterator[tuple[dict[str, list[str]], str]]:
        """For each spelling, a folder's names by how they are compared, and how this one is."""
        if place not in self._groups:
            names = _entries(self.folder / place)
            self._groups[place] = [_grouped(names, spelling) for spelling in SPELLINGS]
        yield from zip(self._groups[place], (spelling(part) for spelling in SPELLINGS), strict=True)

    def _alike_stems(self, place: Path, stem: str) -> Iterator[tuple[dict[str, list[str]], str]]:
        """The same for a folder's pictures without their suffixes; that very name comes first."""
        spellings: tuple[Callable[[str], str], ...] = (str, *SPELLINGS)
        if place not in self._stems:
            names = [name for name in _entries(self.folder / place) if not _kind(self.folder / place / name, SUFFIXES)]
            self._stems[place] = [_grouped(names, spelling, _stem) for spelling in spellings]
        yield from zip(self._stems[place], (spelling(stem) for spelling in spellings), strict=True)


@lru_cache(maxsize=8)
def names_in(folder: Path) -> Names:
    """The files below a folder, which each process lists once."""
    return Names(folder)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _grouped(
    names: Iterable[str], spelling: Callable[[str], str], part: Callable[[str], str] = str
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(spelling(part(name)), []).append(name)
    return groups


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
