"""Reports in plain words: what changed, what was held back and why, and what to do about it."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from ...errors import InputError
from ...refinement.report import Report

_REPORT = TypeAdapter(Report)


def explain(document: Mapping[str, Any]) -> list[str]:
    """Say what a document of segrefiner means.

    Args:
        document: The report of a mask, that of a label map, or the summary of a job, as JSON types.

    Returns:
        Sentences.

    Raises:
        InputError: It is none of these.
        ValidationError: It is a report some of whose figures are none.
    """
    if "left_out_reasons" in document:
        return _of_job(document)
    if isinstance(document.get("reports"), Mapping):
        return _of_labels(document)
    if "agreement" in document:
        return _of_mask(_REPORT.validate_python(dict(document)))
    raise InputError(
        "this is no report of segrefiner: give the object named report of a refinement, or a job's summary as --json "
        "prints it"
    )


def _of_mask(report: Report) -> list[str]:
    told = [f"The mask came back as it was: {report.note}."] if report.note else _changes(report)
    return told + _held_back(report) + [f"Guessed of the files: {warning}." for warning in report.warnings]


def _changes(report: Report) -> list[str]:
    if not report.changed:
        return ["No pixel changed: the coarse mask stays as it is."]
    return [
        f"{_per_cent(report.changed)} of the photo's pixels changed between object and background.",
        f"The refined and the coarse mask have {_per_cent(report.agreement)} of their common area in both (IoU).",
        f"The changed pixel that is farthest from the coarse contour lies {report.largest_shift:.0f} pixels from it.",
        f"On the changed pixels and the new contour the network is sure of {_per_cent(report.confidence)} on average.",
        f"By its own probabilities the mask is {100 * report.predicted_gain:.1f} points of IoU nearer to the truth; "
        "it is less in fact where the network is too sure.",
    ]


def _held_back(report: Report) -> list[str]:
    told = []
    if report.unsure:
        told.append(
            f"{_per_cent(report.unsure)} of the pixels kept their coarse label, since the network was not sure enough "
            "of a change: look there, and correct the coarse mask where it is wrong."
        )
    if report.too_far:
        told.append(
            f"{_per_cent(report.too_far)} of the pixels kept their coarse label, since they lie farther than max_shift "
            "from the coarse contour: give a larger max_shift if they should change."
        )
    for why, count in report.kept_objects.items():
        objects = "1 object" if count == 1 else f"{count} objects"
        told.append(f"{objects} kept the coarse mask as a whole: {why}.")
    if report.ceded:
        told.append(f"{_per_cent(report.ceded)} of the pixels were left to other masks of the photo.")
    return told


def _of_labels(document: Mapping[str, Any]) -> list[str]:
    told = []
    if isinstance(changed := document.get("changed"), int | float):
        told.append(f"{_per_cent(changed)} of the photo's pixels changed their label.")
    if vanished := _listed(document, "vanished"):
        told.append(f"No pixel is left of the labels {', '.join(map(str, vanished))}: compare with the coarse map.")
    for label, report in document["reports"].items():
        told += [f"Label {label}: {sentence}" for sentence in _held_back(_REPORT.validate_python(report))]
    return told + [f"Note: {warning}." for warning in _listed(document, "warnings")]


def _of_job(document: Mapping[str, Any]) -> list[str]:
    def number(name: str) -> int:
        value = document.get(name)
        return value if isinstance(value, int) else 0

    told = [f"Refined: {number('done')} of {number('total')} photos; done before: {number('skipped')}."]
    if document.get("stopped"):
        told.append(f"The job stopped ({document['stopped']}); {number('not_tried')} are still to be done.")
    for entry in _listed(document, "failures"):
        if isinstance(entry, Mapping):
            told.append(f"{entry.get('name')} failed: {entry.get('reason')}.")
    reasons = document["left_out_reasons"]
    for why, count in (reasons if isinstance(reasons, Mapping) else {}).items():
        told.append(f"{count} left out: {why}.")
    return told + [f"Note: {remark}." for remark in _listed(document, "remarks")]


def _listed(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f} %"
