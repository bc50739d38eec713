"""From the rows of the trust benchmark to its tables: by kind, by set, by class, by steps, and against another run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.common.street import CLASSES
from benchmarks.common.tables import COARSE, HARMED, Row, aligned
from segrefiner.data.sources import data_set_of

EXACT = ("perfect", "thin-perfect", "street-exact", "instances-exact")
"""Kinds whose coarse masks are the truth."""


@dataclass(frozen=True)
class Figures:
    """Masks of one kind by one method; of the coarse masks `iou` and `mba` are absolute, in percent.

    Attributes:
        masks: How many.
        iou: Gain in points: the mean over masks, or of label maps the change of mIoU, whose classes are summed over
            all scenes.
        mba: Mean gain in points.
        harmed: Share in percent that lost more than half an IoU point.
        untouched: Share in percent that came back exactly as they were.
    """

    masks: int
    iou: float
    mba: float
    harmed: float
    untouched: float


Key = tuple[str, str]
"""Kind and method."""


def label_of(row: Row) -> int | None:
    """The class of a row of a label map, whose photo is `NAME/LABEL`; `None` for masks."""
    _, found, label = row.photo.partition("/")
    return int(label) if found else None


def set_of(row: Row) -> str:
    """The set that a row's photo belongs to."""
    return data_set_of(row.photo)


def figures(rows: Iterable[Row]) -> dict[Key, Figures]:
    """Figures for each kind and method."""
    by_key: dict[Key, list[Row]] = {}
    for row in rows:
        by_key.setdefault((row.kind, row.method), []).append(row)
    found = {}
    for (kind, method), some in by_key.items():
        before = {row.photo: row for row in by_key[kind, COARSE]}
        pairs = [(before[row.photo], row) for row in some if not math.isnan(row.iou)]
        if not pairs:  # Classes that no scene shows.
            continue
        absolute = method == COARSE
        gains = [b.mba if absolute else b.mba - a.mba for a, b in pairs]
        old, new = (_mean_iou(rows) for rows in (list(before.values()), some))
        found[kind, method] = Figures(
            masks=len(pairs),
            iou=100 * (new if absolute else new - old),
            mba=100 * _mean(gains),
            harmed=100 * fmean(b.iou < a.iou - HARMED for a, b in pairs),
            untouched=100 * fmean(b.untouched for _, b in pairs),
        )
    return found


def _mean_iou(rows: Sequence[Row]) -> float:
    """The mean over masks; of label maps the mean over classes of the IoU of all scenes together."""
    if label_of(rows[0]) is None:
        return fmean(row.iou for row in rows)
    return _mean(list(class_ious(rows).values()))


def class_ious(rows: Iterable[Row]) -> dict[int, float]:
    """The IoU of each class, of all scenes together."""
    both, either = dict.fromkeys(range(len(CLASSES)), 0), dict.fromkeys(range(len(CLASSES)), 0)
    for row in rows:
        label = label_of(row)
        if label is not None:
            both[label], either[label] = both[label] + row.intersection, either[label] + row.union
    return {label: both[label] / either[label] for label in both if either[label]}


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan


_HEAD = ("masks", "coarse IoU / mBA", "ours IoU / mBA", "harmed", "untouched", "free IoU / mBA", "harmed", "untouched")


def main_table(rows: Sequence[Row], kinds: Sequence[str], steps: int) -> str:
    """Kinds down, then the means over the imperfect and over the exact kinds; ours and free, with so many steps."""
    found = figures(rows)
    shown = [kind for kind in kinds if (kind, COARSE) in found]
    lines = [["kind", *_HEAD]]
    for kind in shown:
        lines.append([kind, *_cells(found[kind, COARSE], [found.get((kind, m)) for m in _pair(steps)])])
    for name, some in (
        ("mean, imperfect", [k for k in shown if k not in EXACT]),
        ("mean, exact", [k for k in shown if k in EXACT]),
    ):
        if len(some) > 1:
            means = [_means([f for k in some if (f := found.get((k, m)))]) for m in (COARSE, *_pair(steps))]
            lines.append([name, *_cells(means[0], means[1:])])
    return aligned(lines)


def set_table(rows: Sequence[Row], kinds: Sequence[str], steps: int) -> str:
    """Kinds and sets down."""
    lines = [["kind, set", *_HEAD]]
    for kind in kinds:
        of_kind = [row for row in rows if row.kind == kind]
        for name in sorted({set_of(row) for row in of_kind}):
            found = figures(row for row in of_kind if set_of(row) == name)
            lines.append(
                [f"{kind}, {name}", *_cells(found[kind, COARSE], [found.get((kind, m)) for m in _pair(steps)])]
            )
    return aligned(lines)


def class_table(rows: Sequence[Row], kinds: Sequence[str], steps: int) -> str:
    """Classes of the label maps down: IoU of the coarse maps, and what ours and free gain; empty without maps."""
    by_kind = {}
    for kind in kinds:
        methods = [
            class_ious(row for row in rows if row.kind == kind and row.method == m) for m in (COARSE, *_pair(steps))
        ]
        if methods[0]:
            by_kind[kind] = methods
    if not by_kind:
        return ""
    lines = [["class", *(f"{kind}{column}" for kind in by_kind for column in (" IoU", ": ours", ": free"))]]
    for label, name in enumerate(CLASSES):
        line = [name]
        for coarse, ours, free in by_kind.values():
            before = coarse.get(label, math.nan)
            line += [_number(100 * before)]
            line += [_number(100 * (gained.get(label, math.nan) - before), "+") for gained in (ours, free)]
        lines.append(line)
    return aligned(lines)


def step_table(rows: Sequence[Row], kinds: Sequence[str], steps: Sequence[int]) -> str:
    """Kinds down, numbers of steps across: IoU / mBA gained, with and without acceptance."""
    found = figures(rows)
    methods = [f"{way}-{n}" for way in ("ours", "free") for n in steps]
    lines = [["kind, IoU / mBA", *methods]]
    shown = [kind for kind in kinds if (kind, COARSE) in found]
    lines += [[kind, *(_pair_of(found.get((kind, m))) for m in methods)] for kind in shown]
    for name, some in (
        ("mean, imperfect", [k for k in shown if k not in EXACT]),
        ("mean, exact", [k for k in shown if k in EXACT]),
    ):
        if len(some) > 1:
            lines.append([name, *(_pair_of(_means([f for k in some if (f := found.get((k, m)))])) for m in methods)])
    return aligned(lines)


def comparison(rows: Sequence[Row], other: Sequence[Row], kinds: Sequence[str], steps: int) -> tuple[str, str]:
    """Another run's figures, and then these: a table, and a note on what both have in common.

    Args:
        rows: Of this run.
        other: Of the other one.
        kinds: In their order.
        steps: Of which methods.
    """
    here, there = ({row.key: row for row in some} for some in (rows, other))
    common = here.keys() & there.keys()
    wanted = {COARSE, *_pair(steps)}
    # A coarse mask that is another one by now cannot be compared.
    same = {key[:2] for key in common if key[2] == COARSE and _counts(here[key]) == _counts(there[key])}
    keys = [key for key in common if key[2] in wanted and key[:2] in same]
    old, new = figures(there[key] for key in keys), figures(here[key] for key in keys)
    lines = [["kind", "masks"]]
    for way in _pair(steps):
        lines[0] += [f"{way}: IoU / mBA before", "now", "harmed before", "now", "untouched before", "now"]
    for kind in kinds:
        if (kind, COARSE) not in new:
            continue
        line = [kind, str(new[kind, COARSE].masks)]
        for way in _pair(steps):
            pair = old.get((kind, way)), new.get((kind, way))
            line += [_pair_of(f) for f in pair]
            line += [_percent(f and f.harmed) for f in pair] + [_percent(f and f.untouched) for f in pair]
        lines.append(line)
    compared = sum(1 for key in keys if key[2] == COARSE)
    unlike = sum(1 for key in common if key[2] == COARSE) - compared
    note = f"compared: {compared} coarse masks that both runs have"
    return aligned(lines), note + (f"; {unlike} that differ are left out" if unlike else "")


def _counts(row: Row) -> tuple[int, int]:
    return row.intersection, row.union


def _pair(steps: int) -> tuple[str, str]:
    return f"ours-{steps}", f"free-{steps}"


def _means(some: Sequence[Figures]) -> Figures | None:
    if not some:
        return None
    values = {name: _mean(getattr(f, name) for f in some) for name in ("iou", "mba", "harmed", "untouched")}
    return Figures(sum(f.masks for f in some), **values)


def _cells(coarse: Figures | None, gains: Sequence[Figures | None]) -> list[str]:
    assert coarse is not None
    cells = [str(coarse.masks), f"{coarse.iou:.1f} / {_number(coarse.mba, '', 1)}"]
    for gain in gains:
        cells += [_pair_of(gain), _percent(gain and gain.harmed), _percent(gain and gain.untouched)]
    return cells


def _pair_of(gain: Figures | None) -> str:
    return "-" if gain is None else f"{_number(gain.iou, '+')} / {_number(gain.mba, '+')}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _number(value: float, sign: str = "", digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def summary(rows: Iterable[Row]) -> Mapping[str, Mapping[str, Figures]]:
    """Figures by kind, then by method."""
    by_kind: dict[str, dict[str, Figures]] = {}
    for (kind, method), found in figures(rows).items():
        by_kind.setdefault(kind, {})[method] = found
    return by_kind
