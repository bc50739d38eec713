"""Procedural thin structures with exact masks: wires, spokes, strings, branches, fences, vessels and leaves.

Each kind is drawn at four times the size and shrunk by area, so that a pixel's value is the share of it that the
structure covers. Points are `(x, y)` in pixels of the final size; pixel `i` reaches from `i` to `i + 1`.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...errors import InputError

Coverage = NDArray[np.float32]
Points = NDArray[np.float64]
Projection = Callable[[Points], Points]

OVERSAMPLING = 4
SMALLEST = 32
"""Least height and width: below it thin structures have no room."""

_LEAST_SHARE = 0.006
_ATTEMPTS = 30
_MOST_TWIGS = 400


def draw_structure(kind: str, height: int, width: int, random: Generator) -> Coverage:
    """Draws thin structures of one kind, about 1 to 8 pixels thick.

    Args:
        kind: One of `KINDS`.
        height: Height of the picture in pixels, at least `SMALLEST`.
        width: Width of the picture in pixels, at least `SMALLEST`.
        random: The source of every draw.

    Returns:
        `(H, W)` float32 in [0, 1], the covered share of each pixel. `coverage >= 0.5` is the exact mask; it is not
        empty.

    Raises:
        InputError: There is no such kind, or the size is too small.
    """
    if kind not in _DRAWN:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if min(height, width) < SMALLEST:
        raise InputError(f"the size is {width}x{height}, expected at least {SMALLEST} pixels on either side")
    for _ in range(_ATTEMPTS):
        pen = _Pen(height, width)
        _DRAWN[kind](pen, random)
        coverage = pen.coverage()
        if (coverage >= 0.5).mean() >= _LEAST_SHARE:
            return coverage
    # Chance has put everything outside of the picture.
    pen = _Pen(height, width)
    pen.stroke(np.array([[0.0, height / 3], [width, height / 2]]), 2.0)
    return pen.coverage()


class _Pen:
    """A black picture at four times the size, on which lines and areas are drawn in white."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._picture = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
        self._draw = ImageDraw.Draw(self._picture)

    def stroke(self, points: Points, widths: float | NDArray[np.float64]) -> None:
        """Draws a line through points `(N, 2)` of one width in pixels, or of a width at each point."""
        large = points * OVERSAMPLING - 0.5
        if np.ndim(widths) == 0:
            line = [(float(x), float(y)) for x, y in large]
            self._draw.line(line, fill=255, width=max(1, round(float(widths) * OVERSAMPLING)), joint="curve")
            return
        thick = np.asarray(widths) * OVERSAMPLING
        for (x0, y0), (x1, y1), wide in zip(large, large[1:], (thick[1:] + thick[:-1]) / 2, strict=False):
            self._draw.line((x0, y0, x1, y1), fill=255, width=max(1, round(wide)))
            radius = wide / 2 - 0.5
            if radius >= 1:  # Round joints close the gaps on the outside of bends.
                self._draw.ellipse((x1 - radius, y1 - radius, x1 + radius, y1 + radius), fill=255)

    def fill(self, outline: Points) -> None:
        """Draws the area within an outline `(N, 2)`."""
        self._draw.polygon([(float(x), float(y)) for x, y in outline * OVERSAMPLING - 0.5], fill=255)

    def coverage(self) -> Coverage:
        """The covered share of each pixel, `(H, W)` float32."""
        drawn = np.asarray(self._picture) > 0
        blocks = drawn.reshape(self.height, OVERSAMPLING, self.width, OVERSAMPLING)
        return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))

    def point(self, random: Generator, low: float = 0.0, high: float = 1.0) -> Points:
        """A random point between two shares of the picture's sides."""
        return random.uniform(low, high, 2) * (self.width, self.height)


def _between(random: Generator, low: float, high: float) -> float:
    """A thickness or length; small ones are as frequent as large ones are on a logarithmic scale."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _line(start: Points, end: Points, count: int = 2) -> Points:
    return start + np.linspace(0, 1, count)[:, None] * (end - start)


def _meander(random: Generator, start: Points, angle: float, length: float, bend: float) -> Points:
    """A smooth curve from a point into a direction; `bend` is the typical turn in radians along all of it."""
    count = max(6, math.ceil(length / 6))
    turns = np.repeat(random.normal(size=-(-count // 4)), 4)[:count]
    angles = angle + np.cumsum(turns) * bend / math.sqrt(count) / 2
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1) * length / count
    return np.concatenate([start[None], start + np.cumsum(steps, axis=0)])


def _perspective(pen: _Pen, random: Generator, low: float, high: float, tilt: float) -> Projection:
    """The projection of the unit square to a tilted square within the picture.

    Args:
        pen: The picture.
        random: The source of every draw.
        low: Least extent as a share of the picture.
        high: Largest one.
        tilt: How far corners may be moved, as a share of the extent.
    """
    size = random.uniform(low, high, 2) * (pen.width, pen.height)
    corner = (np.array([pen.width, pen.height]) - size) * random.uniform(0, 1, 2)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    target = corner + (square + random.uniform(-tilt, tilt, (4, 2))) * size
    rows, values = [], []
    for (u, v), (x, y) in zip(square, target, strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        values += [x, y]
    matrix = np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)

    def project(points: Points) -> Points:
        mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
        return np.asarray(mapped[:, :2] / mapped[:, 2:])

    return project


def _wires(pen: _Pen, random: Generator) -> None:
    """Bundles of sagging cables from edge to edge, now and then with a mast or as loose cables."""
    for _ in range(random.integers(1, 4)):
        thick = _between(random, 1.1, 4)
        if random.random() < 0.2:
            start, length = pen.point(random), random.uniform(0.4, 1.2) * pen.width
            pen.stroke(_meander(random, start, random.uniform(0, 2 * math.pi), length, 2.5), thick)
            continue
        ends = np.array([[-0.05, random.uniform(-0.1, 0.9)], [1.05, random.uniform(-0.1, 0.9)]])
        if random.random() < 0.2:
            ends = ends[:, ::-1].copy()
        start, end = ends * (pen.width, pen.height)
        gap, spread = random.uniform(0.02, 0.12) * pen.height, random.uniform(0.4, 1.6)
        sag, steep = random.uniform(0, 0.2) * abs(end[0] - start[0]), random.uniform(0.5, 2.5)
        t = np.linspace(-1, 1, 48)
        hang = sag * (1 - (np.cosh(steep * t) - 1) / (math.cosh(steep) - 1))
        for place in range(random.integers(1, 6)):
            line = _line(start, end, 48)
            line[:, 1] += place * gap * np.linspace(1, spread, 48) + hang * random.uniform(0.9, 1.1)
            pen.stroke(line, max(1.1, thick * random.uniform(0.75, 1.1)))
    if random.random() < 0.25:
        x, lean = random.uniform(0.1, 0.9) * pen.width, random.uniform(-0.03, 0.03) * pen.width
        top = random.uniform(0, 0.4) * pen.height
        pen.stroke(np.array([[x, top], [x + lean, pen.height * 1.02]]), _between(random, 3, 8))


def _spokes(pen: _Pen, random: Generator) -> None:
    """Wheels with hub, spokes and rim, seen from the side or aslant."""
    side = min(pen.height, pen.width)
    for _ in range(random.integers(1, 4)):
        centre, radius = pen.point(random, 0.1, 0.9), random.uniform(0.12, 0.48) * side
        flat, turn = random.uniform(0.35, 1), random.uniform(0, math.pi)
        axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) * [
            [radius],
            [flat * radius],
        ]

        def around(angles: Points, share: float, axes: Points = axes, centre: Points = centre) -> Points:
            return np.asarray(centre + share * np.stack([np.cos(angles), np.sin(angles)], axis=1) @ axes)

        circle = np.linspace(0, 2 * math.pi, 96)
        pen.stroke(around(circle, 1.0), _between(random, 1.5, 7))
        if random.random() < 0.4:
            pen.stroke(around(circle, random.uniform(0.8, 0.93)), _between(random, 1.1, 3))
        hub, count = random.uniform(0.04, 0.16), int(random.integers(6, 37))
        pen.fill(around(circle, hub))
        crossing = random.uniform(0.1, 0.7) if random.random() < 0.5 else 0.0
        thick = _between(random, 1.1, 2.2 if count > 12 else 5)
        for place in range(count):
            angle = 2 * math.pi * place / count
            ends = np.array([angle, angle + (crossing if place % 2 else -crossing)])
            pen.stroke(np.concatenate([around(ends[:1], hub * 0.9), around(ends[1:], 1.0)]), thick)


def _strings(pen: _Pen, random: Generator) -> None:
    """Strings of an instrument or a harp with their frame, or a net."""
    project = _perspective(pen, random, 0.35, 1.1, 0.18)
    count, net = int(random.integers(4, 25)), random.random() < 0.35
    thin, thick = np.sort([_between(random, 1.1, 3), _between(random, 1.1, 3)])
    slope = random.uniform(0, 0.7) if random.random() < 0.4 and not net else 0.0
    places = np.linspace(0.04, 0.96, count)
    along = np.linspace(0, 1, 24)
    for place, wide in zip(places, np.linspace(thin, thick, count), strict=True):
        sway = 0.25 / count * np.sin(along * random.uniform(4, 9) + random.uniform(0, 6)) if net else 0.0
        line = np.stack([place + sway + np.zeros(24), along * (1 - slope * place)], axis=1)
        pen.stroke(project(line), float(wide))
        if net:
            pen.stroke(project(line[:, ::-1]), float(wide))
    if random.random() < 0.6:
        frame = np.array([[0, 0], [1, 0], [1, 1 - slope], [0, 1], [0, 0]], float)
        sides = [project(_line(a, b, 12)) for a, b in pairwise(frame)]
        pen.stroke(np.concatenate(sides), _between(random, 3, 8))


def _branches(pen: _Pen, random: Generator) -> None:
    """Bare trees and twigs that taper from the trunk to the tips."""
    for _ in range(random.integers(1, 4)):
        thick, angle = _between(random, 2.5, 8), -math.pi / 2 + random.normal(0, 0.4)
        start = np.array([random.uniform(0, pen.width), pen.height * random.uniform(0.9, 1.02)])
        if random.random() < 0.4:  # A twig that reaches in from one side.
            start, angle = np.array([-2.0, random.uniform(0, pen.height)]), random.normal(0, 0.4)
            if random.random() < 0.5:
                start[0], angle = pen.width + 2.0, math.pi - angle
        length = random.uniform(0.25, 0.45) * min(pen.height, pen.width)
        shrink, spread = random.uniform(0.68, 0.82), random.uniform(0.3, 0.9)
        growing = [(start, angle, length, thick)]
        for _ in range(_MOST_TWIGS):
            if not growing:
                break
            start, angle, length, thick = growing.pop(0)
            line = _meander(random, start, angle, length, 0.5)
            ends_at = max(1.1, thick * shrink)
            pen.stroke(line, np.linspace(thick, ends_at, len(line)))
            if thick * shrink < 1.1 or length < 6:
                continue
            for side in random.permutation([-1, 1, 0.2])[: random.integers(2, 4)]:
                place = line[-1] if random.random() < 0.6 else line[random.integers(len(line) // 2, len(line))]
                turned = angle + side * spread * random.uniform(0.5, 1.3)
                growing.append((place, turned, length * random.uniform(0.6, 0.95), ends_at * random.uniform(0.75, 1)))


def _fences(pen: _Pen, random: Generator) -> None:
    """Bars with rails, grids, or chain link, with posts now and then."""
    project = _perspective(pen, random, 0.5, 1.3, 0.12)
    style, columns = random.choice(["bars", "grid", "chain"]), int(random.integers(6, 26))
    rows = max(2, round(columns * random.uniform(0.5, 1.2)))
    thick = _between(random, 1.1, 3)
    if style == "bars":
        thick = _between(random, 1.3, 6)
        for u in np.linspace(0.02, 0.98, columns):
            pen.stroke(project(np.array([[u, random.uniform(0, 0.02)], [u, 1.0]])), thick)
        for v in np.sort(random.uniform(0.03, 0.97, random.integers(1, 4))):
            pen.stroke(project(np.array([[0.0, v], [1.0, v]])), _between(random, 1.5, 8))
    elif style == "grid":
        for u in np.linspace(0, 1, columns):
            pen.stroke(project(np.array([[u, 0.0], [u, 1.0]])), thick)
        for v in np.linspace(0, 1, rows):
            pen.stroke(project(np.array([[0.0, v], [1.0, v]])), thick)
    else:
        # Neighbouring zigzags turn the other way, so that their corners meet.
        steps = np.arange(2 * rows + 1)
        for place in range(columns):
            line = np.stack([(place + (steps + place) % 2) / columns, steps / (2 * rows)], axis=1)
            pen.stroke(project(line), thick)
    if random.random() < 0.5:
        for u in np.arange(random.uniform(0, 0.3), 1, random.uniform(0.3, 0.6)):
            pen.stroke(project(np.array([[u, -0.05], [u, 1.05]])), _between(random, 3, 8))


def _vessels(pen: _Pen, random: Generator) -> None:
    """Curved vessels that branch, from 3 pixels down to 1, as on the retina."""
    root, reach = pen.point(random, -0.05, 1.05), math.hypot(pen.height, pen.width)
    first, count = random.uniform(0, 2 * math.pi), int(random.integers(4, 9))
    growing = [
        (root, first + 2 * math.pi * n / count + random.normal(0, 0.3), random.uniform(0.2, 0.35) * reach, 3.2)
        for n in range(count)
    ]
    scale, bend = random.uniform(0.6, 1), random.uniform(0.5, 1.6)
    for _ in range(_MOST_TWIGS // 2):
        if not growing:
            break
        start, angle, length, thick = growing.pop(0)
        line = _meander(random, start, angle, length, bend)
        pen.stroke(line, np.linspace(max(1.1, thick * scale), max(1.1, 0.85 * thick * scale), len(line)))
        if thick < 0.9 or length < 12:
            continue
        heading = math.atan2(*(line[-1] - line[-2])[::-1])
        fork = random.uniform(0.15, 0.5)
        growing.append((line[-1], heading + fork, length * random.uniform(0.55, 0.95), 0.8 * thick))
        growing.append((line[-1], heading - fork, length * random.uniform(0.55, 0.95), 0.7 * thick))
        if random.random() < 0.7:
            place = int(random.integers(1, len(line) - 1))
            side = heading + random.choice([-1, 1]) * random.uniform(0.6, 1.3)
            growing.append((line[place], side, length * random.uniform(0.3, 0.7), 0.5 * thick))


def _leaves(pen: _Pen, random: Generator) -> None:
    """Small plants: leaves along thin stems, seedlings with leaves at the stems' tips, blades of grass."""
    for _ in range(random.integers(1, 4)):
        style = random.choice(["stem", "seedling", "grass"])
        base = pen.point(random, 0.1, 0.9)
        upright = random.random() < 0.6
        if upright:
            base[1] = pen.height * random.uniform(0.6, 1.02)
        size = random.uniform(0.3, 0.8) * pen.height
        for _ in range(random.integers(3, 14 if style == "grass" else 9)):
            angle = -math.pi / 2 + random.normal(0, 0.5) if upright else random.uniform(0, 2 * math.pi)
            stem = _meander(random, base, angle, size * random.uniform(0.5, 1.1), 0.8)
            if style == "grass":
                pen.stroke(stem, np.linspace(_between(random, 2, 7), 1.1, len(stem)))
                continue
            thick = _between(random, 1.1, 3)
            pen.stroke(stem, np.linspace(thick, max(1.1, thick * 0.6), len(stem)))
            length, slim = size * random.uniform(0.15, 0.5), random.uniform(0.2, 0.6)
            heading = math.atan2(*(stem[-1] - stem[-2])[::-1])
            pen.fill(_blade(stem[-1], heading, length, slim))
            if style == "stem":
                for side, place in enumerate(range(2, len(stem) - 1, int(random.integers(1, 4)))):
                    turned = angle + (1 if side % 2 else -1) * random.uniform(0.5, 1.2)
                    pen.fill(_blade(stem[place], turned, length * random.uniform(0.5, 1), slim))


def _blade(start: Points, angle: float, length: float, slim: float) -> Points:
    """The outline of a pointed leaf; `slim` is its width as a share of its length."""
    t = np.linspace(0, 1, 20)
    half = slim / 2 * np.sin(math.pi * t**0.8) ** 1.2
    outline = np.concatenate([np.stack([t, half], axis=1), np.stack([t[::-1], -half[::-1]], axis=1)]) * length
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(start + outline @ turn)


_DRAWN: dict[str, Callable[[_Pen, Generator], None]] = {
    "wires": _wires,
    "spokes": _spokes,
    "strings": _strings,
    "branches": _branches,
    "fences": _fences,
    "vessels": _vessels,
    "leaves": _leaves,
}
KINDS = tuple(_DRAWN)
"""What can be drawn."""
