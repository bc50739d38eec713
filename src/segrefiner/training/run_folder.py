"""The folder of a training run: what its files are called, and what stands in them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..rendering.markdown import Json

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.jsonl"
VALIDATION_NAME = "validation.jsonl"
FAILURES_NAME = "failures.jsonl"
RECIPE_NAME = "recipe.json"
PICTURES_NAME = "pictures"
PACK_NAME = "photos.pack"
WEIGHTS_NAME = "model.safetensors"
BEST_NAME = "best.safetensors"
REPORT_NAME = "report.html"


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder holds.

    Attributes:
        name: Name of the folder.
        recipe: The recipe in full; empty where there is none.
        log: Rows of the log, in order of their steps.
        validation: Rows of the validation, in order of their steps.
        failures: Photos that could not be read, with the reason.
        grids: Paths of the pictures, in order of their steps.
        files: Name, bytes and time of the last change of each file.
        unreadable: Sentences about what is there and cannot be read.
    """

    name: str
    recipe: Json
    log: list[Json]
    validation: list[Json]
    failures: list[Json]
    grids: list[Path]
    files: list[tuple[str, int, float]]
    unreadable: list[str]


def read_run(folder: Path) -> RunRecord:
    """Reads a run's folder.

    Raises:
        InputError: There is no such folder, or neither recipe nor log in it.
    """
    if not any((folder / name).is_file() for name in (RECIPE_NAME, LOG_NAME)):
        what = f"has neither {RECIPE_NAME} nor {LOG_NAME}" if folder.is_dir() else "is no folder"
        raise InputError(f"{str(folder)!r} {what}; give the folder that `segrefiner train … -o FOLDER` wrote")
    unreadable: list[str] = []
    log, validation, failures = (
        _rows(folder / name, unreadable) for name in (LOG_NAME, VALIDATION_NAME, FAILURES_NAME)
    )
    grids = [path for path in (folder / PICTURES_NAME).glob("*.png") if path.stem.isdecimal()]
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return RunRecord(
        name=folder.resolve().name,
        recipe=_recipe(folder / RECIPE_NAME, unreadable),
        log=_in_order(log),
        validation=_in_order(validation),
        failures=failures,
        grids=sorted(grids, key=lambda path: int(path.stem)),
        files=[(name, facts.st_size, facts.st_mtime) for name, facts in files],
        unreadable=unreadable,
    )


def validation_until(folder: Path, step: int) -> list[Json]:
    """The last row of each pipeline's validation up to a step, from a run's folder; none where there is none."""
    rows = _in_order(_rows(folder / VALIDATION_NAME, []))
    return list({_pipeline(row): row for row in rows if row["step"] <= step}.values())


def _rows(path: Path, unreadable: list[str]) -> list[Json]:
    """The objects in a file of JSON lines; what is none is told."""
    if not path.is_file():
        return []
    found, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            found.append(row)
        else:
            broken += bool(line.strip())
    if broken:
        unreadable.append(
            f"{path.name}: {broken} {'lines are' if broken > 1 else 'line is'} not readable and left out."
        )
    return found


def _recipe(path: Path, unreadable: list[str]) -> Json:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        unreadable.append(f"{path.name} is not readable and left out.")
        return {}
    return content


def _in_order(rows: list[Json]) -> list[Json]:
    """Rows by step, the last one of each step and pipeline: a run that was killed has taken some steps twice."""
    latest = {(step, _pipeline(row)): row for row in rows if (step := _number(row, "step")) is not None and step >= 0}
    return [latest[key] for key in sorted(latest)]


def _pipeline(row: Json) -> str:
    return str(row.get("pipeline", ""))


def _number(row: Json, name: str) -> float | None:
    """A finite number of a row, or None."""
    value: Any = row.get(name)
    # A long integer has no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)
