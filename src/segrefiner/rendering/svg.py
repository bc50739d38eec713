"""Small static plots, drawn as SVG text.

Colours are CSS variables of the page around (`--ink`, `--muted`, `--line`, `--good`, `--bad`, `--mark`, and `--c0` to
`--c5` to tell curves apart), so that the plots follow it into dark mode. The drawings scale with the page and need no
script.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 480, 300
CURVE_COLOURS = tuple(f"c{index}" for index in range(6))
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 46
_LEGEND_LINE, _LETTER = 18, 9.6
"""Height of a line and width of a letter, at the size to which a narrow page enlarges them."""
_WIDE = 5.0
"""Values that span more than this factor are shown on a logarithmic axis, where that is asked for."""


def nice_step(span: float, parts: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts a span into at most so many parts."""
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def histogram_bins(values: Sequence[float], bins: int = 20) -> tuple[list[float], list[int]]:
    """Count values in bins of a nice width, with an edge at 0.

    Few values far outside (one in fifty on either side) do not stretch the axis: the outermost bins take them in.
    What is below 0 has bins of its own.

    Args:
        values: At least one.
        bins: How many bins, at most.

    Returns:
        The edges, one more than bins, and the counts.
    """
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 50], ordered[-1 - len(ordered) // 50]
    # Losses are never counted among the gains, however few they are.
    few_losses = ordered[0] < 0 <= low
    low = 0.0 if few_losses else low
    # Not so fine that the edges read alike.
    step = nice_step(max(high - low, 1e-3 * max(abs(low), abs(high), 10)), bins - 1)
    first = math.floor(low / step) - few_losses
    count = max(1, math.floor(high / step) - first + 1)
    counts = [0] * count
    for value in ordered:
        counts[min(max(math.floor(value / step) - first, 0), count - 1)] += 1
    return [(first + index) * step for index in range(count + 1)], counts


def bin_names(values: Sequence[float], edges: Sequence[float]) -> list[str]:
    """What each bin holds, in words; the outermost ones may hold everything beyond."""
    spans = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
    if len(spans) > 1 and min(values) < edges[0]:
        spans[0] = f"below {edges[1]:.6g}"
    if len(spans) > 1 and max(values) > edges[-1]:
        spans[-1] = f"from {edges[-2]:.6g}"
    return spans


def histogram(values: Sequence[float], title: str, label: str, *, signed: bool) -> str:
    """A histogram.

    Args:
        values: At least one.
        title: What a screen reader says.
        label: Of the horizontal axis.
        signed: Whether bins below 0 are bad.

    Returns:
        An `<svg>` element.
    """
    edges, counts = histogram_bins(values)
    x = _scale(edges[0], edges[-1], _LEFT, WIDTH - _RIGHT)
    y = _scale(0, max(counts), HEIGHT - _BOTTOM, _TOP)
    marks = []
    for index, (name, count) in enumerate(zip(bin_names(values, edges), counts, strict=True)):
        left, right = x(edges[index]) + 0.75, x(edges[index + 1]) - 0.75
        colour = "bad" if signed and edges[index + 1] <= 0 else "good" if signed else "mark"
        tip = f"<title>{name}: {count}</title>"
        box = f'x="{left:.1f}" y="{y(count):.1f}" width="{right - left:.1f}" height="{y(0) - y(count):.1f}"'
        marks.append(f'<rect {box} rx="1.5" fill="var(--{colour})">{tip}</rect>')
    whole = max(1.0, nice_step(max(counts), 5))
    beyond = ", the outermost bars with all beyond" if min(values) < edges[0] or max(values) > edges[-1] else ""
    axes = _x_axis(edges[0], edges[-1], x, label + beyond) + _y_axis(_ticks(0, max(counts), whole), y, "number")
    zero = _line(x(0), _TOP, x(0), HEIGHT - _BOTTOM, "ink") if edges[0] < 0 < edges[-1] else ""
    return _svg(title, axes + "".join(marks) + zero)


def scatter(
    points: Sequence[tuple[float, float, str]],
    title: str,
    labels: tuple[str, str],
    trend: Sequence[tuple[float, float]],
) -> str:
    """Points, with a line at 0 and a trend.

    Args:
        points: `(x, y, name)`, at least one.
        title: What a screen reader says.
        labels: Of the horizontal and the vertical axis.
        trend: Corners of a line through the points, or none.

    Returns:
        An `<svg>` element.
    """
    left, right = _span([point[0] for point in points])
    bottom, top = _span([point[1] for point in points] + [0])
    x, y = _scale(left, right, _LEFT, WIDTH - _RIGHT), _scale(bottom, top, HEIGHT - _BOTTOM, _TOP)
    marks = []
    for across, up, name in points:
        tip = f"<title>{escape(name)}: {across:.2f}, {up:+.2f}</title>"
        colour = "bad" if up < 0 else "good"
        marks.append(f'<circle cx="{x(across):.1f}" cy="{y(up):.1f}" r="3.2" fill="var(--{colour})">{tip}</circle>')
    dots = f'<g fill-opacity="0.6">{"".join(marks)}</g>'
    path = " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in trend)
    line = f'<polyline points="{path}" fill="none" stroke="var(--ink)" stroke-width="2"/>' if trend else ""
    ticks = _ticks(bottom, top, nice_step(top - bottom, 6))
    axes = _x_axis(left, right, x, labels[0]) + _y_axis(ticks, y, labels[1])
    return _svg(title, axes + _line(x(left), y(0), x(right), y(0), "ink") + dots + line)


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Attributes:
        points: `(x, y)`, finite, in the order in which they are joined.
        name: In the legend; curves without one are not in it.
        colour: The CSS variable, without its dashes.
        thin: Whether it stands back behind another one.
        dashed: Whether it is dashed.
    """

    points: Sequence[tuple[float, float]]
    name: str = ""
    colour: str = CURVE_COLOURS[0]
    thin: bool = False
    dashed: bool = False


def curves(lines: Sequence[Curve], title: str, labels: tuple[str, str], *, log: bool = False) -> str:
    """Curves over an axis that starts at 0, with a legend above them.

    Args:
        lines: At least one point among them, none left of 0.
        title: What a screen reader says.
        labels: Of the horizontal and the vertical axis.
        log: Whether the vertical axis may be logarithmic, which it is where the values are positive and far apart.

    Returns:
        An `<svg>` element.
    """
    values = [point[1] for line in lines for point in line.points]
    legend, top = _legend(lines)
    right = max(point[0] for line in lines for point in line.points) or 1.0
    logarithmic = log and min(values) > 0 and max(values) > _WIDE * min(values)
    shape: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = _near([shape(value) for value in values])
    place = _scale(low, high, HEIGHT - _BOTTOM, top)
    ticks = _log_ticks(low, high) if logarithmic else _ticks(low, high, nice_step(high - low, 6))
    label = f"{labels[1]} (logarithmic)" if logarithmic else labels[1]

    def y(value: float) -> float:
        return place(shape(value))

    # Learning rates have long names.
    left = max(_LEFT, 26 + _LETTER * max((len(f"{tick:.6g}") for tick in ticks), default=0))
    x = _scale(0, right, left, WIDTH - _RIGHT)
    axes = _x_axis(0, right, x, labels[0], left) + _y_axis(ticks, y, label, left)
    return _svg(title, axes + legend + "".join(_curve(line, x, y) for line in lines))


def _curve(line: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    places = [(x(across), y(up)) for across, up in line.points]
    tip = f"<title>{escape(line.name)}</title>" if line.name else ""
    if len(places) == 1:
        return (
            f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="var(--{line.colour})">{tip}</circle>'
        )
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    return f'<polyline points="{path}" fill="none" {_stroke(line)}>{tip}</polyline>'


def _stroke(line: Curve) -> str:
    weight = 'stroke-width="1" stroke-opacity="0.7"' if line.thin else 'stroke-width="2"'
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    return f'stroke="var(--{line.colour})" stroke-linejoin="round" {weight}{dashes}'


def _legend(lines: Sequence[Curve]) -> tuple[str, float]:
    """Names beside short lines, in as many rows as they need, and where the plot begins below them."""
    parts, left, row = [], float(_LEFT), 0
    for line in lines:
        if not line.name:
            continue
        width = 34 + _LETTER * len(line.name)
        if left > _LEFT and left + width > WIDTH:
            left, row = float(_LEFT), row + 1
        up = 12 + row * _LEGEND_LINE
        parts.append(f'<path d="M{left:.0f} {up - 4}h18" {_stroke(line)}/>')
        parts.append(_text(left + 23, up, line.name, anchor="start"))
        left += width
    return "".join(parts), _TOP + (row + 1) * _LEGEND_LINE if parts else _TOP


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: a little beyond the values, never equal."""
    low, high = min(values), max(values)
    margin = max(0.04 * (high - low), 1e-3 * max(abs(low), abs(high), 10))
    return low - margin, high + margin


def _near(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis, of values of any magnitude: learning rates are small."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    margin = 0.04 * (high - low) if high - low > 1e-4 * largest else 0.1 * largest or 1.0
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _x_axis(low: float, high: float, x: Callable[[float], float], label: str, left: float = _LEFT) -> str:
    step = nice_step(high - low, 8)
    base = HEIGHT - _BOTTOM
    parts = [_line(left, base, WIDTH - _RIGHT, base, "line")]
    for tick in _ticks(low, high, step):
        name = f"{tick:.6g}"
        parts.append(_text(min(x(tick), WIDTH - _LETTER / 2 * len(name)), base + 17, name))
    parts.append(_text((left + WIDTH - _RIGHT) / 2, HEIGHT - 8, label))
    return "".join(parts)


def _y_axis(ticks: Sequence[float], y: Callable[[float], float], label: str, left: float = _LEFT) -> str:
    parts = []
    for tick in ticks:
        parts.append(_line(left, y(tick), WIDTH - _RIGHT, y(tick), "line"))
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:.6g}", anchor="end"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(_text(13, middle, label, extra=f' transform="rotate(-90 13 {middle:.1f})"'))
    return "".join(parts)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values between two powers of ten, given by their exponents."""
    factors = (1, 1.5, 2, 3, 4, 5, 7) if high - low < 1 else (1, 2, 5) if high - low < 2 else (1,)
    every = max(1, math.ceil((high - low) / 6))
    powers = [power for power in range(math.floor(low), math.ceil(high) + 1) if power % every == 0]
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= math.log10(value) <= high]


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="var(--{colour})"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _svg(title: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="inherit" font-size="13" fill="var(--muted)">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )
