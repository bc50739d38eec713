"""What a job is: items, the work that one of them takes, and what became of it."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import SegRefinerError, reason
from ..imaging.listing import ensure_regular
from ..ledger import Account

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner

_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of writing that every further item would meet, too."""


@dataclass(frozen=True)
class Item:
    """What is refined and written at once: mostly a photo with all its masks.

    Attributes:
        key: Unique within the job, and the same in every run.
        inputs: Files whose content decides the result.
        payload: What else decides it, as JSON types.
    """

    key: str
    inputs: tuple[Path, ...]
    payload: Any = None


@dataclass(frozen=True)
class SavedItem:
    """What became of an item.

    Attributes:
        outputs: Size in bytes of each file that was written, by its path relative to the job's root.
        result: JSON types, for a file that all items share.
        failures: Parts of the item that failed and stay as they were: their names and why.
        notes: What the user should know.
        left_out: Parts of the item in which there was nothing to refine: their names and why. With the item's own key
            among them, the whole item was.
    """

    outputs: dict[str, int] = field(default_factory=dict)
    result: Any = None
    failures: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def account(self) -> Account:
        """What is to be said of the item."""
        return Account(self.failures, self.left_out, self.notes, not self.outputs and not self.result)


class ItemProcessor(Protocol):
    """How items of one kind are refined. It travels to other processes and machines, so it is small."""

    @property
    def root(self) -> Path:
        """Folder of the outputs."""
        ...

    def settings(self) -> dict[str, Any]:
        """What decides the results beside items and weights, as JSON types."""
        ...

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:
        """Decodes an item's inputs, without PyTorch."""
        ...

    def refine(self, refiner: "Refiner", loaded: Any) -> Any:
        """What is to be saved."""
        ...

    def save(self, item: Item, refined: Any) -> SavedItem:
        """Writes an item's outputs, without PyTorch."""
        ...


@dataclass(frozen=True)
class Job:
    """All that is to be done.

    Attributes:
        items: With keys that differ.
        work: How each is done.
        finish: Called when all items were tried, with the results of those that are done, by key; writes what all
            items share.
        failures: What failed before anything was loaded, such as photos that are absent: names and why.
        left_out: Inputs that no item has, such as masks without a photo: names and why.
        notes: What the user should know.
        accepts: Whether a result is one that `finish` can use; one of a damaged manifest may not be.
        writes_file: Whether `finish` writes one file, beside which the job's state lies, and not a folder, in which it
            does.
    """

    items: Sequence[Item]
    work: ItemProcessor
    finish: Callable[[dict[str, Any]], None] = lambda results: None
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    accepts: Callable[[Item, Any], bool] = lambda item, result: True
    writes_file: bool = False

    def account(self, damaged: int = 0) -> Account:
        """What is to be said of what is no item's, with a manifest that has so many damaged lines."""
        notes = self.notes
        if damaged:
            lines = "a damaged line" if damaged == 1 else f"{damaged} damaged lines"
            notes += (f"the manifest has {lines}: what only they tell of is done again",)
        return Account(self.failures, self.left_out, notes)


@dataclass(frozen=True)
class InputState:
    """A file as it was when it was read."""

    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class ItemOutcome:
    """What an engine says of an item: saved, or failed.

    Attributes:
        key: Of the item.
        inputs: State of its files.
        saved: What was written; `None` for a failure.
        error: Why it failed, on one line.
        fatal: Whether all further items would fail for the same reason.
    """

    key: str
    inputs: tuple[InputState, ...] = ()
    saved: SavedItem | None = None
    error: str = ""
    fatal: bool = False


Engine = Callable[[ItemProcessor, Sequence[Item], Callable[[], bool]], Iterator[ItemOutcome]]
"""Gives the outcome of each item, in any order; ends early, after what it has begun, when the callable says stop."""


def read_inputs(item: Item) -> tuple[tuple[InputState, ...], list[bytes]]:
    """The files of an item and their state. Raises `OSError`, and `InputError` for pipes and devices."""
    states, contents = [], []
    for path in item.inputs:
        ensure_regular(path)
        with open(path, "rb") as stream:
            stat = os.fstat(stream.fileno())
            contents.append(stream.read())
        states.append(InputState(stat.st_size, stat.st_mtime_ns, hashlib.sha256(contents[-1]).hexdigest()))
    return tuple(states), contents


def failure(key: str, error: BaseException, *, writing: bool = False) -> ItemOutcome:
    """The outcome of an item that met an error."""
    fatal = False
    link: BaseException | None = error
    while writing and link:
        fatal |= isinstance(link, OSError) and link.errno in _FATAL
        link = link.__cause__
    known = isinstance(error, SegRefinerError)
    told = str(error) if known else f"{type(error).__name__}: {_told(error)}"
    return ItemOutcome(key, error=" ".join(told.split()), fatal=fatal)


def _told(error: BaseException) -> str:
    # Python's own message names the file, which `reason` leaves out.
    name = getattr(error, "filename", None)
    return f"{reason(error)} ({name})" if name else reason(error)


def load(work: ItemProcessor, item: Item) -> tuple[tuple[InputState, ...], Any] | ItemOutcome:
    """The inputs of an item, decoded, or why not."""
    try:
        states, contents = read_inputs(item)
        return states, work.load(item, contents)
    except Exception as error:  # Whatever it is, it is this item's alone.
        return failure(item.key, error)


def save(work: ItemProcessor, item: Item, states: tuple[InputState, ...], refined: Any) -> ItemOutcome:
    """The outcome of an item that is refined."""
    try:
        return ItemOutcome(item.key, states, work.save(item, refined))
    except Exception as error:
        outcome = failure(item.key, error, writing=True)
        return replace(outcome, fatal=outcome.fatal or not os.access(work.root, os.W_OK | os.X_OK))


def refine(work: ItemProcessor, refiner: "Refiner", item: Item, loaded: Any) -> tuple[Any] | ItemOutcome:
    """What is to be saved, in a tuple, or why there is nothing."""
    try:
        return (work.refine(refiner, loaded),)
    except Exception as error:
        return failure(item.key, error)


def written(root: Path, paths: Iterable[Path]) -> dict[str, int]:
    """`Saved.outputs` of files below the root."""
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
