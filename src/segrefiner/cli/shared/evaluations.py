"""What the protocols of `evaluate` share: their options, and how measurements are taken in, written and printed."""

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import InputError
from .common import exit_on_error, item_bar
from .messages import is_watched, say
from .streams import FilePath

if TYPE_CHECKING:
    from ...evaluation.protocol import Case, Failure, Measurement, Scores
    from ...evaluation.results import Results
    from ...ledger import Entry

INCOMPLETE = 3
"""Exit code of a run that went through but had to leave something out."""

_CASES = 5
_log = logging.getLogger(__name__)


def add_outputs(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that every protocol has."""
    for option in (
        click.option("--csv", "csv_path", type=FilePath(), help="One line per row, CSV."),
        click.option("--json", "json_path", type=FilePath(), help="Everything, for `report`, JSON."),
        click.option("--strict", is_flag=True, help="Exit with 3 also where something has no part in the figures."),
    ):
        command = option(command)
    return exit_on_error(command)


add_workers = click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")


def measure(
    results: "Results",
    found: "tuple[list[Case], list[Failure]]",
    read: Callable[[Path], Any],
    score: "Callable[[Any, Any], Scores]",
    threshold: float | None,
    workers: int,
) -> None:
    """Measure the cases that were found, with a progress bar, and take in what could not be found."""
    from ...evaluation.protocol import evaluate_cases

    cases, failures = found
    take(results, failures)
    measured = evaluate_cases(cases, read, score, threshold, workers=workers)
    take(results, item_bar(results.protocol, len(cases))(measured))


def take(results: "Results", items: "Iterable[Measurement | Failure]") -> None:
    """Take items in; failures are named at once."""
    from ...errors import printable
    from ...evaluation.protocol import Failure

    for item in items:
        results.add(item)
        if isinstance(item, Failure):
            _log.error("%s", printable(str(item)))


def leave_out(results: "Results", entries: "Iterable[Entry]") -> None:
    """Take in what has no part in a layout; what cannot be read is a failure."""
    from ...evaluation.layouts import is_strange
    from ...evaluation.protocol import Failure

    entries = list(entries)
    results.leave_out(entry for entry in entries if not is_strange(entry))
    take(results, [Failure(entry.name, entry.reason) for entry in entries if is_strange(entry)])


def finish(results: "Results", json_path: Path | None, csv_path: Path | None, strict: bool) -> None:
    """Write the files, print the tables, and exit as the group's help says."""
    from ...evaluation.results import cases_table, legend, ranked, summary_table
    from ...imaging.files import atomic_write
    from ...rendering.markdown import as_markdown

    if not results.rows:
        raise InputError(
            f"nothing could be measured ({len(results.failures)} problems); check the layout and the paths"
        )
    data = results.to_json()
    # Files first: a closed pipe or terminal must not cost hours of measuring.
    if json_path is not None:
        from ...imaging.json_files import json_text

        text = json_text(data, indent=1)
        atomic_write(json_path, lambda stream: stream.write(text.encode()))
    if csv_path is not None:
        atomic_write(csv_path, lambda stream: stream.write(results.to_csv().encode("utf-8", "surrogateescape")))
    say(as_markdown(summary_table(data)))
    rows = ranked(data)
    few = max(1, min(_CASES, len(rows) // 2))
    for title, chosen in (("worst", rows[:few]), ("best", rows[-few:][::-1])):
        say(f"\n{title}\n\n{as_markdown(cases_table(data, chosen))}")
    say("\n".join(["", *legend(data)]))
    if results.failures:
        _log.error("the figures are incomplete, %d problems are named above", len(results.failures))
    if results.failures or (strict and results.left_out):
        sys.exit(INCOMPLETE)


def check_outputs(json_path: Path | None, csv_path: Path | None) -> None:
    """Check where files are to be written, before anything is measured."""
    from ...imaging.files import check_output

    for path, suffix in ((json_path, ".json"), (csv_path, ".csv")):
        if path is not None:
            check_output(path, suffix=suffix)


def chosen_figures(keys: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The chosen figures in the usual order, with IoU, which decides about harm."""
    for key in keys:
        if key not in known:
            raise click.BadParameter(f"{key!r} is none of {', '.join(known)}", param_hint="--metric")
    return tuple(key for key in known if key == "iou" or key in keys)


def given_arguments(**arguments: Any) -> dict[str, Any]:
    """Arguments of a command as its results keep them: paths as text."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}


def spinner(title: str) -> Any:
    """A context in which standard error shows that something is under way; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bars = Progress(*columns, console=console, disable=not is_watched(console))
    bars.add_task(title, total=None)
    return bars
