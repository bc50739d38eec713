"""Many photos: a job that may be stopped at any moment and run again, and that no bad file can stop.

A job is a list of items (photos with their masks) and an `ItemProcessor`, which loads, refines and saves one item. An
engine does the work: `segrefiner.jobs.local` on this machine, `segrefiner.jobs.cluster` on a cluster. `run` keeps the
books in a state folder:

- `manifest.jsonl`: one line for each item that is done: hashes of its inputs and of the settings, sizes of its
  outputs, and results that belong in a file shared by all items. A rerun skips exactly what stands there and is
  still true.
- `failures.jsonl`: one line for each item, or part of an item, that failed in the last run, with the reason;
  `left_out.jsonl` likewise for what there was nothing to do with, such as masks without a photo or empty ones; and
  `notes.jsonl` for what else is worth knowing.
- `lock`: held while a job runs, and released by the system however it ends.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import OutputError, reason
from ..ledger import Ledger, LedgerWriter, RunSummary
from .job import Engine, Item, ItemOutcome, ItemProcessor, Job
from .manifest import Manifest, account_of, is_done, read_rows, row_of

STATE_NAME = ".segrefiner"


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
    progress: Callable[[RunSummary], None] = lambda summary: None,
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
        with closing(Manifest(state / "manifest.jsonl")) as manifest, LedgerWriter(len(job.items), state) as ledger:
            books = _Books(job, config, manifest, ledger)
            stop = _Stop(ledger, max_failures, should_stop)
            progress(ledger.summary)
            for outcome in _outcomes(engine, job.work, books.todo, stop):
                books.enter(outcome)
                progress(ledger.summary)
                stop()
        if not ledger.summary.stopped:
            job.finish(books.results())
            # Not before: engines may end their processes, which then leave files, when a run is stopped.
            running.unlink(missing_ok=True)
    return ledger.ledger(item.key for item in job.items)


class _Books:
    """The manifest and the ledger of a run, in which the items that were done before are entered at once.

    Args:
        job: What the run does.
        config: Name of all settings.
        manifest: What is done, for later runs.
        ledger: What became of every input, for the user.

    Attributes:
        todo: Items that are not done.
    """

    def __init__(self, job: Job, config: str, manifest: Manifest, ledger: LedgerWriter) -> None:
        self._job, self._config, self._manifest, self._ledger = job, config, manifest, ledger
        ledger.begin(job.account(manifest.damaged))
        self._known = dict(manifest.rows)
        self.todo = _todo(job, self._known, config)
        self._items = {item.key: item for item in self.todo}
        self._done = {item.key for item in job.items} - self._items.keys()
        _skip(job, self.todo, self._known, ledger)

    def enter(self, outcome: ItemOutcome) -> None:
        """Enters what became of an item. Raises `OutputError` where all others would fail for the same reason."""
        if outcome.saved is not None:
            self._manifest.add(row_of(self._items[outcome.key], outcome, self._config))
            self._done.add(outcome.key)
            self._ledger.done(outcome.key, outcome.saved.account, again=outcome.key in self._known)
        elif outcome.fatal:
            raise OutputError(f"{outcome.error}; what is done stays done: run the same command to go on")
        else:
            self._ledger.fail(outcome.key, outcome.error)

    def results(self) -> dict[str, Any]:
        """The results of the items that are done, by key, in the order of the job."""
        rows = self._manifest.rows
        return {item.key: rows[item.key]["result"] for item in self._job.items if item.key in self._done}


@dataclass(frozen=True)
class _Stop:
    """Says whether a run should stop, and enters the first reason for it into the ledger."""

    ledger: LedgerWriter
    max_failures: int | None
    should_stop: Callable[[], bool]

    def __call__(self) -> bool:
        why = "stopped" if self.should_stop() else ""
        if self.max_failures is not None and self.ledger.summary.failed > self.max_failures:
            why = why or f"more than {self.max_failures} failed"
        if why and not self.ledger.summary.stopped:
            self.ledger.stop(why)
        return bool(self.ledger.summary.stopped)


def _outcomes(
    engine: Engine, work: ItemProcessor, todo: Sequence[Item], stop: Callable[[], bool]
) -> Iterator[ItemOutcome]:
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
                yield ItemOutcome(item.key, error="the engine said nothing of it: run the same command again")


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
