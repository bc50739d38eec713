"""JSON texts in which single values are replaced, and every other character stays as it was."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..imaging.json_files import json_text, parse_odd, read_json, read_odd

Span: TypeAlias = tuple[int, int]
"""Where a value begins and ends in a text."""
Edit: TypeAlias = tuple[Span, str]
"""A part of a text, and what takes its place."""

_decoder = json.JSONDecoder()
_blank = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class JsonFile:
    """A JSON file that has been read.

    Attributes:
        content: Its bytes.
        text: The same as text.
        value: What stands in it.
        odd: Whether numbers in it are NaN or infinite.
    """

    content: bytes
    text: str
    value: Any
    odd: bool = False

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """The content with other values in some places; NaN and infinite numbers, which JSON lacks, become null."""
        edits = list(edits)
        if not edits and not self.odd:
            return self.content
        text = replace_spans(self.text, edits)
        return (json_text(json.loads(text)) if self.odd else text).encode(json.detect_encoding(self.content))


def read_json_file(path: Path) -> JsonFile:
    """A JSON file with its text. Raises `InputError`."""

    def parse(text: str) -> JsonFile:
        value, odd = parse_odd(text)
        return JsonFile(b"", text, value, odd)

    found = read_json(path, parse)
    return replace(found, content=path.read_bytes())


def read_values(path: Path) -> JsonFile:
    """A JSON file without its text and bytes, which need twice its size. Raises `InputError`."""
    return JsonFile(b"", "", *read_odd(path))


def element_spans(text: str, start: int) -> list[Span]:
    """The elements of the list that begins at a place of a sound JSON text."""
    found: list[Span] = []
    place = _skip(text, _skip(text, start) + 1)
    while text[place] != "]":
        _, end = _decoder.raw_decode(text, place)
        found.append((place, end))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return found


def member_spans(text: str, start: int) -> dict[str, Span]:
    """The values of the object that begins at a place of a sound JSON text, by name; of a name's several the last."""
    found: dict[str, Span] = {}
    place = _skip(text, _skip(text, start) + 1)
    while text[place] != "}":
        name, end = _decoder.raw_decode(text, place)
        place = _skip(text, _skip(text, end) + 1)
        _, end = _decoder.raw_decode(text, place)
        found[name] = (place, end)
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return found


def member_edits(text: str, start: int, values: dict[str, Any]) -> list[Edit]:
    """The edits that give members of the object at a place new values; those that it lacks come at its end.

    Values that are dictionaries in `values` and objects in the text are edited in turn, so that their other members
    stay.
    """
    spans = member_spans(text, start)
    edits: list[Edit] = []
    added = []
    for name, value in values.items():
        if name not in spans:
            added.append(f"{json_text(name)}: {json_text(value)}")
        elif isinstance(value, Members) and text[spans[name][0]] == "{":
            edits += member_edits(text, spans[name][0], value)
        else:
            edits.append((spans[name], json_text(value)))
    if added:
        place = max((end for _, end in spans.values()), default=_skip(text, start) + 1)
        edits.append(((place, place), ", " * bool(spans) + ", ".join(added)))
    return edits


class Members(dict[str, Any]):
    """Members of an object that take new values, while the others stay."""


def replace_spans(text: str, edits: Iterable[Edit]) -> str:
    """The text with other text in some places, which do not overlap."""
    parts, place = [], 0
    for (start, end), other in sorted(edits):
        parts += [text[place:start], other]
        place = end
    return "".join([*parts, text[place:]])


def _skip(text: str, place: int) -> int:
    found = _blank.match(text, place)
    assert found
    return found.end()
