"""Many photos: a job that may be stopped at any moment and run again, and that no bad file can stop.

A job is a list of items (photos with their masks) and a `Work`, which says how one item is loaded, refined and saved.
An engine runs the work: `segrefiner.batch_local` on this machine, `segrefiner.batch_ray` on a cluster. `run` keeps the
books in a state folder:

- `manifest.jsonl`: one line for each item that is done: hashes of its inputs and of the settings, sizes of its
  outputs, and results that belong in a file shared by all items. A rerun skips exactly what stands there and is
  still true.
- `failures.jsonl`: one line for each item, or part of an item, that failed in the last run, with the reason;
  `left_out.jsonl` likewise for what there was nothing to do with, such as masks without a photo or empty ones; and
  `notes.jsonl` for what else is worth knowing.
- `lock`: held while a job runs, and released by the system however it ends.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from .errors import OutputError, SegRefinerError, reason
from .imaging.listing import ensure_regular
from .ledger import Account, Ledger, LedgerWriter, Summary
from .manifest import InputState, Manifest, account_of, is_done, read_rows, row_of

if TYPE_CHECKING:
    from .refinement.refiner import Refiner

STATE_NAME = ".segrefiner"
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
class Saved:
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


class Work(Protocol):
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

    def save(self, item: Item, refined: Any) -> Saved:
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
    """

    items: Sequence[Item]
    work: Work
    finish: Callable[[dict[str, Any]], None] = lambda results: None
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    accepts: Callable[[Item, Any], bool] = lambda item, result: True

    def account(self, damaged: int = 0) -> Account:
        """What is to be said of what is no item's, with a manifest that has so many damaged lines."""
        notes = self.notes
        if damaged:
            lines = "a damaged line" if damaged == 1 else f"{damaged} damaged lines"
            notes += (f"the manifest has {lines}: what only they tell of is done again",)
        return Account(self.failures, self.left_out, notes)


@dataclass(frozen=True)
class Outcome:
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
    saved: Saved | None = None
    error: str = ""
    fatal: bool = False


Engine = Callable[[Work, Sequence[Item], Callable[[], bool]], Iterator[Outcome]]
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


def failure(key: str, error: BaseException, *, writing: bool = False) -> Outcome:
    """The outcome of an item that met an error."""
    fatal = False
    link: BaseException | None = error
    while writing and link:
        fatal |= isinstance(link, OSError) and link.errno in _FATAL
        link = link.__cause__
    known = isinstance(error, SegRefinerError)
    told = str(error) if known else f"{type(error).__name__}: {_told(error)}"
    return Outcome(key, error=" ".join(told.split()), fatal=fatal)


def _told(error: BaseException) -> str:
    # Python's own message names the file, which `reason` leaves out.
    name = getattr(error, "filename", None)
    return f"{reason(error)} ({name})" if name else reason(error)


def load(work: Work, item: Item) -> tuple[tuple[InputState, ...], Any] | Outcome:
    """The inputs of an item, decoded, or why not."""
    try:
        states, contents = read_inputs(item)
        return states, work.load(item, contents)
    except Exception as error:  # Whatever it is, it is this item's alone.
        return failure(item.key, error)


def save(work: Work, item: Item, states: tuple[InputState, ...], refined: Any) -> Outcome:
    """The outcome of an item that is refined."""
    try:
        return Outcome(item.key, states, work.save(item, refined))
    except Exception as error:
        outcome = failure(item.key, error, writing=True)
        return replace(outcome, fatal=outcome.fatal or not os.access(work.root, os.W_OK | os.X_OK))


def refine(work: Work, refiner: "Refiner", item: Item, loaded: Any) -> tuple[Any] | Outcome:
    """What is to be saved, in a tuple, or why there is nothing."""
    try:
        return (work.refine(refiner, loaded),)
    except Exception as error:
        return failure(item.key, error)


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"{state} is in use by another run: wait for its end, or choose another output") from None
    except OSError as error:
        raise OutputError(f"{state} cannot be used ({reason(error)}): choose another output") from error
    try:
        yield
    finally:
        lock.release()


def pending(job: Job, state: Path, config: str) -> tuple[list[Item], Ledger]:
    """The items that a run would do now and the ledger before it, without doing anything. Raises `OutputError`."""
    rows, _, damaged = read_rows(state / "manifest.jsonl")
    todo = _todo(job, rows, config)
    with LedgerWriter(len(job.items)) as ledger:
        ledger.begin(job.account(damaged))
        _skip(job, todo, rows, ledger)
    return todo, ledger.ledger(item.key for item in job.items)


def run(
    job: Job,
    engine: Engine,
    state: Path,
    *,
    config: str,
    max_failures: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Ledger:
    """Runs a job as far as it is not done.

    Args:
        job: What to do.
        engine: What does it.
        state: Folder for manifest, ledger and lock.
        config: Name of all settings, from `settings_hash`: items that were done with others are done again.
        max_failures: Stop when more items have failed.
        should_stop: Asked after each item; items that are begun are finished.
        progress: Called with the summary so far, at the start and after each item.

    Returns:
        How it went, with what became of every input.

    Raises:
        OutputError: Another run holds the lock, or nothing can be written any more; what is done stays done.
    """
    with _locked(state):
        running = state / "running"
        if running.exists():
            _remove_leftovers(job.work.root, state)
        running.touch()
        manifest = Manifest(state / "manifest.jsonl")
        try:
            with LedgerWriter(len(job.items), state) as ledger:
                ledger.begin(job.account(manifest.damaged))

                def stop() -> bool:
                    why = "stopped" if should_stop() else ""
                    if max_failures is not None and ledger.summary.failed > max_failures:
                        why = why or f"more than {max_failures} failed"
                    if why and not ledger.summary.stopped:
                        ledger.stop(why)
                    return bool(ledger.summary.stopped)

                current = _run(job, engine, manifest, ledger, config, stop, progress)
        finally:
            manifest.close()
        if not ledger.summary.stopped:
            job.finish({item.key: manifest.rows[item.key]["result"] for item in job.items if item.key in current})
            # Not before: engines may end their processes, which then leave files, when a run is stopped.
            running.unlink(missing_ok=True)
    return ledger.ledger(item.key for item in job.items)


def _run(
    job: Job,
    engine: Engine,
    manifest: Manifest,
    ledger: LedgerWriter,
    config: str,
    stop: Callable[[], bool],
    progress: Callable[[Summary], None],
) -> set[str]:
    """The keys of the items that are done."""
    known = dict(manifest.rows)
    todo = _todo(job, known, config)
    items = {item.key: item for item in todo}
    current = {item.key for item in job.items} - items.keys()
    _skip(job, todo, known, ledger)
    progress(ledger.summary)
    for outcome in _outcomes(engine, job.work, todo, stop):
        if outcome.saved is not None:
            manifest.add(row_of(items[outcome.key], outcome, config))
            current.add(outcome.key)
            ledger.done(outcome.key, outcome.saved.account, again=outcome.key in known)
        elif outcome.fatal:
            raise OutputError(f"{outcome.error}; what is done stays done: run the same command to go on")
        else:
            ledger.fail(outcome.key, outcome.error)
        progress(ledger.summary)
        stop()
    return current


def _outcomes(engine: Engine, work: Work, todo: Sequence[Item], stop: Callable[[], bool]) -> Iterator[Outcome]:
    """One outcome of each item: an engine that gives none for one, although nobody said stop, has failed at it."""
    left = {item.key for item in todo}
    for outcome in engine(work, todo, stop):
        # A cluster may do an item again when one of its machines has died.
        if outcome.key in left:
            left.remove(outcome.key)
            yield outcome
    if left and not stop():
        for item in todo:
            if item.key in left:
                yield Outcome(item.key, error="the engine said nothing of it: run the same command again")


def _todo(job: Job, rows: dict[str, dict[str, Any]], config: str) -> list[Item]:
    """The items that are not done."""
    return [
        item
        for item in job.items
        if (row := rows.get(item.key)) is None
        or not is_done(item, row, config, job.work.root)
        or not job.accepts(item, row["result"])
    ]


def _skip(job: Job, todo: Sequence[Item], rows: dict[str, dict[str, Any]], ledger: LedgerWriter) -> None:
    """Enters the other items: what failed or was left out in them is still what the user must know of."""
    keys = {item.key for item in todo}
    for item in job.items:
        if item.key not in keys:
            ledger.skip(item.key, account_of(rows[item.key]))


def _remove_leftovers(root: Path, state: Path) -> None:
    """Deletes the temporary files of a run that was killed while it wrote."""
    for folder in (root, state):
        for path in folder.rglob(".segrefiner-*.tmp"):
            path.unlink(missing_ok=True)


def inside(root: Path, name: str) -> Path:
    """The path of a name inside a folder. Raises `OutputError` where it leads out of it."""
    path = Path(os.path.normpath(root / name))
    if os.path.isabs(name) or not path.is_relative_to(os.path.normpath(root)) or "\0" in name:
        raise OutputError(f"{name!r} leads out of {str(root)!r}: expected a name inside it")
    return path


def written(root: Path, paths: Iterable[Path]) -> dict[str, int]:
    """`Saved.outputs` of files below the root."""
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
