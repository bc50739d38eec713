"""COCO's annotation files: what their entries say."""

import os
from collections import Counter
from typing import Any

from ..errors import InputError
from ..imaging.files import Json


def image_entries(listed: list[Any]) -> tuple[dict[str, Json], dict[str, str]]:
    """Entries of "images" by image id, and what is wrong with those of no use.

    An id of several entries has none, unless all of them are the same.
    """
    entries: dict[str, Json] = {}
    failures: dict[str, str] = {}
    different: Counter[str] = Counter()
    for index, entry in enumerate(listed):
        key = image_key(entry.get("id")) if isinstance(entry, dict) else None
        if key is not None:
            different[key] += entries.get(key) != entry
        if key is None or not isinstance(entry.get("file_name"), str):
            failures[f"images {index}"] = "expected an object with id and file_name"
        else:
            entries[key] = entry
    return {key: entry for key, entry in entries.items() if different[key] == 1}, failures


def image_key(value: Any) -> str | None:
    """An image id as text, the same for `7`, `7.0` and `"7"`, which tables turn into one another; none for others."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def file_name(key: str, entries: dict[str, Json]) -> str:
    """What the photo of an image id is called. Raises `InputError` where that is not known."""
    if key not in entries:
        raise InputError(f'"images" has no entry of the id {key}, or several')
    return str(entries[key]["file_name"])


def photo_place(entry: Any) -> str | None:
    """The place of a photo below the photos' folder, as its entry gives it."""
    if not isinstance(entry, dict):
        return None
    name, url = entry.get("file_name"), entry.get("coco_url")
    if not name and isinstance(url, str):
        name = "/".join(url.split("/")[-2:])
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    try:
        os.fsencode(name)
    except ValueError:  # JSON can spell half a character, which no file system takes.
        return None
    return name
