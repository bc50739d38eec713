"""What of a job is done: a file that says so, and the question whether it is still true."""

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, OutputError, reason
from ..imaging.json_files import json_text
from ..imaging.listing import ensure_regular
from ..ledger import Account
from .job import InputState

if TYPE_CHECKING:
    from .job import Item, ItemOutcome

_TEXTS = {"key", "config", "payload"}
_FIELDS = _TEXTS | {"inputs", "outputs", "result", "failures", "notes"}
"""Of a row of the manifest; those that were written before there was `left_out` have none."""


class Manifest:
    """The items that are done, as a file that only grows; a line that a killed run left unfinished is dropped.

    Args:
        path: The file.

    Attributes:
        rows: By key; the last one counts.
        damaged: How many lines are none. They stay in the file, at whose end a sound row may lack its line break.

    Raises:
        OutputError: It cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.rows, whole, self.damaged = read_rows(path)
        try:
            self._stream = open(path, "a+b")  # noqa: SIM115 - open as long as the run lasts
            self._stream.truncate(whole)
            self._stream.seek(max(0, whole - 1))
            if self._stream.read(1) not in (b"", b"\n"):
                self._stream.write(b"\n")
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({reason(error)})") from error

    def add(self, row: dict[str, Any]) -> None:
        """Writes one row to the disk. Raises `OutputError`."""
        line = json_text(row, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
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


def read_rows(path: Path) -> tuple[dict[str, dict[str, Any]], int, int]:
    """The sound lines of a manifest, if it is there, by key; the bytes of all whole lines; how many are damaged.

    Raises `OutputError` where the file cannot be read at all.
    """
    rows: dict[str, dict[str, Any]] = {}
    whole, damaged = 0, 0
    try:
        ensure_regular(path)
        with open(path, "rb") as stream:
            for line in stream:
                row = _row(line)
                if row is None and not line.endswith(b"\n"):
                    # A run was killed while it wrote.
                    break
                whole += len(line)
                if row is None:
                    damaged += bool(line.strip())
                    # An older row of this item is no longer true: its outputs are those that this line told of.
                    rows.pop(_key_in(line), None)
                else:
                    rows[row["key"]] = row
    except FileNotFoundError:
        pass
    except (OSError, InputError) as error:
        raise OutputError(f"{path} cannot be used ({reason(error)}): choose another output") from error
    return rows, whole, damaged


def _row(line: bytes) -> dict[str, Any] | None:
    """A line's row, or nothing where it is damaged: one bad line must not cost what the others tell."""
    try:
        # A machine that lost its power may leave zeros before what was written next.
        row = json.loads(line.strip(b"\0"))
    except (ValueError, RecursionError):
        return None
    return row if _is_row(row) else None


def _key_in(line: bytes) -> str:
    """The key in a damaged line, where it can still be read, or an empty string."""
    found = re.search(rb'"key":\s*("(?:[^"\\]|\\.)*")', line)
    try:
        return str(json.loads(found[1])) if found else ""
    except ValueError:
        return ""


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not row.keys() >= _FIELDS:
        return False
    if not all(isinstance(row[name], str) for name in _TEXTS) or not isinstance(row["inputs"], list):
        return False
    states = [state for state in row["inputs"] if isinstance(state, dict) and state.keys() == _STATE.keys()]
    return (
        len(states) == len(row["inputs"])
        and all(type(state[name]) is kind for state in states for name, kind in _STATE.items())
        and _is_mapping(row["outputs"], int)
        and _is_mapping(row["failures"], str)
        and _is_mapping(row.get("left_out", {}), str)
        and isinstance(row["notes"], list)
        and all(isinstance(note, str) for note in row["notes"])
    )


_STATE: dict[str, type] = {"size": int, "modified_ns": int, "sha256": str}


def _is_mapping(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(type(one) is kind for one in value.values())


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
        except (OSError, ValueError):  # No such file, or a damaged name.
            return False
    return len(row["inputs"]) == len(item.inputs) and all(
        _unchanged(path, InputState(**state)) for path, state in zip(item.inputs, row["inputs"], strict=True)
    )


def _unchanged(path: Path, state: InputState) -> bool:
    try:
        ensure_regular(path)
        stat = path.stat()
        if stat.st_size != state.size:
            return False
        # A copy of the same file has another time.
        return stat.st_mtime_ns == state.modified_ns or hashlib.sha256(path.read_bytes()).hexdigest() == state.sha256
    except (OSError, ValueError):
        return False


def _payload_hash(item: "Item") -> str:
    return settings_hash({"payload": item.payload})


def account_of(row: dict[str, Any]) -> Account:
    """What a row says of its item."""
    idle = not row["outputs"] and not row["result"]
    return Account(row["failures"], row.get("left_out", {}), tuple(row["notes"]), idle)


def row_of(item: "Item", outcome: "ItemOutcome", config: str) -> dict[str, Any]:
    """The row of an item that is done."""
    assert outcome.saved is not None
    return {
        "key": item.key,
        "config": config,
        "payload": _payload_hash(item),
        "inputs": [asdict(state) for state in outcome.inputs],
        **asdict(outcome.saved),
    }
