"""What a stored picture means as a photo, a mask, a label map and a panoptic map: decided here, for all that read them.

Two files that look the same mean the same, however they store it:

- A **photo** is its colours. Opacity is dropped.
- A **mask** is what one sees. What is transparent is no object: where some of the picture is transparent, its opacity
  is the mask, as of a cut-out, whatever its colours. Otherwise greys are the mask's values, and one colour on black
  is object on background. A palette is only a way to store colours: its order says nothing.
- A **label map** is the one exception, because of a convention of the field: with a palette, its indices are the labels
  and the colours only show them (PASCAL VOC, DAVIS). Without one, greys are the labels.
- A **panoptic map** is its colours, which are the segments' ids.

Where a picture can be read in two ways it is refused, in a sentence that says how to store it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from .option_checks import finite_number, shown
from .pictures import Given
from .rasters import Array, Raster

ROUNDING = 1e-4
"""How far outside [0, 1] a float may lie and still be rounding of 0 or 1, as after a resize in float32."""

_LOSSY = ("JPEG",)
_CONVERTED = ("CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa")
"""Modes that become RGB by rounding."""


def mask_of(raster: Raster, given: Given, threshold: float | None) -> npt.NDArray[np.bool_]:
    """Tell object from background, as `reading.read_mask` says.

    Which pixels have a value, and how many, makes no difference.

    Args:
        raster: Of at least one pixel.
        given: What it is in messages.
        threshold: Smallest value that is object, or None.

    Returns:
        `(H, W)` bool, contiguous and writable.

    Raises:
        MaskError: As `reading.read_mask` does.
    """
    threshold = checked_threshold(threshold, given)
    if raster.palette is not None:
        used = raster.used()
        chosen = mask_of(_colours_used(raster, used, given), given, threshold)[0]
        return _spread(raster, used, chosen)
    values, is_opacity = _plane(raster, given)
    if values.dtype.kind == "b":
        mask = values
    elif threshold is not None:
        mask = _at_least(threshold, values, given)
    elif is_opacity:
        # Opacity has a scale of its own, so half of it is a threshold that nobody has to give.
        mask = _is_opaque(values)
    else:
        mask = _two_values(values, given)
    return np.require(mask, requirements=["C", "W"])


def mask_values(raster: Raster, given: Given) -> Array:
    """Return the values `(H, W)`, as stored, on which a threshold of a mask is: of its greys, or of its opacity."""
    if raster.palette is not None:
        used = raster.used()
        return _spread(raster, used, mask_values(_colours_used(raster, used, given), given)[0])
    return _plane(raster, given)[0]


def labels_of(raster: Raster, given: Given) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return the labels `(H, W)` uint8 or uint16: the indices of a palette, or greys.

    Raises:
        MaskError: It has colours, or is partly transparent, or was compressed with losses.
    """
    _check_exact(raster, given, "labels")
    values = raster.values
    if raster.palette is None:
        _check_opaque(raster, given, "labels")
        if values.ndim == 3 and (values == values[..., :1]).all():
            values = values[..., 0]
        if values.ndim != 2 or values.dtype.kind == "f":
            raise given.refuse(
                f"has mode {raster.mode}, expected labels as one number per pixel (8 or 16 bit grey, or a palette); "
                "of colours that show labels, give the file with their numbers, such as Cityscapes' *_labelIds.png, "
                "or for COCO's panoptic maps use segrefiner panoptic"
            )
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype not in (np.uint8, np.uint16):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise given.refuse(f"has labels from {low} to {high}, expected 0 to 65535")
        values = values.astype(np.uint16)
    return np.ascontiguousarray(values)


def ids_of(raster: Raster, given: Given) -> npt.NDArray[np.int32]:
    """Return the segment ids `(H, W)` of a panoptic map, `R + 256 G + 256² B`, with or without a palette.

    Raises:
        MaskError: It has no colours of 8 bits, or is partly transparent, or was compressed with losses.
    """
    _check_exact(raster, given, "ids")
    _check_indices(raster, given)
    _check_opaque(raster, given, "ids")
    colours = raster.colours()
    if colours.ndim != 3 or colours.dtype != np.uint8:
        bits = " of 16 bits" if colours.ndim == 3 else ""
        raise given.refuse(f"has mode {raster.mode}{bits}, expected RGB, whose three bytes are the segment's id")
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return np.asarray(red + 256 * green + 65536 * blue, np.int32)


def is_within_unit(values: Array) -> bool:
    """Tell whether floats lie in [0, 1], but for rounding; not so NaN."""
    return bool(values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING)


def span(values: Array) -> str:
    """Say from where to where values lie."""
    if not np.isfinite(values).all():
        return "NaN or infinity"
    return f"{values.min():.6g} to {values.max():.6g}"


def checked_threshold(threshold: object, given: Given) -> float | None:
    """Return a threshold as a number of Python; raise `given.error` for what is none."""
    if threshold is None:
        return None
    try:
        return finite_number("threshold", threshold)
    except InputError as error:
        raise given.refuse(
            f"was given the threshold {shown(threshold)}, expected a finite number; correct it"
        ) from error


def _colours_used(raster: Raster, used: npt.NDArray[np.intp], given: Given) -> Raster:
    """Return the distinct colours of a picture with a palette as a picture of one row."""
    _check_indices(raster, given)
    assert raster.palette is not None
    colours = raster.palette[used]
    if len(used) > 1 and (colours == colours[0]).all():
        raise given.refuse(
            f"has {len(used)} indices of a palette that shows them all in one colour; save it as grey, 0 and 255"
        )
    grey = (colours[:, :3] == colours[:, :1]).all()
    return replace(
        raster, values=colours[None, :, 0] if grey else colours[None, :, :3], alpha=colours[None, :, 3], palette=None
    )


def _spread(raster: Raster, used: npt.NDArray[np.intp], values: Array) -> Array:
    """Give each pixel of a picture with a palette the value of its index."""
    table = np.zeros(256, values.dtype)
    table[used] = values
    return np.asarray(table[raster.values])


def _plane(raster: Raster, given: Given) -> tuple[Array, bool]:
    """Find the values `(H, W)` that are the mask, and whether they are opacity."""
    values, alpha = raster.values, raster.alpha
    if raster.truncated:
        raise given.refuse(
            "has colours of 16 bits, of which only eight can be read here; save it as PNG and give its path"
        )
    if alpha is not None:
        alpha = alpha.astype(np.uint8) if alpha.dtype.kind == "b" else alpha
        if _is_telling(values, alpha, given):
            return alpha, True
    if values.ndim == 3 and values.shape[2] == 3:
        return _one_plane(values, given), False
    if values.ndim != 2:
        raise given.refuse(f"has shape {values.shape}, expected (H, W); give one mask at a time")
    return values, False


def _is_opaque(alpha: Array) -> npt.NDArray[np.bool_]:
    """Tell where a picture is at least half as opaque as where it is most."""
    return np.asarray((alpha >= alpha.max() / 2) & (alpha > 0))


def _is_telling(colours: Array, alpha: Array, given: Given) -> bool:
    """Tell whether opacity is the mask: some of the picture is transparent, and nothing speaks for its colours.

    Raises:
        MaskError: Opacity and colours are two different masks.
    """
    if not alpha.any():
        return True
    opaque = _is_opaque(alpha)
    shown = colours[alpha > 0].reshape(np.count_nonzero(alpha), -1)
    if opaque.all():
        if alpha.min() < alpha.max() and (shown == shown[0]).all():
            raise given.refuse(
                f"is of one colour whose opacity goes from {alpha.min():g} to {alpha.max():g}, expected some of it to "
                "be transparent; pass threshold= (--threshold)"
            )
        return False
    black = ~shown.any(axis=1)
    others = shown[~black]
    if (black & opaque[alpha > 0]).any() and len(others) and (others == others[0]).all():
        raise given.refuse(
            "shows one colour on black and is transparent around it, which are two masks; save it without "
            "transparency if the colour is the object, or its opacity alone as grey"
        )
    return True


def _one_plane(colours: Array, given: Given) -> Array:
    """Find the one plane of `(H, W, 3)` that is the mask: of greys, or of one colour on black."""
    if (colours == colours[..., :1]).all():
        return np.asarray(colours[..., 0])
    painted: npt.NDArray[np.bool_] = np.any(colours, axis=2)
    if (colours[painted] == colours[painted][0]).all():
        return painted
    raise given.refuse(
        "has several colours, expected grey, one colour on black, or an object cut out; of a label map pick one label "
        "(labels == 1), or refine all of them (segrefiner semantic)"
    )


def _two_values(values: Array, given: Given) -> npt.NDArray[np.bool_]:
    """Tell object from background where there is no doubt."""
    if values.dtype.kind == "f":
        if is_within_unit(values):
            return np.asarray(values >= 0.5)
        if ((values == 0) | (values == 255)).all():
            return np.asarray(values != 0)
        raise given.refuse(
            f"has floats from {span(values)}, expected probabilities in [0, 1]; "
            "apply a sigmoid if these are logits, or pass threshold= (--threshold)"
        )
    low, high = int(values.min()), int(values.max())
    if low >= 0 and (low == high or ((values == 0) | (values == high)).all()):
        return np.asarray(values != 0)
    raise given.refuse(
        f"has {len(np.unique(values))} different values from {low} to {high}, expected two with 0; pass "
        f"threshold= (--threshold), the smallest value of the object, such as {max(1, (low + high + 1) // 2)}"
    )


def _at_least(threshold: float, values: Array, given: Given) -> npt.NDArray[np.bool_]:
    """Apply a threshold, unless it was plainly meant for another scale."""
    high = values.max()
    if values.dtype.kind in "ui" and threshold < 1:
        raise given.refuse(
            f"stores integers up to {high}, where a threshold of {threshold} says nothing; "
            "give one on the values as stored, such as 128 for 8 bit"
        )
    beyond = values.dtype.kind in "ui" and threshold > np.iinfo(values.dtype).max
    if beyond or (threshold > 1 and 0 < high <= 1):
        raise given.refuse(
            f"stores values up to {high}, which the threshold {threshold} is far above; "
            "give one on the values as stored, or none"
        )
    return np.asarray(values >= threshold)


def _check_indices(raster: Raster, given: Given) -> None:
    if raster.palette is not None and raster.values.max() >= len(raster.palette):
        raise given.refuse(
            f"has the index {raster.values.max()} but only {len(raster.palette)} colours in its palette; save it "
            "without a palette"
        )


def _check_exact(raster: Raster, given: Given, what: str) -> None:
    if raster.format in _LOSSY:
        raise given.refuse(f"is a {raster.format}, whose compression changes {what}; save it as PNG")
    if raster.mode in _CONVERTED:
        raise given.refuse(f"has mode {raster.mode}, expected grey, RGB or a palette, which hold {what} exactly")
    if raster.truncated:
        raise given.refuse(
            "has colours of 16 bits, of which only eight can be read here; save it as PNG and give its path"
        )


def _check_opaque(raster: Raster, given: Given, what: str) -> None:
    alpha = raster.alpha if raster.palette is None else raster.palette[raster.used(), 3]
    if alpha is not None and not (alpha.any() and (alpha == alpha.max()).all()):
        raise given.refuse(f"is transparent, which says nothing of its {what}; save it without transparency")
