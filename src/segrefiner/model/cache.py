"""Downloads that are kept: the folder, and the record beside each file of where it came from."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import environment

_ORIGIN = ".origin"
SIDE_FILES = (".part", ".tag", ".lock", _ORIGIN)
"""How files end that lie beside downloads."""


@dataclass(frozen=True)
class Origin:
    """Where a kept file came from.

    Attributes:
        address: Without what may be secret in it.
        sha256: Of the file, when it was verified.
    """

    address: str
    sha256: str


def read_origin(path: Path) -> Origin | None:
    """The record of a kept file; `None` for files that were not fetched here, or before there were records."""
    try:
        record = json.loads(path.with_name(path.name + _ORIGIN).read_text("utf-8"))
        return Origin(str(record["address"]), str(record["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_origin(path: Path, origin: Origin) -> None:
    """Writes the record of a file that is to be kept."""
    path.with_name(path.name + _ORIGIN).write_text(json.dumps(asdict(origin), allow_nan=False), encoding="utf-8")


def cache_folder() -> Path:
    """Where downloads are kept: `$SEGREFINER_CACHE`, or `segrefiner` in `$XDG_CACHE_HOME`, or else in `~/.cache`."""
    if chosen := environment.cache_folder():
        return chosen
    base = os.environ.get("XDG_CACHE_HOME", "")
    # Relative paths are to be ignored, by the XDG Base Directory Specification.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "segrefiner"


def checksum(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
