"""Tables of text, as Markdown, and text that is safe in them."""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ..errors import printable

Json: TypeAlias = dict[str, Any]
Table: TypeAlias = tuple[list[str], list[list[str]]]

NOTHING = "-"


def as_markdown(table: Table) -> str:
    """An aligned table in Markdown, which also reads well in a terminal."""
    header, lines = table
    cells = [[inert(cell) for cell in line] for line in [header, *lines]]
    widths = [max(3, *(_width(line[column]) for line in cells)) for column in range(len(header))]
    numeric = numeric_columns(table)
    ruler = [f"{'-' * (width - 1)}{':' if right else '-'}" for width, right in zip(widths, numeric, strict=True)]

    def line_of(line: Sequence[str]) -> str:
        padded = []
        for cell, width, right in zip(line, widths, numeric, strict=True):
            blanks = " " * (width - _width(cell))
            padded.append(blanks + cell if right else cell + blanks)
        return f"| {' | '.join(padded)} |"

    return "\n".join([line_of(cells[0]), line_of(ruler), *(line_of(line) for line in cells[1:])])


def flattened(values: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a recipe, those of its parts with the part's name before theirs."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def inert(text: str) -> str:
    """Text that Markdown shows as it is: no table's bar, tag or link, and on one line."""
    return printable(re.sub(r"[\\|<\[]", r"\\\g<0>", text))


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold nothing but figures, and belong to the right; the first one holds names."""
    header, lines = table
    return [False, *(all(_FIGURE.match(line[column]) for line in lines) for column in range(1, len(header)))]


_FIGURE = re.compile(r"$|[-+]?(\d|$)")


def _width(text: str) -> int:
    """Columns in a terminal, where East Asian characters take two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
