"""The page that shows how a training run went: its curves, its validation, what it looked like, and its recipe.

It reads a run's folder as it is, at any moment of the run: whatever is not there yet is left out, and lines that a
stopped run left incomplete are counted and skipped.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from statistics import median

from ..._version import __version__
from ...errors import SegRefinerError
from ...imaging.files import atomic_write, check_output
from ...imaging.reading import read_image
from ...rendering.html import data_uri, html_page, html_table
from ...rendering.markdown import NOTHING, Json, Table, flattened
from ...rendering.svg import CURVE_COLOURS, Curve, curves
from ..run_folder import RunRecord, _number, _pipeline, read_run

_GRIDS = 3
_GRID_SIZE = (1310, 2400)
_MOST_POINTS = 800
_FEW_POINTS = 10
_MOST_LINES = 100
_MOST_ROWS = 12
_TIMESTEPS = len(CURVE_COLOURS)
_FIGURES = {"iou": "IoU", "mba": "mBA"}


def write_training_report(run: Path, target: Path) -> None:
    """Writes the page of a run, finished or not.

    Args:
        run: The run's folder.
        target: Where to; must end in `.html`. The page needs nothing besides itself.

    Raises:
        InputError: There is no such folder, or nothing of a run in it.
        OutputError: The page cannot be written.
    """
    check_output(target, suffix=".html")
    page = training_page(read_run(run))
    # File names may hold bytes that are no Unicode.
    atomic_write(target, lambda stream: stream.write(page.encode("utf-8", "backslashreplace")))


def training_page(run: RunRecord) -> str:
    """The page as HTML."""
    heading = f"Training: {run.name}"
    parts = [f"<h1>{escape(heading)}</h1>", f'<p class="lead">{escape(headline(run))}</p>']
    parts += [f"<p>{escape(line)}</p>" for line in run.unreadable]
    plots = [f"<figure>{plot}</figure>" for plot in _plots(run)]
    parts.append(f'<div class="plots">{"".join(plots)}</div>' if plots else "<p>No step has been logged yet.</p>")
    parts += _validation_part(run)
    parts += _grids_part(run)
    parts += _times_part(run)
    parts += _failures_part(run)
    parts += _recipe_part(run)
    parts.append(f"<footer>segrefiner {escape(__version__)}, report-training</footer>")
    return html_page(heading, parts)


def headline(run: RunRecord) -> str:
    """How far the run is and what it reached, in one paragraph."""
    steps, samples, loss = (_last(run.log, name) for name in ("step", "samples", "loss"))
    if steps is None:
        return "Nothing was logged yet."
    said = [f"Step {steps:,.0f}"]
    asked = _number(run.recipe, "samples")
    if samples is not None:
        said.append(f"{samples:,.0f}{f' of {asked:,.0f}' if asked else ''} samples")
    if loss is not None:
        said.append(f"loss {loss:#.4g}")
    sentences = [", ".join(said)]
    for pipeline, rows in _by_pipeline(run).items():
        row = rows[-1]
        before, after = _number(row, "iou_before"), _number(row, "iou_after")
        if before is not None and after is not None:
            sentences.append(
                f"IoU {before:#.4g} → {after:#.4g} with the pipeline {pipeline} at step {row['step']:,.0f}"
            )
    return ". ".join(sentences) + "."


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over a twentieth of the points around each one, or over five; fewer points are smoothed less or not."""
    half = min(len(points) // _FEW_POINTS, max(2, len(points) // 40))
    values = [value for _, value in points]
    # Not differences of running totals, which one huge value would spoil for all after it.
    windows = (values[max(0, index - half) : index + half + 1] for index in range(len(values)))
    return [(across, sum(window) / len(window)) for (across, _), window in zip(points, windows, strict=True)]


def thinned(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most so many of the points, two or more, always with the lowest and the highest of each stretch."""
    if len(points) <= most:
        return list(points)
    stretch = math.ceil(len(points) / (most // 2))
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def _plots(run: RunRecord) -> list[str]:
    plots = [_raw_and_smooth(run, "loss", "Loss")]
    plots.append(_together(run, [("bce", "cross-entropy"), ("texture", "texture")], "Parts of the loss", "loss"))
    by_timestep = [(f"loss_t{index}", f"t{index}") for index in range(_TIMESTEPS)]
    plots.append(_together(run, by_timestep, "Loss by timestep", "loss"))
    plots.append(_plot([Curve(thinned(_points(run.log, "lr")))], "Learning rate", "learning rate", log=False))
    plots.append(_raw_and_smooth(run, "gradient_norm", "Gradient norm"))
    plots.append(_raw_and_smooth(run, "samples_per_second", "Samples per second"))
    for figure, name in _FIGURES.items():
        lines = []
        for (pipeline, rows), colour in zip(_by_pipeline(run).items(), CURVE_COLOURS, strict=False):
            for stage, dashed in (("before", True), ("after", False)):
                points = _points(rows, f"{figure}_{stage}")
                lines.append(Curve(points, f"{pipeline}, {stage}", colour, dashed=dashed))
        plots.append(_plot(lines, f"{name} of the validation", name))
    return [plot for plot in plots if plot]


def _raw_and_smooth(run: RunRecord, key: str, title: str) -> str:
    points = _points(run.log, key)
    smooth = len(points) >= _FEW_POINTS
    lines = [Curve(thinned(points), "as logged", CURVE_COLOURS[0], thin=smooth)]
    if smooth:
        lines.append(Curve(thinned(smoothed(points)), "smoothed", CURVE_COLOURS[0]))
    return _plot(lines, title, title.lower(), points)


def _together(run: RunRecord, names: Sequence[tuple[str, str]], title: str, label: str) -> str:
    lines = []
    for (key, name), colour in zip(names, CURVE_COLOURS, strict=False):
        lines.append(Curve(thinned(smoothed(_points(run.log, key))), name, colour))
    smooth = any(len(line.points) >= _FEW_POINTS for line in lines)
    return _plot(lines, title, f"{label}, smoothed" if smooth else label)


def _plot(
    lines: Sequence[Curve],
    title: str,
    label: str,
    told: Sequence[tuple[float, float]] | None = None,
    *,
    log: bool = True,
) -> str:
    """A figure with its heading, or nothing where there is nothing to draw."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    ends = [(line.name, line.points) for line in lines] if told is None else [("", told)]
    said = "; ".join(
        f"{f'{name}: ' if name else ''}{points[0][1]:.4g} at step {points[0][0]:g}"
        + (f", {points[-1][1]:.4g} at step {points[-1][0]:g}" if len(points) > 1 else "")
        for name, points in ends
    )
    drawn = curves(lines, f"{title} by step. {said}", ("step", label), log=log)
    return f"<figcaption><b>{escape(title)}</b></figcaption>{drawn}"


def _validation_part(run: RunRecord) -> list[str]:
    if not run.validation:
        return []
    figures = [(f"{figure}_{stage}", f"{name} {stage}") for figure, name in _FIGURES.items() for stage in
               ("before", "after")]  # fmt: skip
    lines = []
    for row in run.validation[-_MOST_ROWS:]:
        cells = [_figure(_number(row, key), "#.4g") for key, _ in figures]
        harmed = _figure(_number(row, "harmed"), ".1%").replace("%", " %")
        lines.append([f"{row['step']:,.0f}", _pipeline(row), _figure(_number(row, "photos"), ",.0f"), *cells, harmed])
    table: Table = ["step", "pipeline", "photos", *(name for _, name in figures), "harmed"], lines
    earlier = len(run.validation) - len(lines)
    note = [f"<p>{earlier} earlier rows are in the curves alone.</p>"] if earlier else []
    return ["<h2>Validation</h2>", html_table(table), *note]


def _grids_part(run: RunRecord) -> list[str]:
    if not run.grids:
        return []
    parts = ["<h2>Examples</h2>"]
    for path in reversed(run.grids[-_GRIDS:]):
        step = f"Step {int(path.stem):,}"
        try:
            source = data_uri(read_image(path), _GRID_SIZE)
        except SegRefinerError as error:
            parts.append(f"<p>{step}: {escape(str(error))}</p>")
            continue
        what = f"{step}: rows of photo, coarse mask, mixed mask, prediction and truth, with errors in red and blue"
        image = f'<div class="wide grid"><img src="{source}" alt="{what}"></div>'
        parts.append(f"<figure><figcaption><b>{step}</b></figcaption>{image}</figure>")
    return parts


def _times_part(run: RunRecord) -> list[str]:
    lines = []
    minutes = _minutes(run.log)
    if minutes:
        sessions = f" in {len(minutes)} sessions" if len(minutes) > 1 else ""
        lines.append(["Trained", f"{_duration(sum(minutes))}{sessions}"])
    speeds = [speed for _, speed in _points(run.log, "samples_per_second")]
    if speeds:
        lines.append(["Samples per second", f"{median(speeds):.3g} in the median"])
    asked, seen = _number(run.recipe, "samples"), _last(run.log, "samples")
    if asked and seen is not None and seen < asked and speeds and speeds[-1] > 0:
        lines.append(["To go", f"{_duration((asked - seen) / speeds[-1] / 60)} at the last rate"])
    parts = ["<h2>Times and files</h2>"]
    if lines:
        parts.append(html_table((["what", "time"], lines)))
    files = [
        [name, f"{size / 1e3:,.1f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB", _moment(changed)]
        for name, size, changed in run.files
    ]
    parts.append(html_table((["file", "size", "written"], files)))
    return parts


def _failures_part(run: RunRecord) -> list[str]:
    if not run.failures:
        return []
    told = [f"{row.get('name')}: {row.get('reason')}" for row in run.failures[:_MOST_LINES]]
    lines = "".join(f"<li>{escape(line)}</li>" for line in told)
    rest = len(run.failures) - len(told)
    more = f"<p>and {rest} more</p>" if rest else ""
    return [
        "<h2>Photos that could not be read</h2>",
        f"<details><summary>{len(run.failures)} in all</summary><ul>{lines}</ul>{more}</details>",
    ]


def _recipe_part(run: RunRecord) -> list[str]:
    if not run.recipe:
        return []
    lines = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in flattened(run.recipe)
    )
    return ["<h2>Recipe</h2>", f"<dl>{lines}</dl>"]


def _by_pipeline(run: RunRecord) -> dict[str, list[Json]]:
    names = sorted({_pipeline(row) for row in run.validation})
    return {name: [row for row in run.validation if _pipeline(row) == name] for name in names}


def _points(rows: Sequence[Json], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), value) for row in rows if (value := _number(row, name)) is not None]


def _last(rows: Sequence[Json], name: str) -> float | None:
    points = _points(rows, name)
    return points[-1][1] if points else None


def _minutes(log: Sequence[Json]) -> list[float]:
    """How long each session took: a continued run counts its minutes from 0 again."""
    sessions: list[float] = []
    for _, value in _points(log, "minutes"):
        if sessions and value >= sessions[-1]:
            sessions[-1] = value
        else:
            sessions.append(value)
    return sessions


def _duration(minutes: float) -> str:
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{minutes:.3g} min"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %z")


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else f"{value:{form}}"
