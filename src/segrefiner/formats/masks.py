"""Masks as annotation files hold them, to arrays and back.

A stored mask is a dictionary of one of these forms, in JSON types:

- `{"rle": {"size": …, "counts": …}}`: COCO's run-length encodings.
- `{"polygons": [[x0, y0, …], …], "scale": [x, y]}`: polygons; without `scale` in pixels, else each coordinate is so
  many pixels; `"relative"` stands for the sides of the photo.
- `{"cvat": {"rle": "3, 5", "left": …, "top": …, "width": …, "height": …}}`: runs row by row in a box.
- `{"brush": [0, 1, …]}`: Label Studio's bytes.
- `{"png": "…", "corner": [x, y]}`: LabelMe's, a PNG in base 64 whose upper left pixel is at the corner.

Where `size` stands beside them, it is that of the photo on which they were drawn.
"""

import base64
import binascii
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MaskError
from ..imaging.coco_masks import decode_rle, draw_polygons, encode_rle, is_whole, sound_polygons
from ..imaging.files import Json, png_bytes
from ..imaging.reading import read_mask
from ..imaging.shapes.outlines import mask_outlines, single_outline
from .brush import decode_brush, encode_brush

Mask: TypeAlias = NDArray[np.bool_]
Size: TypeAlias = tuple[int, int]
Form: TypeAlias = Literal["rle", "counts", "polygons", "ring", "cvat", "brush", "png"]
"""How a mask is written: `counts` is an encoding with a list, `ring` one polygon with all parts and holes joined."""


def decode_mask(stored: Json, size: Size) -> tuple[Mask, tuple[str, ...]]:
    """The mask `(height, width)` of a stored one, and what of it was left out.

    Args:
        stored: One of the forms above; its values are foreign and may be anything.
        size: Of the photo.

    Raises:
        MaskError: It is damaged, or of another size.

    >>> from segrefiner.formats.masks import decode_mask
    >>> mask, left_out = decode_mask({"polygons": [[10, 10, 30, 10, 30, 20, 10, 20]]}, (48, 64))
    >>> mask.shape, int(mask.sum()), left_out
    ((48, 64), 200, ())
    """
    (form, value), *_ = stored.items()
    if "size" in stored and tuple(stored["size"]) != size:
        height, width = stored["size"]
        raise MaskError(f"it is of an image of {width}x{height}, but that is {size[1]}x{size[0]} (width x height)")
    if form == "rle":
        return decode_rle(value, size), ()
    if form == "polygons":
        polygons, problems = sound_polygons(scaled(value, stored.get("scale"), size), size)
        return draw_polygons(polygons, size), tuple(f"left out: {problem}" for problem in problems)
    if form == "cvat":
        return _decode_cvat(value, size), ()
    if form == "brush":
        return decode_brush(value, size), ()
    return _decode_png(value, stored.get("corner"), size), ()


def encode_mask(mask: Mask, form: Form) -> tuple[Any, str]:
    """The stored value of a mask that has any pixel, in a form, and the parts and holes that it has joined, if any.

    Polygons draw the same pixels all the same; programs that stroke outlines draw the joints one pixel wide.

    >>> from segrefiner.formats.masks import decode_mask, encode_mask
    >>> mask = np.zeros((48, 64), bool)
    >>> mask[10:20, 10:30] = True
    >>> value, joined = encode_mask(mask, "rle")
    >>> bool((decode_mask({"rle": value}, (48, 64))[0] == mask).all())
    True
    """
    if form in ("rle", "counts"):
        return encode_rle(mask, compressed=form == "rle"), ""
    if form == "polygons":
        return mask_outlines(mask).polygons, ""
    if form == "ring":
        single, found = single_outline(mask)
        return single, _several(len(found.polygons), found.holes)
    if form == "cvat":
        return _encode_cvat(mask), ""
    if form == "brush":
        return {"brush": encode_brush(mask)}, ""
    left, top, right, bottom = _box(mask)
    png = png_bytes(mask[top:bottom, left:right].astype(np.uint8))
    return {"png": base64.b64encode(png).decode("ascii"), "box": [left, top, right - 1, bottom - 1]}, ""


def _several(parts: int, holes: int) -> str:
    """What of a mask one ring does not have, in words."""
    found = [f"{parts} parts"] * (parts > 1) + [f"{holes} hole{'s' * (holes > 1)}"] * (holes > 0)
    return " and ".join(found)


def kept_value(stored: Json, form: Form, size: Size) -> Any:
    """The value of a stored mask in a form, where that is the same numbers or text; None where it must be redrawn."""
    if "rle" in stored and form in ("rle", "counts"):
        return stored["rle"] if isinstance(stored["rle"]["counts"], list) == (form == "counts") else None
    if "polygons" in stored and form in ("polygons", "ring"):
        polygons, problems = sound_polygons(scaled(stored["polygons"], stored.get("scale"), size), size)
        if form == "ring":
            # Tools of these formats move corners beyond the photo to its border, which draws another mask.
            alone = len(polygons) == 1 and not problems and _is_inside(polygons[0], size)
            return polygons[0] if alone else None
        return polygons
    return None


def _is_inside(polygon: list[float], size: Size) -> bool:
    return min(polygon) >= 0 and max(polygon[0::2]) <= size[1] and max(polygon[1::2]) <= size[0]


def scaled(polygons: Any, scale: Any, size: Size) -> Any:
    """Polygons in pixels; anything that is none comes back as it is."""
    if scale is None or not isinstance(polygons, list):
        return polygons
    factors = (size[1], size[0]) if scale == "relative" else scale

    def pixels(polygon: Any) -> Any:
        if not isinstance(polygon, list):
            return polygon
        # Halves of pixels that were divided by the sides come back as halves.
        return [round(one * factors[i % 2], 3) if _is_number(one) else one for i, one in enumerate(polygon)]

    return [pixels(polygon) for polygon in polygons]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def flat_points(points: Any) -> list[Any]:
    """Points `[[x, y], …]` of any type as one list `[x, y, …]`. Raises `MaskError`."""
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise MaskError("points are no list of [x, y]")
    return [value for point in points for value in point]


def paired_points(ring: list[float]) -> list[list[float]]:
    """The other way round."""
    return [list(pair) for pair in zip(ring[0::2], ring[1::2], strict=True)]


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _decode_cvat(value: Json, size: Size) -> Mask:
    try:
        left, top, width, height = (_whole_text(value[name]) for name in ("left", "top", "width", "height"))
        runs = [int(run) for run in str(value["rle"]).split(",") if run.strip()]
    except (KeyError, ValueError, TypeError, OverflowError):
        raise MaskError("expected rle, left, top, width and height, all of whole numbers") from None
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > size[1] or top + height > size[0]:
        raise MaskError(f"its box does not lie inside the photo of {size[1]}x{size[0]}")
    if not all(0 <= run <= width * height for run in runs):
        raise MaskError(f"it has a run that is negative, or longer than its box of {width}x{height}")
    if sum(runs) != width * height:
        raise MaskError(f"its runs add up to {sum(runs)}, but its box has {width * height} pixels")
    mask = np.zeros(size, np.bool_)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def _whole_text(value: Any) -> int:
    """A whole number as text, which may be written `7.0`. Raises `ValueError`, `OverflowError`."""
    number = float(value)
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def _encode_cvat(mask: Mask) -> Json:
    left, top, right, bottom = _box(mask)
    runs = encode_rle(mask[top:bottom, left:right].T, compressed=False)["counts"]
    text = ", ".join(map(str, runs))
    return {"rle": text, "left": left, "top": top, "width": right - left, "height": bottom - top}


def _decode_png(value: Any, corner: Any, size: Size) -> Mask:
    if not isinstance(value, str):
        raise MaskError("its mask is no text: expected a PNG in base 64")
    if not isinstance(corner, list) or len(corner) != 2 or not all(_is_number(one) for one in corner):
        raise MaskError("it has no corner for its mask: expected two points")
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise MaskError("its mask is no base 64: expected a PNG in base 64") from None
    try:
        crop = read_mask(content, threshold=1, max_pixels=size[0] * size[1])
    except InputError as error:
        raise MaskError(str(error)) from error
    left, top = (round(one) for one in corner)
    if left < 0 or top < 0 or left + crop.shape[1] > size[1] or top + crop.shape[0] > size[0]:
        raise MaskError(f"its mask of {crop.shape[1]}x{crop.shape[0]} at {left}, {top} is not inside the photo")
    mask = np.zeros(size, np.bool_)
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return mask


def whole(value: Any) -> int | None:
    """A whole number of JSON, which tables may have turned into a float; None for anything else."""
    return int(value) if is_whole(value) and abs(value) < 2**53 else None


def finite(value: Any) -> float | None:
    """A number of JSON as a float; None for anything else, NaN and numbers that are too large."""
    return float(value) if _is_number(value) else None


def image_size(height: Any, width: Any) -> Size | None:
    """The size that a file states, if it is one."""
    sides = whole(height), whole(width)
    return (sides[0], sides[1]) if sides[0] and sides[1] and min(sides[0], sides[1]) > 0 else None
