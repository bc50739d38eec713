"""Folders of made files that remember the settings with which they were made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from ..imaging.files import atomic_write
from ..imaging.json_files import json_text


def begin_folder(folder: Path, record: str, settings: dict[str, Any], what: str, parts: Sequence[str] = ()) -> None:
    """Makes a folder for files of the same settings, or goes on with one.

    Args:
        folder: The folder.
        record: Name of the JSON file in it that keeps the settings.
        settings: Settings as JSON types.
        what: What the files are, for messages, such as "coarse masks".
        parts: Folders to make in it.

    Raises:
        InputError: The folder holds files of other settings.
        OutputError: It cannot be made or written.
    """
    path = folder / record
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is no JSON any more: choose another folder, or remove this one") from error
        if before != settings:
            raise InputError(f"{folder} holds {what} of {before}, not {settings}: choose another folder")
    try:
        for part in (folder, *(folder / name for name in parts)):
            part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another one") from error
    atomic_write(path, lambda file: file.write(json_text(settings).encode()))
