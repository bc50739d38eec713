"""Figures of the benchmarks, drawn by matplotlib: SVG files that are the same for the same numbers.

How cost grows, as an SVG: one log-log panel for each thing that was varied.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 210, 190, 56, 64, 34
_PER_ROW = 3
_COLOURS = ("#1f5fa8", "#c4561b")
_DASHES = ("", ' stroke-dasharray="5 4"')


@contextmanager
def panels(path: Path, height: float) -> Iterator[tuple[Any, Any]]:
    """Two axes side by side, which are written to `path` when the block ends; `height` in inches."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, height), layout="constrained")
    yield axes[0], axes[1]
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What was varied, with its unit.
        x: `(N,)` the values, positive, ascending.
        lines: `(N,)` each, of the legend's curves, positive; NaN leaves a point out.
    """

    title: str
    x: Sequence[float]
    lines: Sequence[Sequence[float]]


def growth_plot(panels: Sequence[Panel], heading: str, legend: Sequence[str]) -> str:
    """All panels on one vertical scale, as an SVG document.

    Args:
        panels: At least one.
        heading: What one unit of the vertical axis is.
        legend: Names of at most two curves.
    """
    values = [v for panel in panels for line in panel.lines for v in line if not math.isnan(v)]
    low = math.floor(math.log10(min(values)) * 2 - 0.05) / 2
    high = max(low + 1, math.ceil(math.log10(max(values)) * 2 + 0.05) / 2)
    across, down = min(_PER_ROW, len(panels)), math.ceil(len(panels) / _PER_ROW)
    width, height = _LEFT + across * (_WIDTH + _GAP), _TOP + down * (_HEIGHT + 64)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14" font-weight="bold">{escape(heading)}</text>',
    ]
    for i, name in enumerate(legend):
        x = _LEFT + 170 * i
        parts.append(f'<path d="M{x} 40h26" stroke="{_COLOURS[i]}" stroke-width="2"{_DASHES[i]}/>')
        parts.append(f'<text x="{x + 32}" y="44">{escape(name)}</text>')
    for i, panel in enumerate(panels):
        x, y = _LEFT + i % _PER_ROW * (_WIDTH + _GAP), _TOP + i // _PER_ROW * (_HEIGHT + 64)
        parts += _panel(panel, x, y, low, high, labelled=i % _PER_ROW == 0)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, left: float, top: float, low: float, high: float, *, labelled: bool) -> list[str]:
    first, last = math.log10(panel.x[0]), math.log10(panel.x[-1])
    span = (last - first) or 1.0

    def across(value: float) -> float:
        return left + 10 + (_WIDTH - 20) * (math.log10(value) - first) / span

    def down(value: float) -> float:
        return top + _HEIGHT * (high - math.log10(value)) / (high - low)

    parts = [
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>',
        f'<text x="{left + _WIDTH / 2}" y="{top + _HEIGHT + 36}" text-anchor="middle">{escape(panel.title)}</text>',
    ]
    for tick in (m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 3)):
        if not 10**low <= tick <= 10**high * 1.0001:
            continue
        y = down(tick)
        colour = "#888" if tick == 1 else "#e4e4e4"
        parts.append(f'<path d="M{left} {y:.1f}h{_WIDTH}" stroke="{colour}"/>')
        if labelled:
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for value in panel.x:
        parts.append(f'<text x="{across(value):.1f}" y="{top + _HEIGHT + 16}" text-anchor="middle">{value:g}</text>')
    for line, colour, dash in zip(panel.lines, _COLOURS, _DASHES, strict=False):
        points = [(across(x), down(v)) for x, v in zip(panel.x, line, strict=True) if not math.isnan(v)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>' if points else "")
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return parts
