"""COCO's run-length encodings and polygons, checked before any compiled code reads them.

A run-length encoding is `{"size": [height, width], "counts": …}`: lengths of runs, column by column, background
first. `counts` is a list of them, or COCO's compressed string, where each number takes one character per five
bits and, from the fourth on, is the difference to the number two places earlier.

Compiled mask libraries trust what they are given: counts that do not add up to the picture make them read or
write beyond their memory. Everything here is NumPy, and gives pixel by pixel what COCO's own tools give.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from ..errors import MaskError
from .codecs.arrays import as_numpy

_FIRST = 48
"""What the character of the value 0 is, "0"; 63 is "o"."""
_MORE, _SIGN, _BITS = 0x20, 0x10, 0x1F
_OUTLINE, _OUTLINE_OF_PIXEL = 100_000, 2
"""Pixels that the outlines of a mask's polygons may be long, and for each pixel of the picture: it has four sides, each
of which is another pixel's, too."""
_LONGEST = 7
"""Characters of the longest number: 35 bits hold any count of a 32-bit picture and its sign."""


def rle_runs(rle: Any, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Lengths of an encoding's runs, if it is one of a mask of this size.

    Args:
        rle: What stands in a COCO file, of any type.
        size: `(height, width)` that it must have.

    Returns:
        `(N,)` int64, background and object in turns, which add up to `height * width`.

    Raises:
        MaskError: It is no run-length encoding, or of another size, or damaged.
    """
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise MaskError('segmentation is no run-length encoding: expected {"size": [height, width], "counts": …}')
    if not _is_size(rle["size"]) or tuple(map(int, rle["size"])) != size:
        given = _short(rle["size"])
        raise MaskError(f"segmentation has the size {given} but the image is {list(size)} (height, width)")
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        runs = _decompressed(counts)
    elif isinstance(counts, list):
        runs = _listed(counts)
    else:
        raise MaskError(f"counts is of the type {type(counts).__name__}: expected a string or a list of numbers")
    if (runs < 0).any():
        raise MaskError(f"counts hold the negative run {runs[runs < 0][0]}: the encoding is damaged")
    # In Python's integers, because 64 bits overflow for absurd runs.
    total = sum(runs.tolist())
    if total != size[0] * size[1]:
        raise MaskError(f"counts add up to {total} pixels, but the image has {size[0] * size[1]}")
    return runs


def check_polygons(polygons: Any, size: tuple[int, int]) -> None:
    """Check that polygons can be drawn into a picture of this size.

    Args:
        polygons: What stands in a COCO file, of any type: a list of polygons `[x0, y0, x1, y1, …]`.
        size: `(height, width)` of the picture. Corners may lie outside, by up to its own size.

    Raises:
        MaskError: There is none, or one has too few corners, an odd number of coordinates, or one that is no
            number or far outside; or their outlines are longer than any mask's, for drawing walks along them.
    """
    if not isinstance(polygons, list) or not polygons:
        raise MaskError("segmentation is no list of polygons: expected [[x0, y0, x1, y1, …], …]")
    height, width = size
    outline, longest = 0.0, _OUTLINE + _OUTLINE_OF_PIXEL * height * width
    for index, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise MaskError(f"polygon {index} is {_short(polygon)}: expected x and y of three corners or more")
        if not all(_is_number(value) for value in polygon):
            raise MaskError(f"polygon {index} holds something else than finite numbers")
        for values, side, name in ((polygon[0::2], width, "x"), (polygon[1::2], height, "y")):
            if min(values) < -side or max(values) > 2 * side:
                reach = f"{min(values):.6g} to {max(values):.6g}"
                raise MaskError(f"polygon {index} has {name} from {reach}, far outside the image of {side} pixels")
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        outline += np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum()
        if outline > longest:
            raise MaskError(
                f"the outlines of the first {index + 1} polygons are {outline:.0f} pixels long, more than those of any "
                f"mask of {width}x{height}: simplify them"
            )


def sound_polygons(polygons: Any, size: tuple[int, int]) -> tuple[list[list[float]], tuple[str, ...]]:
    """The polygons of a list that can be drawn, and why the others cannot.

    Args:
        polygons: As for `check_polygons`.
        size: `(height, width)` of the picture.

    Raises:
        MaskError: None can be drawn, or all of them together are too long.
    """
    if not isinstance(polygons, list) or len(polygons) < 2:
        check_polygons(polygons, size)
        return polygons, ()
    sound, problems = [], []
    for index, polygon in enumerate(polygons):
        try:
            check_polygons([polygon], size)
            sound.append(polygon)
        except MaskError as error:
            problems.append(str(error).replace("polygon 0", f"polygon {index}", 1))
    if not sound:
        raise MaskError(problems[0])
    check_polygons(sound, size)
    return sound, tuple(problems)


def decode_rle(rle: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of a run-length encoding.

    Args:
        rle: What stands in a COCO file, of any type.
        size: `(height, width)` that it must have.

    Returns:
        `(height, width)` bool.

    Raises:
        MaskError: As `rle_runs` does.
    """
    runs = rle_runs(rle, size)
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(columns.reshape(size[1], size[0]).T)


def encode_rle(mask: npt.NDArray[np.bool_], *, compressed: bool = True) -> dict[str, Any]:
    """The run-length encoding of a mask `(H, W)` bool, its counts as COCO's string or as a list of numbers."""
    mask = as_numpy(mask)
    columns = mask.T.ravel()
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    ends = np.concatenate([[0] if columns.size and columns[0] else [], changes, [columns.size]]).astype(np.int64)
    runs = np.diff(ends, prepend=0)
    counts = _compressed(runs) if compressed else runs.tolist()
    return {"size": [int(side) for side in mask.shape], "counts": counts}


def draw_polygons(polygons: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The union of polygons, drawn as COCO's own tools draw them: on a grid five times finer.

    Args:
        polygons: What stands in a COCO file, of any type: a list of polygons `[x0, y0, x1, y1, …]` in pixels.
        size: `(height, width)` of the picture.

    Returns:
        `(height, width)` bool.

    Raises:
        MaskError: As `check_polygons` does.
    """
    check_polygons(polygons, size)
    # Inside or outside begins at each change; only the sum of all polygons is as large as the picture.
    depth = np.zeros(size[0] * size[1] + 1, np.int32)
    for polygon in polygons:
        turns = _turns(np.array(polygon, np.float64).reshape(-1, 2), size)
        np.add.at(depth, turns[0::2], 1)
        np.add.at(depth, turns[1::2], -1)
    return np.ascontiguousarray((depth[:-1].cumsum() > 0).reshape(size[1], size[0]).T)


_FINER = 5
_POINTS = 1 << 20
"""Of an outline on the fine grid that are drawn at once."""


def _turns(corners: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The places, sorted and counted column by column, where a polygon's inside begins and ends in turns."""
    height, width = size
    start = np.trunc(_FINER * corners + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    points = np.abs(end - start).max(axis=1) + 1
    groups = np.flatnonzero(np.diff(points.cumsum() // _POINTS)) + 1
    found = []
    for sides in np.split(np.arange(len(points)), groups):
        u, v, last = _lines(start[sides], end[sides], points[sides])
        # Where the outline steps from one fine column to the next, and the column is the middle one of a pixel, the
        # inside begins or ends below. One side ends where the next one begins, so there is no step between them.
        step = np.flatnonzero((u[1:] != u[:-1]) & ~last[:-1])
        x = (np.minimum(u[step], u[step + 1]) + 0.5) / _FINER - 0.5
        y = (np.minimum(v[step], v[step + 1]) + 0.5) / _FINER - 0.5
        crosses = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
        found.append(x[crosses].astype(np.int64) * height + np.ceil(y[crosses].clip(0, height)).astype(np.int64))
    return np.sort(np.concatenate(found))


def _lines(
    start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], points: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Draw lines on the grid, one point for each step along the longer direction, both ends included.

    Args:
        start: `(n, 2)`, x and y.
        end: The same.
        points: `(n,)`, of each line.

    Returns:
        x and y of all points, and which of them are the last of their line.
    """
    line = np.repeat(np.arange(len(points)), points)
    last = np.zeros(len(line), np.bool_)
    last[points.cumsum() - 1] = True
    step = np.arange(len(line)) - np.repeat(points.cumsum() - points, points)
    steep = np.abs(end - start)[:, 0] < np.abs(end - start)[:, 1]
    along = np.where(steep[:, None], start[:, ::-1], start), np.where(steep[:, None], end[:, ::-1], end)
    backwards = along[0][:, 0] > along[1][:, 0]
    low, high = (np.where(backwards[:, None], along[1 - i], along[i]) for i in (0, 1))
    length = high[:, 0] - low[:, 0]
    slope = (high[:, 1] - low[:, 1]) / np.maximum(length, 1)
    step = np.where(backwards[line], length[line] - step, step)
    far = low[line, 0] + step
    across = np.trunc(low[line, 1] + slope[line] * step + 0.5).astype(np.int64)
    return np.where(steep[line], across, far), np.where(steep[line], far, across), last


def _compressed(runs: npt.NDArray[np.int64]) -> str:
    values = runs.copy()
    values[3:] -= runs[1:-2]
    characters = np.empty((len(values), _LONGEST), np.uint8)
    rest, more = values, np.ones(len(values), np.bool_)
    used = np.zeros((len(values), _LONGEST), np.bool_)
    for place in range(_LONGEST):
        bits = rest & _BITS
        rest, used[:, place] = rest >> 5, more
        # Done when all that is left is the sign, and the last five bits say which.
        more = more & (rest != np.where(bits & _SIGN, -1, 0))
        characters[:, place] = bits + _FIRST + np.where(more, _MORE, 0)
    return characters[used].tobytes().decode("ascii")


def _decompressed(counts: str | bytes) -> npt.NDArray[np.int64]:
    try:
        text = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        raise MaskError("counts hold characters that no encoding has: it is damaged") from None
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST
    if not codes.size or codes.min() < 0 or codes.max() > _MORE + _BITS:
        raise MaskError("counts are empty or hold characters that no encoding has: it is damaged")
    ends = np.flatnonzero(codes & _MORE == 0) + 1
    if not ends.size or ends[-1] != codes.size:
        raise MaskError("counts end in the middle of a number: the encoding is cut off")
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    if lengths.max() > _LONGEST:
        raise MaskError("counts hold a number that is too large: the encoding is damaged")
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & _BITS) << (5 * place), starts)
    negative = codes[ends - 1] & _SIGN != 0
    values[negative] -= np.int64(1) << (5 * lengths[negative])
    # Runs 0, 1 and 2 stand for themselves; later ones are the difference to the run two places earlier.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _listed(counts: Sequence[Any]) -> npt.NDArray[np.int64]:
    for value in counts:
        if not is_whole(value) or abs(value) > 2**40:
            raise MaskError(f"counts hold {_short(value)}: expected whole numbers")
    return np.array(counts, np.int64)


def is_whole(value: Any) -> bool:
    """Whether a value of JSON is a whole number: `7` or `7.0`, which tables turn into one another."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_size(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_whole(side) for side in value)


def _is_number(value: Any) -> bool:
    # The comparison is false for NaN and infinity, and whole numbers in JSON have no end.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def tight_box(mask: NDArray[np.bool_]) -> list[float]:
    """COCO's `bbox` of a mask that is not empty: x, y, width and height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)]
