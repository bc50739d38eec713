"""Patterns that say what a photo's masks are called."""

from glob import escape
from pathlib import Path, PurePosixPath
from string import Formatter

from ..errors import InputError
from ..imaging.listing import folded

_EXPECTED = "expected {parent}, {stem} and {name} alone, or {stem:-_suffix} for a name without its _suffix"


def wanted_names(image: Path, pattern: str) -> str | None:
    """The glob pattern of a photo's masks; `None` where the photo lacks an ending that is to be taken off.

    Args:
        image: The photo's path in its folder.
        pattern: In which `{parent}`, `{stem}` and `{name}` stand for the photo's folder, name without and name with
            suffix; `{stem:-END}` is the name without `END`, which differs in case at most. `*` and `?` match anything.

    Raises:
        InputError: There is anything else in braces.

    ```python
    wanted_names(Path("ulm/a_leftImg8bit.png"), "{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png")
    # 'ulm/a_gtFine_labelIds.png'
    ```
    """
    words = {"parent": image.parent.as_posix(), "stem": image.stem, "name": image.name}
    wanted = ""
    for text, word, ending, conversion in _parsed(pattern):
        wanted += text.replace("[", "[[]")
        if word is None:
            continue
        if word not in words or conversion or "{" in (ending or "") or (ending and not _is_ending(ending)):
            raise InputError(f"pattern {pattern!r}: {_EXPECTED}")
        shortened = _without(words[word], ending[1:]) if ending else words[word]
        if shortened is None:
            return None
        wanted += escape(shortened)
    return str(PurePosixPath(wanted))


def endings(pattern: str) -> list[str]:
    """The endings that a pattern takes off."""
    return [ending[1:] for _, _, ending, _ in _parsed(pattern) if ending]


def _parsed(pattern: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(pattern))
    except ValueError as error:
        raise InputError(f"pattern {pattern!r}: {_EXPECTED}") from error


def _is_ending(ending: str) -> bool:
    return len(ending) > 1 and ending[0] == "-"


def _without(name: str, ending: str) -> str | None:
    """A name without its ending, of which something is left."""
    rest, end = name[: -len(ending)], name[-len(ending) :]
    return rest if rest and folded(end) == folded(ending) else None
