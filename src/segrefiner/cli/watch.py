"""`folder --watch`: a job that goes on until it is interrupted."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .shared.common import FAILED
from .shared.job_runs import OpenedJob, signals
from .shared.ledger import ledger_line, tell_ledger, tell_names
from .shared.messages import conclude, note

if TYPE_CHECKING:
    from ..jobs.job import Job
    from ..ledger import Ledger


def watch_folders(
    make: "Callable[[], Job]", folders: tuple[Path, Path], output: Path, state: Path, given: dict[str, Any]
) -> None:
    """Refine what is in folders and what comes into them, until Ctrl-C; then tell what became of it, and exit.

    Raises:
        InputError: An option makes no sense here, or a folder is none.
        MissingExtraError: watchfiles is not installed.
    """
    from ..errors import import_extra
    from ..jobs.watching import FileStability, final_ledger, wait_for_changes, watch_job

    if given["dry_run"]:
        raise InputError("--watch goes on for ever and --dry-run does nothing: leave one of them out")
    import_extra("watchfiles", "watching folders", extra="watch")

    opened, stability = OpenedJob(given), FileStability()
    config = opened.config
    with signals() as signalled:

        def run(job: "Job") -> "Ledger":
            ledger = opened.run(job, state, config(job), lambda: bool(signalled))
            for entry in ledger.failures:
                note(f"{entry.name} failed: {entry.reason}")
            conclude(f"{output}: {ledger.done} done", err=True)
            return ledger

        def stop() -> bool:
            return bool(signalled)

        conclude(f"watching {folders[0]} and {folders[1]}; Ctrl-C ends it", err=True)
        watched, why = watch_job(
            make,
            run,
            wait_for_changes(folders, output, lambda: stability.is_waited, stop),
            lambda job: opened.pending(job, state, config(job)),
            stability,
        )
    try:
        job = make()
    except InputError as error:
        if watched.last is None or not (watched.done or watched.failures):
            raise InputError(f"nothing was refined: {why or error}") from error
        note(str(error))
        job = replace(watched.last, items=(), failures={}, left_out={}, notes=())
    ledger = final_ledger(job, state, config(job), watched)
    code = FAILED if ledger.failed or (given["strict"] and ledger.left_out) else 0
    tell_ledger(ledger, ledger_line(ledger, output, state), given["as_json"], dry_run=False, exit_code=code)
    tell_names(ledger)
    sys.exit(code)
