"""What an evaluation found, as tables of text; from the JSON that `segrefiner.evaluate.Results` gives."""

import math
from collections.abc import Sequence

from .rendering.markdown import NOTHING, Json, Table


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
        for stage, field in (("coarse", "before"), ("predicted", "after"), ("gain", "gain")):
            if part[field] is None:
                continue
            figures = [shown(data, key, part[field].get(key), sign=stage == "gain") for key in data["columns"]]
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
