"""What of a job is done: a file that says so, and the question whether it is still true."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OutputError, reason

if TYPE_CHECKING:
    from .batch import Item, Outcome

_FIELDS = {"key", "config", "payload", "inputs", "outputs", "result", "failures", "notes"}
"""Of a row of the manifest."""


@dataclass(frozen=True)
class InputState:
    """A file as it was when it was read."""

    size: int
    modified_ns: int
    sha256: str


class Manifest:
    """The items that are done, as a file that only grows; a line that a killed run left unfinished is dropped.

    Args:
        path: The file.

    Raises:
        OutputError: It cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.rows, whole = read_rows(path)
        try:
            self._stream = open(path, "ab")  # noqa: SIM115 - open as long as the run lasts
            self._stream.truncate(whole)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({reason(error)})") from error

    def add(self, row: dict[str, Any]) -> None:
        """Writes one row to the disk. Raises `OutputError`."""
        line = json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        try:
            self._stream.write(line)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise OutputError(f"{self._stream.name} cannot be written ({reason(error)})") from error
        self.rows[row["key"]] = row

    def close(self) -> None:
        """No more rows."""
        with suppress(OSError):
            self._stream.close()


def read_rows(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The whole lines of a manifest, if it is there, by key, and their bytes. Raises `OutputError`."""
    rows, whole = {}, 0
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                if missing := _FIELDS - row.keys():
                    raise ValueError(f"a line lacks {', '.join(sorted(missing))}")
                rows[row["key"]] = row
                whole += len(line)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise OutputError(f"{path} cannot be used ({reason(error)}): delete it to start anew") from error
    return rows, whole


def settings_hash(settings: dict[str, Any]) -> str:
    """A short name for settings: equal for equal ones."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def is_done(item: "Item", row: dict[str, Any] | None, config: str, root: Path) -> bool:
    """Whether a manifest's row is of this item with the inputs and settings of now, and its outputs are there."""
    if row is None or row["config"] != config or row["payload"] != _payload_hash(item):
        return False
    for name, size in row["outputs"].items():
        try:
            if (root / name).stat().st_size != size:
                return False
        except OSError:
            return False
    return len(row["inputs"]) == len(item.inputs) and all(
        _unchanged(path, InputState(**state)) for path, state in zip(item.inputs, row["inputs"], strict=True)
    )


def _unchanged(path: Path, state: InputState) -> bool:
    try:
        stat = path.stat()
        if stat.st_size != state.size:
            return False
        # A copy of the same file has another time.
        return stat.st_mtime_ns == state.modified_ns or hashlib.sha256(path.read_bytes()).hexdigest() == state.sha256
    except OSError:
        return False


def _payload_hash(item: "Item") -> str:
    return settings_hash({"payload": item.payload})


def row_of(item: "Item", outcome: "Outcome", config: str) -> dict[str, Any]:
    """The row of an item that is done."""
    assert outcome.saved is not None
    return {
        "key": item.key,
        "config": config,
        "payload": _payload_hash(item),
        "inputs": [asdict(state) for state in outcome.inputs],
        **asdict(outcome.saved),
    }
