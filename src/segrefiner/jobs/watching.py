"""A job over folders into which files keep coming: it is run in rounds, each for what has come and is written in full.

Nothing says that a file is complete. Here it counts as complete when its size and time have stayed the same for a
while; one that grows on after a longer pause is done again, as any job does with inputs that changed.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError, import_extra
from ..ledger import Ledger, LedgerWriter
from .job import Item, Job
from .manifest import account_of, read_rows
from .run import pending

_log = logging.getLogger(__name__)

_Stat = tuple[int, int]
"""Size and time of change, in nanoseconds."""

QUIET_SECONDS = 1.0
"""For which a file must stay as it is until it is read: copies over a network pause for less."""


def wait_for_changes(
    folders: Sequence[Path], output: Path, is_waiting: Callable[[], bool], should_stop: Callable[[], bool]
) -> Iterator[None]:
    """Say when to look at folders: at first, after every change, and again while files are waited for.

    Args:
        folders: That are watched, with all folders in them.
        output: A folder in them whose changes are our own.
        is_waiting: Whether files are waited for.
        should_stop: Asked every second or oftener.

    Raises:
        InputError: A folder is none.
        MissingExtraError: watchfiles is not installed.
    """
    watchfiles = import_extra("watchfiles", "watching folders", extra="watch")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: expected one to watch")
    own = f"{output.resolve()}{os.sep}"
    changes = watchfiles.watch(
        *{folder.resolve() for folder in folders},
        watch_filter=lambda _, path: not f"{path}{os.sep}".startswith(own),
        debounce=int(500 * QUIET_SECONDS),
        rust_timeout=int(1000 * QUIET_SECONDS),
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    is_first = True
    for changed in changes:
        if should_stop():
            return
        if changed or is_first or is_waiting():
            is_first = False
            yield


class FileStability:
    """Tells which files may still be written.

    Args:
        clock: Seconds that only grow.

    Attributes:
        is_waited: Whether some of the files that were looked at last may still be written.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self.is_waited = clock, False
        self._seen: dict[Path, tuple[_Stat | None, float]] = {}

    def growing(self, paths: Iterable[Path]) -> set[Path]:
        """Look at files, and give those that have not been the same for `QUIET_SECONDS`."""
        now, seen, growing = self._clock(), self._seen, set()
        self._seen = {}
        for path in paths:
            stat = stat_of(path)
            before, since = seen.get(path, (None, now))
            since = since if stat is not None and stat == before else now
            self._seen[path] = stat, since
            if stat is None or now - since < QUIET_SECONDS:
                growing.add(path)
        self.is_waited = bool(growing)
        return growing


def stat_of(path: Path) -> _Stat | None:
    """Size and time of change of a file; `None` where there is none any more."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


@dataclass
class Watched:
    """What became of items over all rounds.

    Attributes:
        done: Keys of items that were done.
        redone: Those of them that had been done before this watch began.
        failures: Why others failed, by key.
        last: The job as it was seen last, if there was any.
    """

    done: set[str] = field(default_factory=set)
    redone: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    last: Job | None = None
    _failed_as: dict[str, tuple[_Stat | None, ...]] = field(default_factory=dict)

    def is_to_do(self, item: Item) -> bool:
        """Whether an item has not failed yet as its files are now."""
        return self._failed_as.get(item.key) != tuple(map(stat_of, item.inputs))

    def enter(self, items: Sequence[Item], left: Sequence[Item], ledger: Ledger) -> None:
        """Enters a round of some items, of which so many are left to do."""
        reasons = {entry.name: entry.reason for entry in ledger.failures}
        failed = {item.key: item for item in items if item.key in reasons}
        for key, item in failed.items():
            self.failures[key], self._failed_as[key] = reasons[key], tuple(map(stat_of, item.inputs))
        undone = {item.key for item in left}
        for item in items:
            if item.key not in failed and item.key not in undone:
                self.failures.pop(item.key, None)
                self.done.add(item.key)
        self.redone += ledger.redone


def watch_job(
    make: Callable[[], Job],
    run: Callable[[Job], Ledger],
    changes: Iterable[None],
    to_do: Callable[[Job], Sequence[Item]],
    stability: FileStability,
) -> tuple[Watched, str]:
    """Runs a job for what comes, until nothing wakes it any more.

    Args:
        make: The job of what is there now; raises `InputError` while there is nothing to do.
        run: Does a job.
        changes: Yields when there is something to look at, as `wait_for_changes` does.
        to_do: The items of a job that are still to be done.
        stability: Of the files.

    Returns:
        What became of items; and why there was no job at last, or an empty string.
    """
    watched, why = Watched(), ""
    for _ in changes:
        try:
            watched.last = job = make()
            why = ""
        except InputError as error:
            why = str(error)
            _log.info("nothing to do yet: %s", why)
            continue
        todo = [item for item in to_do(job) if watched.is_to_do(item)]
        growing = stability.growing(path for item in todo for path in item.inputs)
        ready = [item for item in todo if growing.isdisjoint(item.inputs)]
        if ready:
            # What has no partner yet may still get one: it is told of in the end.
            part = replace(job, items=ready, failures={}, left_out={}, notes=())
            ledger = run(part)
            watched.enter(ready, to_do(part), ledger)
            if ledger.stopped:
                break
    return watched, why


def final_ledger(job: Job, state: Path, config: str, watched: Watched) -> Ledger:
    """The account of a job that was done in rounds, which replaces those of the rounds in its state folder.

    Inputs may be taken away once they are done: what was made of them counts all the same.
    """
    todo, _ = pending(job, state, config)
    rows, _, damaged = read_rows(state / "manifest.jsonl")
    left, keys = {item.key for item in todo}, [item.key for item in job.items]
    gone = [key for key in sorted(watched.done.difference(keys)) if key in rows]
    if gone:
        job = replace(job, notes=(*job.notes, f"the inputs of {len(gone)} that were done are not there any more"))
    state.mkdir(parents=True, exist_ok=True)
    with LedgerWriter(len(keys) + len(gone), state) as writer:
        writer.begin(job.account(damaged))
        for key in gone:
            writer.done(key, account_of(rows[key]), again=False)
        for item in job.items:
            if item.key not in left:
                account = account_of(rows[item.key])
                if item.key in watched.done:
                    writer.done(item.key, account, again=False)
                else:
                    writer.skip(item.key, account)
            elif item.key in watched.failures:
                writer.fail(item.key, watched.failures[item.key])
        if writer.summary.not_tried:
            writer.stop("stopped")
    return replace(writer.ledger([*gone, *keys]), redone=watched.redone)
