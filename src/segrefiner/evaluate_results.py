"""Figures of a set of measured items, and how they are written down.

The JSON that `Results.to_json` gives, and `segrefiner.report` reads, is

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
 "failures": [{"name": "…", "message": "…"}]}
```

`before` is the coarse mask, `after` the prediction. A gain is positive where the prediction is better, also for
figures of which less is better. A figure that is not defined is null. Paths are absolute; `label` is the object's
index where masks are label maps. Fields may be added under the same version.
"""

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ._version import __version__
from .evaluate import FIGURES, Array, Failure, Row, Scores, improvement
from .metrics_dis import F_BETA_SQUARED

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
    """

    protocol: str
    item: str
    primary: str
    columns: tuple[str, ...]
    arguments: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    notes: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list, init=False)
    failures: list[Failure] = field(default_factory=list, init=False)
    _groups: dict[str, _Group] = field(default_factory=dict, init=False)

    def add(self, item: Row | Failure) -> None:
        """Take in one item; the pools of a row are added up and dropped."""
        if isinstance(item, Failure):
            self.failures.append(item)
            return
        group = self._groups.setdefault(item.group, _Group())
        group.items += 1
        group.after.add(item.after)
        if item.before is not None:
            group.before = group.before or _Totals()
            group.before.add(item.before)
            group.harmed += item.gain(self.primary) < -HARMED
        before = None if item.before is None else Scores(item.before.values)
        self.rows.append(replace(item, before=before, after=Scores(item.after.values)))

    def summary(self) -> list[dict[str, Any]]:
        """Figures of each group, in the order of their first rows."""
        return [self._summarised(name, group) for name, group in self._groups.items()]

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
            "metrics": {key: vars(figure) for key, figure in FIGURES.items() if key in keys},
            "notes": self.notes,
            "summary": _without_nan(summary),
            "rows": [self._row_to_json(row) for row in self.rows],
            "failures": [vars(failure) for failure in self.failures],
        }

    def _row_to_json(self, row: Row) -> dict[str, Any]:
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


def _csv_line(row: Row) -> dict[str, Any]:
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
