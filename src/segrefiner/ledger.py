"""The account of a job: every input is done, failed, or left out with the reason.

An item is counted once: as done, as done before (`skipped`), as failed, or as left out, itself or by its parts. Parts
of items and what belongs to no item, such as a mask without a photo, are counted as failed or left out beside the
items, by their own names.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .errors import OutputError, reason


@dataclass(frozen=True)
class Entry:
    """An input, or a part of one, that was not refined.

    Attributes:
        name: As the user knows it: a path, or "annotation 7".
        reason: One line. Inputs that are left out for one cause have one and the same.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class RunSummary:
    """How a run goes, in numbers.

    Attributes:
        total: Items of the job.
        skipped: Items that were done before.
        done: Items that this run has done.
        failed: Items, parts of items and other inputs that failed.
        left_out: Those that were left out.
        notes: How much the user should know besides.
        redone: Items of `done` that had been done with other inputs or settings, or whose outputs were gone.
        not_tried: Items that are still to be done.
        stopped: Why not all items were tried, or an empty string.
    """

    total: int
    skipped: int = 0
    done: int = 0
    failed: int = 0
    left_out: int = 0
    notes: int = 0
    redone: int = 0
    not_tried: int = 0
    stopped: str = ""


@dataclass(frozen=True)
class Ledger(RunSummary):
    """A summary with the names behind its numbers, in the order of the job.

    Attributes:
        failures: What failed.
        omissions: What was left out.
        remarks: What the user should know.
    """

    failures: tuple[Entry, ...] = ()
    omissions: tuple[Entry, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Why inputs were left out, and how many for each reason, most frequent first."""
        return dict(Counter(entry.reason for entry in self.omissions).most_common())

    def document(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "total": self.total,
            "done": self.done,
            "redone": self.redone,
            "skipped": self.skipped,
            "failed": self.failed,
            "left_out": self.left_out,
            "not_tried": self.not_tried,
            "notes": self.notes,
            "stopped": self.stopped,
            "failures": [{"name": entry.name, "reason": entry.reason} for entry in self.failures],
            "left_out_reasons": self.reasons,
            "left_out_names": [{"name": entry.name, "reason": entry.reason} for entry in self.omissions],
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True)
class Account:
    """What is to be said of one item, or of what belongs to none.

    Attributes:
        failures: What failed and why, by name.
        left_out: What was left out and why, by name. An item whose own key is among them is left out as a whole.
        notes: What the user should know.
        idle: Whether nothing of the item was refined, so that it does not count as done; its parts say why.
    """

    failures: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    idle: bool = False

    def counts(self, key: str) -> bool:
        """Whether the item of this key is done."""
        return not self.idle and key not in self.left_out


FILES = {"failures": "failures.jsonl", "left_out": "left_out.jsonl", "notes": "notes.jsonl"}


class LedgerWriter:
    """Keeps the ledger of a run, in memory and, line by line, in files of its state folder.

    Args:
        total: Items of the job.
        state: Folder of the files; `None` for none.

    Attributes:
        summary: The numbers so far.
    """

    def __init__(self, total: int, state: Path | None = None) -> None:
        self.summary = RunSummary(total, not_tried=total)
        self._state = state
        self._streams: dict[str, TextIO] = {}
        self._accounts: dict[str | None, Account] = {}

    def __enter__(self) -> "LedgerWriter":
        with ExitStack() as streams:
            for kind, name in FILES.items() if self._state else ():
                assert self._state
                path = self._state / name
                if path.exists() and not path.is_file():
                    raise OutputError(f"{path} is no regular file: remove it")
                try:
                    self._streams[kind] = streams.enter_context(open(path, "w", encoding="utf-8"))
                except OSError as error:
                    raise OutputError(f"{path} cannot be written ({reason(error)})") from error
            self._closing = streams.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def begin(self, account: Account) -> None:
        """Enters what is known of inputs that belong to no item."""
        self._enter(None, account)

    def skip(self, key: str, account: Account) -> None:
        """Enters an item that was done before."""
        self._enter(key, account, skipped=account.counts(key), not_tried=-1)

    def done(self, key: str, account: Account, *, again: bool) -> None:
        """Enters an item that was saved, as done unless nothing of it was refined."""
        counts = account.counts(key)
        self._enter(key, account, done=counts, redone=again and counts, not_tried=-1)

    def fail(self, key: str, why: str) -> None:
        """Enters an item that failed."""
        self._enter(key, Account({key: why}), not_tried=-1)

    def stop(self, why: str) -> None:
        """Enters why not all items are tried."""
        self.summary = replace(self.summary, stopped=why)

    def ledger(self, keys: Iterable[str] = ()) -> Ledger:
        """The whole account, of items in the order of their keys."""
        ordered = [self._accounts[key] for key in (None, *keys) if key in self._accounts]
        return Ledger(
            **vars(self.summary),
            failures=tuple(Entry(*pair) for account in ordered for pair in account.failures.items()),
            omissions=tuple(Entry(*pair) for account in ordered for pair in account.left_out.items()),
            remarks=tuple(note for account in ordered for note in account.notes),
        )

    def _enter(self, key: str | None, account: Account, **more: int) -> None:
        self._accounts[key] = account
        more |= {
            "failed": len(account.failures),
            "left_out": len(account.left_out),
            "notes": len(account.notes),
        }
        self.summary = replace(self.summary, **{name: getattr(self.summary, name) + n for name, n in more.items()})
        self._write("failures", ({"item": name, "error": why} for name, why in account.failures.items()))
        self._write("left_out", ({"item": name, "reason": why} for name, why in account.left_out.items()))
        self._write("notes", ({"note": note} for note in account.notes))

    def _write(self, kind: str, rows: Iterable[dict[str, str]]) -> None:
        if stream := self._streams.get(kind):
            text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            if text:
                stream.write(text)
                stream.flush()
