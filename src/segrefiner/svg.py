"""Small static plots, drawn as SVG text.

Colours are CSS variables of the page around (`--ink`, `--muted`, `--line`, `--good`, `--bad`, `--mark`), so that the
plots follow it into dark mode. The drawings scale with the page and need no script.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 46


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
    axes = _x_axis(edges[0], edges[-1], x, label + beyond) + _y_axis(0, max(counts), whole, y, "number")
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
    axes = _x_axis(left, right, x, labels[0]) + _y_axis(bottom, top, nice_step(top - bottom, 6), y, labels[1])
    return _svg(title, axes + _line(x(left), y(0), x(right), y(0), "ink") + dots + line)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: a little beyond the values, never equal."""
    low, high = min(values), max(values)
    margin = max(0.04 * (high - low), 1e-3 * max(abs(low), abs(high), 10))
    return low - margin, high + margin


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _x_axis(low: float, high: float, x: Callable[[float], float], label: str) -> str:
    step = nice_step(high - low, 8)
    base = HEIGHT - _BOTTOM
    parts = [_line(_LEFT, base, WIDTH - _RIGHT, base, "line")]
    for tick in _ticks(low, high, step):
        parts.append(_text(x(tick), base + 17, f"{tick:.6g}"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, label))
    return "".join(parts)


def _y_axis(low: float, high: float, step: float, y: Callable[[float], float], label: str) -> str:
    parts = []
    for tick in _ticks(low, high, step):
        parts.append(_line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "line"))
        parts.append(_text(_LEFT - 6, y(tick) + 4, f"{tick:.6g}", anchor="end"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(_text(13, middle, label, extra=f' transform="rotate(-90 13 {middle:.1f})"'))
    return "".join(parts)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="var(--{colour})"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _svg(title: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="inherit" font-size="13" fill="var(--muted)">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )
