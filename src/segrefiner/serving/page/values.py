"""What a browser sends for the page's components, to values of which nothing is left that was not asked for.

Each component has a reader of its own, made from the component itself. A file is a name that the page gave to it; its
address, whatever it says, is never looked at.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr

from ..problems import BAD_REQUEST, ProblemError
from .files import PageFiles

Reader: TypeAlias = Callable[[Any], Any]

FILES = 200
"""Of one component; how many of them may be masks is checked where they are read."""

_TEXT = 400
_LARGEST = 2.0**53
_FILE_KEYS = frozenset({"path", "url", "size", "orig_name", "mime_type", "is_stream", "alt_text", "meta"})
_CANVAS_KEYS = frozenset({"background", "layers", "composite", "id"})
_LAYERS = 8
_ENTRY = re.compile(r"[0-9]{1,4}")


def refused(what: str) -> ProblemError:
    """The problem of a body that the page's own scripts would not send."""
    return ProblemError(BAD_REQUEST, f"{what}: reload the page")


def parse_body(content: bytes, keys: frozenset[str]) -> dict[str, Any]:
    """The JSON object of a body.

    Args:
        content: The body, whose length was bounded before.
        keys: That it may have.

    Raises:
        ProblemError: It is no such object.
    """

    def no_number(text: str) -> float:
        raise ValueError(f"{text} is no JSON")

    try:
        body = json.loads(content, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise refused("the body is no JSON") from error
    if not isinstance(body, dict) or not body.keys() <= keys:
        raise refused(f"the body is no object of {', '.join(sorted(keys))}")
    return body


def reader_of(block: Any, files: PageFiles) -> Reader:
    """What reads a component's values.

    Args:
        block: A component of the page.
        files: Among which its files are looked up.

    Raises:
        TypeError: No reader is known for components of this type: the page must not have one.
    """
    label = str(getattr(block, "elem_id", None) or block.label or "a component")
    makers: Mapping[type, Callable[[], Reader]] = {
        gr.Image: lambda: lambda value: None if value is None else _file(value, files, label),
        gr.File: lambda: lambda value: _files(value, files, label),
        gr.ImageEditor: lambda: lambda value: _canvas(value, files, label),
        gr.Radio: lambda: lambda value: _choice(value, [name for _, name in block.choices], label),
        gr.Dropdown: lambda: (
            (lambda value: _numbers(value, label))
            if block.multiselect
            else (lambda value: _choice(value, [name for _, name in block.choices], label))
            if block.choices
            # Its choices are what was refined last.
            else lambda value: _text(value, label)
        ),
        gr.Checkbox: lambda: lambda value: _flag(value, label),
        gr.Slider: lambda: lambda value: _number(value, label, block.minimum, block.maximum),
        gr.Number: lambda: lambda value: None if value is None else _number(value, label, -_LARGEST, _LARGEST),
    }
    if type(block) not in makers:
        raise TypeError(f"{type(block).__name__} is no component whose values the page reads")
    return makers[type(block)]()


def read_index(event: Any, count: int) -> int:
    """Which of so many entries was chosen, from the data of a choice."""
    index = event.get("index") if isinstance(event, dict) else None
    if type(index) is not int or not 0 <= index < count:
        raise refused("nothing was chosen")
    return index


def _file(value: Any, files: PageFiles, label: str) -> Path:
    """Where a file lies that the page has given a name to."""
    known = isinstance(value, dict) and value.keys() <= _FILE_KEYS
    if not known or value.get("meta") != {"_type": "gradio.FileData"} or value.get("is_stream"):
        raise refused(f"{label} is no file of this page")
    found = files.find(value.get("path"))
    if found is None:
        raise refused(f"{label} is a file that this page does not have, or no longer")
    return found.path


def _files(value: Any, files: PageFiles, label: str) -> list[Path]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > FILES:
        raise refused(f"{label} is no list of up to {FILES} files")
    return [_file(one, files, label) for one in value]


def _canvas(value: Any, files: PageFiles, label: str) -> list[Path]:
    """The layers that were painted; what they were painted on is known, and what both look like does not matter."""
    if value is None:
        return []
    if not isinstance(value, dict) or not value.keys() <= _CANVAS_KEYS or value.get("id") is not None:
        raise refused(f"{label} is no painting")
    layers = value.get("layers") or []
    if not isinstance(layers, list) or len(layers) > _LAYERS:
        raise refused(f"{label} is no painting of up to {_LAYERS} layers")
    for name in ("background", "composite"):
        if value.get(name) is not None:
            _file(value[name], files, label)
    return [_file(one, files, label) for one in layers if one is not None]


def _choice(value: Any, choices: list[Any], label: str) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise refused(f"{label} is none of its choices")
    return value


def _text(value: Any, label: str) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) <= _TEXT):
        raise refused(f"{label} is no text of up to {_TEXT} letters")
    return value


def _numbers(value: Any, label: str) -> list[int]:
    """Entries of a list that may be chosen, by their numbers: no text of a visitor's is taken for a name."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > FILES:
        raise refused(f"{label} is no list of up to {FILES} choices")
    if not all(isinstance(one, str) and _ENTRY.fullmatch(one) for one in value):
        raise refused(f"{label} has a choice that is no number")
    return [int(one) for one in value]


def _flag(value: Any, label: str) -> bool:
    if type(value) is not bool:
        raise refused(f"{label} is neither true nor false")
    return value


def _number(value: Any, label: str, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise refused(f"{label} is no number from {low:g} to {high:g}")
    return float(value)
