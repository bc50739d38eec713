"""From the rows of the quality benchmark, one for each photo, kind and method, to tables."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean

COARSE = "coarse"
"""The row of the coarse masks themselves, in absolute figures; all others are gains over it."""

PERFECT = "perfect"

HARMED = 0.005
"""A mask is harmed if its IoU falls by more than half a point."""


@dataclass(frozen=True)
class Row:
    """One mask: which, by what, and how good it came out.

    Attributes:
        photo: Name of the photo.
        kind: Of the coarse mask.
        method: That refined it.
        iou: In [0, 1], as are the next two.
        mba: NaN where the truth has no boundary.
        boundary_iou: At 2 % of the diagonal.
        seconds: Wall clock.
        error: Why the method failed, or an empty string. A failed mask counts as unchanged.
        untouched: Whether the mask came back exactly as it was.
        intersection: Pixels that mask and truth share, for the IoU of a whole set; 0 where that is not asked for.
        union: Pixels that either has, likewise.
    """

    photo: str
    kind: str
    method: str
    iou: float
    mba: float
    boundary_iou: float
    seconds: float
    error: str = ""
    untouched: bool = False
    intersection: int = 0
    union: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes the row unique."""
        return self.photo, self.kind, self.method


@dataclass(frozen=True)
class Cell:
    """The masks of one kind by one method. Of the coarse masks `iou`, `mba` and `boundary_iou` are absolute.

    Attributes:
        masks: How many.
        iou: Mean gain in points, as are the next two.
        mba: Mean gain.
        boundary_iou: Mean gain.
        harmed: Share in percent that lost more than half an IoU point.
        untouched: Share in percent that came back exactly as they were.
        seconds: Mean per mask.
        failed: How many the method could not do.
    """

    masks: int
    iou: float
    mba: float
    boundary_iou: float
    harmed: float
    untouched: float
    seconds: float
    failed: int


Cells = dict[str, dict[str, Cell]]
"""By method, then by kind."""

_FIGURES: tuple[tuple[str, str], ...] = (
    ("iou", "IoU, points gained"),
    ("mba", "mBA, points gained"),
    ("boundary_iou", "Boundary IoU, points gained"),
    ("harmed", "Harmed masks, %"),
    ("untouched", "Untouched masks, %"),
    ("seconds", "Seconds per mask"),
)
_UNSIGNED = ("harmed", "untouched", "seconds")


def summarize(rows: Iterable[Row], methods: Sequence[str], kinds: Sequence[str]) -> Cells:
    """Means over the photos, for each method and kind that have rows."""
    by_cell: dict[tuple[str, str], list[Row]] = {}
    coarse: dict[tuple[str, str], Row] = {}
    for row in rows:
        by_cell.setdefault((row.method, row.kind), []).append(row)
        if row.method == COARSE:
            coarse[row.photo, row.kind] = row
    return {
        method: {k: _cell(by_cell[method, k], coarse) for k in kinds if (method, k) in by_cell}
        for method in methods
        if any((method, k) in by_cell for k in kinds)
    }


def _cell(rows: Sequence[Row], coarse: dict[tuple[str, str], Row]) -> Cell:
    absolute = rows[0].method == COARSE
    before = [coarse[row.photo, row.kind] for row in rows]

    def points(value: Callable[[Row], float]) -> float:
        gains = [value(r) - (0 if absolute else value(b)) for r, b in zip(rows, before, strict=True)]
        defined = [gain for gain in gains if not math.isnan(gain)]
        return 100 * fmean(defined) if defined else math.nan

    return Cell(
        masks=len(rows),
        iou=points(lambda r: r.iou),
        mba=points(lambda r: r.mba),
        boundary_iou=points(lambda r: r.boundary_iou),
        harmed=100 * fmean(r.iou < b.iou - HARMED for r, b in zip(rows, before, strict=True)),
        untouched=100 * fmean(r.untouched for r in rows),
        seconds=fmean(r.seconds for r in rows),
        failed=sum(bool(r.error) for r in rows),
    )


def markdown(cells: Cells, kinds: Sequence[str], notes: Sequence[str]) -> str:
    """One table for each figure, methods down and kinds across, then the notes.

    The last columns are means over the kinds, over all of them and, where there are others, over the imperfect ones.
    """
    shown = [kind for kind in kinds if any(kind in row for row in cells.values())]
    imperfect = [kind for kind in shown if kind != PERFECT]
    means = [shown] if len(imperfect) in (0, len(shown)) else [shown, imperfect]
    parts = []
    for field, title in _FIGURES:
        counts = [str(max(row[kind].masks for row in cells.values() if kind in row)) for kind in shown]
        lines = [[title, *shown, *("mean", "imperfect")[: len(means)]], ["masks", *counts, *[""] * len(means)]]
        for method, row in cells.items():
            if method == COARSE and field in _UNSIGNED:
                continue
            label = f"{method} (absolute)" if method == COARSE else method
            values = {kind: getattr(row[kind], field) if kind in row else math.nan for kind in shown}
            averages = [fmean(values[kind] for kind in group) for group in means]
            sign = "+" if field not in _UNSIGNED and method != COARSE else ""
            lines.append([label, *(_number(value, sign) for value in [*values.values(), *averages])])
        parts.append(aligned(lines))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]).rstrip() + "\n"


def _number(value: float, sign: str) -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that lines up as plain text too, its first column to the left; the first line is the head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def comma_separated(rows: Iterable[Row]) -> str:
    """All rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
