"""How commands tell what became of every input: in a line, by name, and as JSON."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import printable
from .messages import conclude, is_quiet, note, say

if TYPE_CHECKING:
    from ...ledger import Entry, Ledger

_SHOWN = 3
_log = logging.getLogger(__name__)

ledger_options = (
    click.option("--strict", is_flag=True, help="Exit with 3 also where an input was left out."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object."),
)


def ledger_line(ledger: "Ledger", output: Path, state: Path) -> str:
    """The numbers of a run, in a line."""
    parts = [f"{ledger.done} done"]
    if ledger.redone:
        parts.append(f"{ledger.redone} of them again")
    if ledger.skipped:
        parts.append(f"{ledger.skipped} done before")
    for count, word, name in (
        (ledger.failed, "failed", "failures"),
        (ledger.left_out, "left out", "left_out"),
        (ledger.notes, "notes", "notes"),
    ):
        if count:
            parts.append(f"{count} {word} ({state / f'{name}.jsonl'})")
    text = printable(f"{output}: {', '.join(parts)} of {ledger.total}")
    if ledger.stopped:
        return f"{text}; {ledger.stopped}: run the same command to go on"
    if not ledger.done and not ledger.skipped:
        text += "; nothing was refined"
    return text


def tell_ledger(ledger: "Ledger", text: str, as_json: bool, **more: Any) -> None:
    """Prints a text; with JSON wished, that on standard output and the text on standard error."""
    if as_json:
        from ...imaging.json_files import json_text

        say(json_text(ledger.document() | more))
    conclude(text, err=as_json)
    if is_quiet() and ledger.total and not ledger.done and not ledger.skipped and not more.get("dry_run"):
        # Who wants to hear of errors alone must hear of a job that did nothing.
        _log.error("%s", text)


def tell_names(ledger: "Ledger") -> None:
    """Names on standard error what failed, why inputs were left out, and what else is to be known."""
    for entry in ledger.failures[:_SHOWN]:
        _log.error("%s", printable(f"{entry.name}: {entry.reason}"))
    for line in reason_lines(ledger):
        _log.warning("%s", printable(f"left out {line}"))
    for remark in ledger.remarks[:_SHOWN]:
        note(printable(remark))


def reason_lines(ledger: "Ledger") -> list[str]:
    """For each of the most frequent reasons: how many were left out, and one of them."""
    return omission_lines(ledger.omissions)


def omission_lines(omissions: "Sequence[Entry]") -> list[str]:
    """`reason_lines` of what was left out."""
    examples = {entry.reason: entry.name for entry in reversed(omissions)}
    shown = Counter(entry.reason for entry in omissions).most_common()
    lines = [f"{count}, such as {examples[why]}: {why}" for why, count in shown[:_SHOWN]]
    return lines + ([f"more for {len(shown) - _SHOWN} other reasons"] if len(shown) > _SHOWN else [])


_strict, _json = ledger_options
