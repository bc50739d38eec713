"""Figures of a set of measured items, and how they are written down.

The JSON that `Results.to_json` gives, and `segrefiner.evaluation.report` reads, is

```
{"format": "segrefiner-evaluation", "version": 1, "segrefiner": "0.1.0",
 "protocol": "folder", "item": "image",         what was run, and what one row is
 "arguments": {"truth": "…", …},                what it was given
 "threshold": null or 128,                      with which masks were read
 "primary": "iou",                              the figure that decides about gain and harm
 "columns": ["iou", "mba", …],                  figures of the tables, in order
 "metrics": {"iou": {"name": "IoU", "percent": true, "higher_is_better": true}, …},
 "notes": ["…"],                                what a reader of the figures has to know
 "summary": [{"group": "", "items": 117, "before": {"iou": 0.87, …} or null, "after": {…},
              "gain": {…} or null, "harmed": 3 or null}],
 "rows": [{"name": "…", "group": "", "before": {…} or null, "after": {…}, "label": null,
           "paths": {"image": "…" or null, "truth": "…", "coarse": … or null, "predicted": "…"}}],
 "failures": [{"name": "…", "message": "…"}],
 "left_out": [{"name": "…", "reason": "…"}]}    what has no part in the figures
```

`before` is the coarse mask, `after` the prediction. A gain is positive where the prediction is better, also for
figures of which less is better. A figure that is not defined is null. Paths are absolute; `label` is the object's
index where masks are label maps. Fields may be added under the same version.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._version import __version__
from ..ledger import Entry
from ..rendering.markdown import NOTHING, Json, Table
from .dis_metrics import F_BETA_SQUARED
from .protocol import METRICS, Array, Failure, Measurement, Scores, improvement

FORMAT = "segrefiner-evaluation"
VERSION = 1

HARMED = 0.005
"""Loss of the primary figure from which on an item counts as harmed: half a point."""


def _set_max_f(total: Array, items: int) -> float:
    precision, recall = total / items
    weighted = F_BETA_SQUARED * precision + recall
    return float(((1 + F_BETA_SQUARED) * precision * recall / np.where(weighted > 0, weighted, 1)).max())


POOLED: dict[str, Callable[[Array, int], float]] = {
    # The sum of intersections over the sum of unions, Cheng et al., CascadePSP, CVPR 2020.
    "set_iou": lambda total, _: float(total[0] / total[1]) if total[1] else 1.0,
    # Over the mean curves of precision and recall, as the authors of DIS5K do.
    "set_max_f": _set_max_f,
}
"""A set's figures that are no means of its items': from the sum of their pools and their number."""


@dataclass
class _Totals:
    """Running figures of one group's coarse masks, or of its predictions."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    pools: dict[str, Array] = field(default_factory=dict)
    pooled: dict[str, int] = field(default_factory=dict)

    def add(self, scores: Scores) -> None:
        for key, value in scores.values.items():
            defined = not math.isnan(value)
            self.sums[key] = self.sums.get(key, 0.0) + (value if defined else 0.0)
            self.counts[key] = self.counts.get(key, 0) + defined
        for key, pool in scores.pools.items():
            self.pools[key] = self.pools[key] + pool if key in self.pools else pool
            self.pooled[key] = self.pooled.get(key, 0) + 1

    def figures(self) -> dict[str, float]:
        means = {key: self.sums[key] / count if count else math.nan for key, count in self.counts.items()}
        return means | {key: POOLED[key](pool, self.pooled[key]) for key, pool in self.pools.items()}


@dataclass
class _Group:
    items: int = 0
    before: _Totals | None = None
    after: _Totals = field(default_factory=_Totals)
    harmed: int = 0


@dataclass
class Results:
    """What a protocol found.

    Args:
        protocol: Its name, such as "folder".
        item: What a row is, such as "image".
        primary: The figure that decides about gain and harm.
        columns: The figures of the tables.
        arguments: What the protocol was given.
        threshold: With which masks were read.
        notes: What a reader of the figures has to know.
        total: What the tables call all groups together; by default they do not show that.
    """

    protocol: str
    item: str
    primary: str
    columns: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    notes: list[str] = field(default_factory=list)
    total: str = ""
    rows: list[Measurement] = field(default_factory=list, init=False)
    failures: list[Failure] = field(default_factory=list, init=False)
    left_out: list[Entry] = field(default_factory=list, init=False)
    _groups: dict[str, _Group] = field(default_factory=dict, init=False)
    _total: _Group = field(default_factory=_Group, init=False)

    def add(self, item: Measurement | Failure) -> None:
        """Take in one item; the pools of a row are added up and dropped."""
        if isinstance(item, Failure):
            self.failures.append(item)
            return
        for group in (self._groups.setdefault(item.group, _Group()), self._total):
            group.items += 1
            group.after.add(item.after)
            if item.before is not None:
                group.before = group.before or _Totals()
                group.before.add(item.before)
                group.harmed += item.gain(self.primary) < -HARMED
        before = None if item.before is None else Scores(item.before.values)
        self.rows.append(replace(item, before=before, after=Scores(item.after.values)))

    def leave_out(self, entries: Iterable[Entry], *, noted: bool = False) -> None:
        """Take in what has no part in the figures; a note for each reason says so, unless there are notes of it."""
        entries = list(entries)
        self.left_out += entries
        for reason in dict.fromkeys(entry.reason for entry in entries if not noted):
            names = [entry.name for entry in entries if entry.reason == reason]
            self.notes.append(f"Left out: {len(names)}, such as {names[0]} ({reason}).")

    def summary(self) -> list[dict[str, Any]]:
        """Figures of each group, in the order of their first rows, and of all together where that has a name."""
        groups = list(self._groups.items())
        if self.total and len(groups) > 1:
            groups.append((self.total, self._total))
        return [self._summarised(name, group) for name, group in groups]

    def _summarised(self, name: str, group: _Group) -> dict[str, Any]:
        after = group.after.figures()
        entry = {"group": name, "items": group.items, "before": None, "after": after, "gain": None, "harmed": None}
        if group.before is not None:
            before = group.before.figures()
            gain = {key: improvement(key, before[key], after[key]) for key in after}
            entry |= {"before": before, "gain": gain, "harmed": group.harmed}
        return entry

    def to_json(self) -> dict[str, Any]:
        """Everything, in the shape that the module's docstring shows."""
        summary = self.summary()
        keys = {key for part in summary for key in part["after"]} | {self.primary, *self.columns}
        return {
            "format": FORMAT,
            "version": VERSION,
            "segrefiner": __version__,
            "protocol": self.protocol,
            "item": self.item,
            "arguments": self.arguments,
            "threshold": self.threshold,
            "primary": self.primary,
            "columns": list(self.columns),
            "metrics": {key: vars(figure) for key, figure in METRICS.items() if key in keys},
            "notes": self.notes,
            "summary": _without_nan(summary),
            "rows": [self._row_to_json(row) for row in self.rows],
            "failures": [vars(failure) for failure in self.failures],
            "left_out": [vars(entry) for entry in self.left_out],
        }

    def _row_to_json(self, row: Measurement) -> dict[str, Any]:
        before = None if row.before is None else _without_nan(row.before.values)
        scores = {"before": before, "after": _without_nan(row.after.values)}
        return {"name": row.name, "group": row.group, **scores, "label": row.label, "paths": row.paths}

    def to_csv(self) -> str:
        """One line per row: names, paths, and each figure before, after and gained; empty where undefined."""
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, _csv_line(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(_csv_line(row) for row in self.rows)
        return text.getvalue()


def _csv_line(row: Measurement) -> dict[str, Any]:
    line: dict[str, Any] = {"group": row.group, "name": row.name}
    for key, value in row.after.values.items():
        if row.before is not None:
            line |= {f"{key}_before": row.before.values[key], f"{key}_after": value, f"{key}_gain": row.gain(key)}
        else:
            line[key] = value
    line = {key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in line.items()}
    return line | row.paths


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_table(data: Json) -> Table:
    """Figures of each group: of the coarse masks, of the predictions, and what was gained, with how many were harmed.

    Args:
        data: An evaluation.

    Returns:
        Header and lines.
    """
    grouped = any(part["group"] for part in data["summary"])
    compared = any(part["before"] is not None for part in data["summary"])
    lines = []
    for part in data["summary"]:
        for stage, which in (("coarse", "before"), ("predicted", "after"), ("gain", "gain")):
            if part[which] is None:
                continue
            figures = [shown(data, key, part[which].get(key), sign=stage == "gain") for key in data["columns"]]
            harmed = f"{part['harmed']} ({100 * part['harmed'] / part['items']:.1f} %)" if stage == "gain" else ""
            group = [part["group"]] if grouped else []
            lines.append([*group, stage, str(part["items"]), *figures, *([harmed] if compared else [])])
    names = [column_name(data, key) for key in data["columns"]]
    return [*(["set"] if grouped else []), "masks", "n", *names, *(["harmed"] if compared else [])], lines


def legend(data: Json) -> list[str]:
    """Sentences without which the tables cannot be understood."""
    if all(part["before"] is None for part in data["summary"]):
        return list(data["notes"])
    lines = [f"Harmed: lost more than 0.5 points of {column_name(data, data['primary'])}."]
    less = [column_name(data, key) for key in data["columns"] if not data["metrics"][key]["higher_is_better"]]
    if less:
        lines.append(f"Of {', '.join(less)} less is better; a gain with + is an improvement there, too.")
    return [*lines, *data["notes"]]


def ranked(data: Json) -> list[Json]:
    """Rows from the worst to the best: by gain, or by the primary figure where there are no coarse masks."""
    rows = [row for row in data["rows"] if rank(data, row) is not None]
    return sorted(rows, key=lambda row: (rank(data, row), row["group"], row["name"]))


def rank(data: Json, row: Json) -> float | None:
    """What a row is ranked by; None if it is not defined."""
    gain = row_gain(data, row)
    if row["before"] is not None:
        return gain
    value: float | None = row["after"].get(data["primary"])
    return value if value is None or data["metrics"][data["primary"]]["higher_is_better"] else -value


def row_gain(data: Json, row: Json, key: str | None = None) -> float | None:
    """By how much a row's prediction is better than its coarse mask; None if that is not defined."""
    key = key or data["primary"]
    if row["before"] is None or row["before"].get(key) is None or row["after"].get(key) is None:
        return None
    gain: float = row["after"][key] - row["before"][key]
    return gain if data["metrics"][key]["higher_is_better"] else -gain


def cases_table(data: Json, rows: Sequence[Json]) -> Table:
    """The primary figure of some rows, before and after."""
    key = data["primary"]
    lines = []
    for row in rows:
        name = f"{row['group']}/{row['name']}" if row["group"] else row["name"]
        after = shown(data, key, row["after"].get(key))
        if row["before"] is None:
            lines.append([name, after])
        else:
            gain = shown(data, key, row_gain(data, row), sign=True)
            lines.append([name, shown(data, key, row["before"].get(key)), after, gain])
    named = column_name(data, key)
    compared = any(row["before"] is not None for row in rows)
    return [data["item"], *([f"{named} coarse", f"{named} predicted", "gain"] if compared else [named])], lines


def column_name(data: Json, key: str) -> str:
    """A figure's name as a table's head."""
    name: str = data["metrics"][key]["name"]
    return name


def shown(data: Json, key: str, value: float | None, *, sign: bool = False) -> str:
    """A figure as it stands in tables: in percent where it is a share."""
    if value is None or math.isnan(value):
        return NOTHING
    percent = data["metrics"][key]["percent"]
    # Adding 0 turns a rounded -0.0 into 0.0.
    return f"{round(100 * value if percent else value, 2) + 0.0:{'+' if sign else ''}.2f}"
