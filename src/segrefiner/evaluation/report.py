"""The page that shows what an evaluation found: tables, plots, and the worst, median and best cases as pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from ..errors import InputError, SegRefinerError
from ..imaging.json_files import read_json
from ..imaging.reading import check_same_size, read_image, read_mask
from ..rendering.html import data_uri, html_page, html_table
from ..rendering.markdown import Json, Table, as_markdown, inert
from ..rendering.overlay import overlay
from ..rendering.svg import bin_names, histogram, histogram_bins, scatter
from .davis import read_davis_labels
from .protocol import Array, Mask, check_size, read_truth
from .results import (
    FORMAT,
    HARMED,
    VERSION,
    cases_table,
    column_name,
    legend,
    rank,
    ranked,
    row_gain,
    shown,
    summary_table,
)

_MOST_POINTS = 3000
_MOST_LINES = 100

_FALSE_COLOUR, _MISSED_COLOUR = (240, 80, 60), (60, 130, 250)


def load_results(path: Path) -> Json:
    """Read the JSON of an evaluation.

    Args:
        path: What `segrefiner evaluate … --json` wrote.

    Returns:
        Its content; `segrefiner.evaluation.results` describes it.

    Raises:
        InputError: It cannot be read, is something else, or of a newer version.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{str(path)!r} is no result of `segrefiner evaluate`; give the file that its --json wrote")
    if data.get("version") != VERSION:
        raise InputError(
            f"{str(path)!r} has version {data.get('version')!r:.20} of the format, this program knows {VERSION}; "
            "use the program that wrote it, or evaluate again"
        )
    try:
        # Whoever edited the file by hand gets one line instead of a stack of calls.
        html_report(data, cases=0)
        cases_table(data, ranked(data))
        texts = [data["protocol"], data["item"]]
        texts += [item[part] for item in data["failures"] for part in ("name", "message")]
        texts += [item[part] for item in data["rows"] for part in ("name", "group")]
        complete = all(isinstance(text, str) for text in texts) and "threshold" in data
        paths = [row["paths"] for row in data["rows"]]
        complete = complete and all(part == {} or part.keys() >= _ROLES for part in paths)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        complete = False
    if not complete or not data["rows"]:
        raise InputError(f"{str(path)!r} lacks a part that `segrefiner evaluate` writes; evaluate again")
    return data


_ROLES = {"image", "truth", "coarse", "predicted"}


def html_report(data: Json, *, cases: int = 3, title: str | None = None) -> str:
    """One self-contained page, without scripts and without anything from elsewhere.

    Args:
        data: From `load_results`.
        cases: Pictures of each kind. Where a file has gone, the page says so.
        title: Heading.

    Returns:
        The HTML.
    """
    heading = title or _heading(data)
    parts = [f"<h1>{escape(heading)}</h1>", f'<p class="lead">{escape(headline(data))}</p>']
    parts.append(html_table(summary_table(data)))
    parts += [f"<p>{escape(line)}</p>" for line in legend(data)]
    parts.append(f'<div class="plots">{"".join(_plots(data))}</div>')
    quality = quality_table(data)
    if quality:
        parts += ["<h2>Gain by quality of the coarse mask</h2>", html_table(quality)]
    for kind, rows in chosen_cases(data, cases).items():
        parts.append(f"<h2>{escape(kind)}</h2>")
        parts += [_html_case(data, row) for row in rows]
    parts += _html_failures(data["failures"])
    parts.append(f"<footer>{escape(_provenance(data))}</footer>")
    return html_page(heading, parts)


def markdown_report(data: Json, *, cases: int = 3, title: str | None = None) -> str:
    """The same in Markdown: tables, and the distribution in characters; no pictures.

    Args:
        data: From `load_results`.
        cases: Cases of each kind.
        title: Heading.

    Returns:
        The text.
    """
    parts = [f"# {title or _heading(data)}", headline(data), as_markdown(summary_table(data)), *legend(data)]
    values, label, _ = _distribution(data)
    if values:
        parts += [f"## {label}", f"```\n{_bars(values)}\n```"]
    quality = quality_table(data)
    if quality:
        parts += ["## Gain by quality of the coarse mask", as_markdown(quality)]
    for kind, rows in chosen_cases(data, cases).items():
        parts += [f"## {kind}", as_markdown(cases_table(data, rows))]
    if data["failures"]:
        lines = [inert(f"{failure['name']}: {failure['message']}") for failure in data["failures"][:_MOST_LINES]]
        parts += [f"## Not measured: {len(data['failures'])}", "\n".join(f"- {line}" for line in lines)]
    parts.append(inert(_provenance(data)))
    return "\n\n".join(parts) + "\n"


def headline(data: Json) -> str:
    """The primary figure in one sentence; of several groups only how many there are."""
    key, total, groups = data["primary"], len(data["rows"]), data["summary"]
    counted = f"{total} {_plural(data['item'], total)}"
    whole = next((group for group in groups if group["items"] == total), None)
    if whole is None:
        return f"{counted} in {len(groups)} sets."
    after = shown(data, key, whole["after"].get(key))
    if whole["before"] is not None:
        gain = shown(data, key, whole["gain"].get(key), sign=True)
        after = f"{shown(data, key, whole['before'].get(key))} → {after} ({gain})"
    return f"Mean {column_name(data, key)} {after}, {counted}."


def chosen_cases(data: Json, count: int) -> dict[str, list[Json]]:
    """The worst, the median and the best rows, by heading; each row once.

    Args:
        data: An evaluation.
        count: How many of each kind, at most.
    """
    rows = ranked(data)
    if not rows or not count:
        return {}
    if len(rows) < 3:
        return {"Cases": rows}
    each = min(count, len(rows) // 3)
    middle = (len(rows) - each) // 2
    what = "gain" if row_gain(data, rows[0]) is not None else column_name(data, data["primary"])
    return {
        f"Worst by {what}": rows[:each],
        f"Median by {what}": rows[middle : middle + each],
        f"Best by {what}": rows[-each:][::-1],
    }


def quality_table(data: Json) -> Table | None:
    """Mean gain and harm in five parts of equal size, by the coarse masks' primary figure.

    Args:
        data: An evaluation.

    Returns:
        The table, or None with fewer than five rows that have coarse masks.
    """
    key = data["primary"]
    rows = sorted(_compared(data), key=lambda row: float(row["before"][key]))
    if len(rows) < _PARTS:
        return None
    lines = []
    for part in np.array_split(np.arange(len(rows)), _PARTS):
        chosen = [rows[index] for index in part]
        gains = [row_gain(data, row) or 0.0 for row in chosen]
        span = [shown(data, key, chosen[end]["before"][key]) for end in (0, -1)]
        harmed = sum(gain < -HARMED for gain in gains)
        means = [shown(data, key, value, sign=True) for value in (float(np.mean(gains)), float(np.median(gains)))]
        lines.append([f"{span[0]} to {span[1]}", str(len(chosen)), *means, str(harmed)])
    return [f"{column_name(data, key)} coarse", "n", "mean gain", "median gain", "harmed"], lines


_PARTS = 5


def _compared(data: Json) -> list[Json]:
    return [row for row in data["rows"] if row_gain(data, row) is not None]


def _distribution(data: Json) -> tuple[list[float], str, bool]:
    """What the histogram shows: values in points, their name, and whether their sign matters."""
    key = data["primary"]
    factor = 100 if data["metrics"][key]["percent"] else 1
    rows = _compared(data)
    if rows:
        gains = [factor * (row_gain(data, row) or 0.0) for row in rows]
        return gains, f"Gain in {column_name(data, key)}, points", True
    values = [factor * abs(rank(data, row) or 0.0) for row in ranked(data)]
    return values, column_name(data, key), False


def _plots(data: Json) -> list[str]:
    """Figures with their headings."""
    values, label, signed = _distribution(data)
    if not values:
        return []
    title = "Distribution of the gain" if signed else f"Distribution of {label}"
    plots = [_figure(title, histogram(values, title, label, signed=signed))]
    rows = _compared(data)
    if rows:
        key = data["primary"]
        factor = 100 if data["metrics"][key]["percent"] else 1
        # Evenly through the rows, in case there are more than a page can hold.
        rows = rows[:: 1 + len(rows) // _MOST_POINTS]
        points = [(factor * row["before"][key], factor * (row_gain(data, row) or 0.0), row["name"]) for row in rows]
        labels = (f"{column_name(data, key)} of the coarse mask", "Gain, points")
        title = "Gain by the coarse mask's quality"
        plots.append(_figure(title, scatter(points, title, labels, _trend(points))))
    return plots


def _figure(title: str, plot: str) -> str:
    return f"<figure><figcaption><b>{escape(title)}</b></figcaption>{plot}</figure>"


def _trend(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float]]:
    """Medians in parts of equal size."""
    if len(points) < 4 * _PARTS:
        return []
    ordered = sorted(points)
    parts = [
        np.array([ordered[index][:2] for index in part]) for part in np.array_split(range(len(ordered)), 2 * _PARTS)
    ]
    return [(float(np.median(part[:, 0])), float(np.median(part[:, 1]))) for part in parts]


def _bars(values: Sequence[float]) -> str:
    edges, counts = histogram_bins(values)
    names = bin_names(values, edges)
    width = max(len(name) for name in names)
    unit = max(1.0, max(counts) / 50)
    return "\n".join(
        f"{name:>{width}}  {'#' * round(count / unit)} {count}" for name, count in zip(names, counts, strict=True)
    )


def _html_case(data: Json, row: Json) -> str:
    header, lines = cases_table(data, [row])
    facts = ", ".join(f"{name} {value}" for name, value in zip(header[1:], lines[0][1:], strict=True))
    caption = f"<b>{escape(lines[0][0])}</b> {escape(facts)}"
    if not row["paths"]:
        return f"<p>{caption}</p>"
    try:
        pictures = case_pictures(data, row)
    except (SegRefinerError, TypeError) as error:
        return f"<figure><figcaption>{caption}<br>No picture: {escape(str(error))}</figcaption></figure>"
    shots = []
    for picture in pictures:
        named = escape(picture.caption)
        image = f'<div class="wide"><img src="{data_uri(picture.pixels)}" alt="{named}"></div>'
        shots.append(f'<div class="shot">{image}<small>{named}</small></div>')
    return f'<figure><figcaption>{caption}</figcaption><div class="shots">{"".join(shots)}</div></figure>'


def _html_failures(failures: Sequence[Json]) -> Iterable[str]:
    if not failures:
        return []
    told = [f"{failure['name']}: {failure['message']}" for failure in failures[:_MOST_LINES]]
    lines = "".join(f"<li>{escape(line)}</li>" for line in told)
    more = f"<p>and {len(failures) - _MOST_LINES} more</p>" if len(failures) > _MOST_LINES else ""
    return [f"<details><summary>Not measured: {len(failures)}</summary><ul>{lines}</ul>{more}</details>"]


def _heading(data: Json) -> str:
    return f"Evaluation: {data['protocol']}"


def _provenance(data: Json) -> str:
    given = ", ".join(f"{name} {value}" for name, value in data["arguments"].items() if value is not None)
    return f"segrefiner {data['segrefiner']}, evaluate {data['protocol']}; {given}"


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


@dataclass(frozen=True)
class CasePicture:
    """Something to look at: `(H, W, 3)` uint8, and what it is."""

    pixels: Array
    caption: str


def case_pictures(data: Json, row: Json) -> list[CasePicture]:
    """Before and after, and where each mask is wrong.

    Args:
        data: An evaluation.
        row: One of its rows, with paths.

    Returns:
        The refinement's overlay if there is a coarse mask, and the errors of every mask.

    Raises:
        InputError: A mask cannot be read any more, or has another size.
    """
    paths, label = row["paths"], row.get("label")
    truth = _mask(Path(paths["truth"]), data["threshold"], label, is_truth=True)
    masks = {}
    for role in ("coarse", "predicted"):
        if paths.get(role):
            masks[role] = _mask(Path(paths[role]), data["threshold"], label)
            check_size(masks[role], truth, Path(paths[role]))
    photo, note = _photo(paths.get("image"), truth)
    pictures = []
    if "coarse" in masks:
        pictures.append(CasePicture(overlay(photo, masks["coarse"], masks["predicted"]), f"Before and after{note}"))
    window = case_window(np.logical_or.reduce([truth, *masks.values()]))
    errors = [show_errors(photo[window], mask[window], truth[window]) for mask in masks.values()]
    gap = np.full((errors[0].shape[0], max(1, errors[0].shape[1] // 80), 3), 255, np.uint8)
    joined = errors[0] if len(errors) == 1 else np.concatenate([errors[0], gap, errors[1]], axis=1)
    named = " and ".join(masks)
    pictures.append(CasePicture(joined, f"Errors of the {named} mask: missed in blue, false in red{note}"))
    return pictures


def _mask(path: Path, threshold: float | None, label: int | None, *, is_truth: bool = False) -> Mask:
    if label is not None:
        found: Mask = read_davis_labels(path) == label
        return found
    return read_truth(path, threshold) if is_truth else read_mask(path, threshold=threshold)


def _photo(path: str | None, truth: Mask) -> tuple[Array, str]:
    """The photo, or the truth in greys if there is none, and what to add to the caption."""
    try:
        if path:
            photo = read_image(path)
            check_same_size(photo, truth, image_source=path)
            return photo, ""
        problem = "no photo was given"
    except InputError:
        problem = "the photo could not be read"
    greys = np.where(truth, np.uint8(205), np.uint8(120))
    return np.repeat(greys[..., None], 3, axis=2), f" ({problem}; light is the truth)"


def case_window(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns of the mask, with a margin; all of them for an empty mask."""
    if not mask.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    margin = max(8, max(int(np.ptp(span)) for span in spans) // 10)
    rows, columns = (slice(max(0, int(span[0]) - margin), int(span[-1]) + 1 + margin) for span in spans)
    return rows, columns


def show_errors(photo: Array, mask: Mask, truth: Mask) -> Array:
    """The photo in greys `(H, W, 3)` uint8, what the mask has too much in red and what it misses in blue."""
    grey = photo.mean(axis=2, keepdims=True).astype(np.float32)
    canvas = np.repeat(grey * 0.6 + 40, 3, axis=2)
    for wrong, colour in ((mask & ~truth, _FALSE_COLOUR), (truth & ~mask, _MISSED_COLOUR)):
        canvas[wrong] = 0.25 * canvas[wrong] + 0.75 * np.array(colour, np.float32)
    return canvas.astype(np.uint8)
