"""JSON that every reader accepts, and files of it."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError, reason
from .files import atomic_write
from .listing import ensure_regular


def json_text(value: Any, **options: Any) -> str:
    """JSON of a value; NaN and infinite numbers, which JSON does not have, become null. Options are `json.dumps`'s."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(without_nan(value), allow_nan=False, **options)


def without_nan(value: Any) -> Any:
    """The same JSON types, with None for NaN and infinite numbers."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count_nan(value: Any) -> int:
    """How many numbers in JSON types are NaN or infinite."""
    if isinstance(value, dict):
        return sum(map(count_nan, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(count_nan, value))
    return int(isinstance(value, float) and not math.isfinite(value))


def read_odd(path: Path) -> tuple[Any, bool]:
    """What stands in a JSON file, and whether numbers in it are NaN or infinite. Raises `InputError`."""
    found: tuple[Any, bool] = read_json(path, parse_odd)
    return found


def parse_odd(text: str) -> tuple[Any, bool]:
    """What stands in a JSON text, and whether numbers in it are NaN or infinite. Raises as `json.loads` does."""
    odd: list[str] = []

    def constant(name: str) -> float:
        odd.append(name)
        return float(name)

    value = json.loads(text, parse_constant=constant)
    # Looking at the text is quicker than at each of a million numbers; strings may hold the same letters.
    return value, bool(odd) or (_LARGE.search(text) is not None and count_nan(value) > 0)


_LARGE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
"""What a number has that may be too large for a float."""


def read_json(path: Path, parse: Callable[[str], Any] = json.loads) -> Any:
    """What stands in a JSON file.

    Args:
        path: The file.
        parse: Makes a document of its text.

    Raises:
        InputError: It is no file, cannot be read, or is no JSON.
    """
    try:
        ensure_regular(path)
        return parse(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{str(path)!r} is no complete JSON ({error.msg} at line {error.lineno}, column {error.colno}); "
            "copy or download it again"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON ({reason(error)})") from error


def _text(path: Path) -> str:
    # In a function of its own, so that the bytes are gone when the text is parsed.
    content = path.read_bytes()
    return content.decode(json.detect_encoding(content))


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON file, whole or not at all; NaN and infinite numbers become null. Raises `OutputError`."""

    def write(stream: BinaryIO) -> None:
        for piece in _pieces(document):
            stream.write(piece.encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, write)


def _pieces(document: Any, depth: int = 0) -> Iterator[str]:
    """`json_text` of a document, in parts: never the text of all annotations of a file at once."""
    if isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield "[" if index == 0 else ", "
            yield json_text(value)
        yield "]"
    elif depth == 0 and isinstance(document, dict) and document and all(type(name) is str for name in document):
        for index, (name, value) in enumerate(document.items()):
            yield "{" if index == 0 else ", "
            yield f"{json_text(name)}: "
            yield from _pieces(value, depth + 1)
        yield "}"
    else:
        yield json_text(document)
