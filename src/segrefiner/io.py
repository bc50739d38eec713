"""Files and foreign objects to arrays.

Whatever a user has (a path, bytes, a Pillow image, an array or tensor of any common shape and type) becomes
a photo, `(H, W, 3)` uint8 RGB, or a mask, `(H, W)` bool, or one typed error. EXIF turns, palettes, alpha
channels and 16 bit end here; the rest of the package never sees them.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import ImageError, MaskError, SizeMismatchError, reason
from .pictures import Array, Given, decode, describe, mask_values, opened, orientation, photo_values

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded unless the caller says otherwise: what the largest phone cameras make.

TIFF files stop at Pillow's own limit, which is a little lower.
"""

ROUNDING = 1e-4
"""How far outside [0, 1] a float may lie and still be rounding of 0 or 1, as after a resize in float32."""


class SupportsArray(Protocol):
    """An array of any library that NumPy can read, such as a NumPy array or a torch tensor on the CPU."""

    def __array__(self) -> Array:
        """Return the values as a NumPy array."""


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | SupportsArray
MaskSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | SupportsArray


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a photo.

    Alpha is dropped, not composited: a photo with alpha is mostly somebody's earlier cut-out with the photo
    still whole underneath, and compositing would draw the edge of that cut-out into the photo, where the
    refiner would follow it. Embedded colour profiles are ignored. Of an animated file the first frame counts.

    Args:
        source: A path, the bytes of an image file, a Pillow image in any mode, or an array `(H, W)`,
            `(H, W, 1)`, `(H, W, 3)` RGB or `(H, W, 4)` RGBA. Files and Pillow images are turned as their EXIF
            tag says. Scales: bool is black and white, uint8 is 0-255, uint16 is 0-65535, float is [0, 1];
            other integers (and Pillow's mode I) are 0-255 if nothing is larger, else 0-65535.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.

    Returns:
        `(H, W, 3)` uint8, RGB, 0-255, contiguous and writable; the given array itself if it is that.

    Raises:
        ImageError: The photo cannot be read, is too large, or has a shape, type or values that make no photo.
    """
    given = Given(describe("image", source), ImageError)
    pixels = _pixels(source, given, max_pixels, photo_values)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise given.refuse(
            f"has shape {pixels.shape}, expected (H, W), (H, W, 3) or (H, W, 4); give one photo, channels last"
        )
    if pixels.ndim == 2:
        rgb = np.repeat(_to_uint8(pixels, given)[..., None], 3, axis=2)
    else:
        rgb = _to_uint8(pixels[..., :3], given)
    return np.require(rgb, requirements=["C", "W"])


def read_mask(
    source: MaskSource, *, threshold: float | None = None, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.bool_]:
    """Read a mask.

    Without a threshold a mask must be unambiguous: bool; or integers with two values, one of which is 0 and
    means background, or with one (all 0 is empty, anything else full); or probabilities in [0, 1], where 0.5
    and more is object; or floats that are all 0 or 255.

    The threshold is on the values as stored: 0-255 in an 8-bit file, 0-65535 in a 16-bit one, [0, 1] for
    probabilities, any scale for other floats. `value >= threshold` is object. Where there is no scale (bool,
    1-bit files, one colour on black) it changes nothing.

    A palette of colours makes a label map, whose indices are the values; a palette of greys is only a way to
    store a grey picture. Pictures with channels: where the colour is constant and alpha is not, alpha is the
    mask; greys (R = G = B) give their grey; one colour on black is object on background.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array `(H, W)`, `(H, W, 1)`,
            `(1, H, W)` or with 2 to 4 channels last (where both fit, channels last wins). Masks are turned
            only by an EXIF tag of their own.
        threshold: Smallest value that is object, or None. At least 1 for integers.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.

    Returns:
        `(H, W)` bool, True on the object, contiguous and writable; the given array itself if it is that.

    Raises:
        MaskError: The mask cannot be read, is too large, has a shape or type that makes no mask, or needs a
            threshold (another threshold) to tell object from background.
    """
    given = Given(describe("mask", source), MaskError)
    return foreground(_pixels(source, given, max_pixels, mask_values), given, threshold)


def foreground(values: Array, given: Given, threshold: float | None) -> npt.NDArray[np.bool_]:
    """Tell object from background in the pixels of a mask, as `read_mask` says.

    Which pixels have a value, and how many, makes no difference.

    Args:
        values: `(H, W)`, `(H, W, C)` or `(1, H, W)` of any type, at least one pixel.
        given: What they are of, for messages.
        threshold: Smallest value that is object, or None.

    Returns:
        `(H, W)` bool, contiguous and writable.

    Raises:
        MaskError: As `read_mask` does.
    """
    if threshold is not None and not (isinstance(threshold, numbers.Real) and math.isfinite(threshold)):
        raise given.refuse(f"was given the threshold {threshold!r}, expected a finite number; correct it")
    if values.ndim == 3 and values.shape[2] in (1, 2, 3, 4):
        values = _merge_channels(values, given)
    elif values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2:
        raise given.refuse(f"has shape {values.shape}, expected (H, W); give one mask at a time")
    if values.dtype.kind == "b":
        mask = values
    elif threshold is None:
        mask = _two_values(values, given)
    else:
        mask = _at_least(threshold, values, given)
    return np.require(mask, requirements=["C", "W"])


def exif_turned(source: ImageSource) -> bool:
    """Tell whether `read_image` turns this photo by a quarter, so that width and height change places.

    Args:
        source: As for `read_image`. Arrays carry no EXIF.

    Returns:
        True if the EXIF orientation is one of the four quarter turns.

    Raises:
        ImageError: The file cannot be opened.
    """
    if not isinstance(source, str | os.PathLike | bytes | Image.Image):
        return False
    with opened(source, Given(describe("image", source), ImageError)) as picture:
        return orientation(picture) >= 5


def check_same_size(
    image: Array,
    mask: Array,
    *,
    image_source: ImageSource | None = None,
    mask_source: MaskSource | None = None,
) -> None:
    """Check that photo and mask belong together.

    Args:
        image: `(H, W, 3)`, from `read_image`.
        mask: `(H, W)`, from `read_mask`.
        image_source: Where the photo came from, for the message, which can then say if an EXIF turn is the
            reason.
        mask_source: Where the mask came from, for the message.

    Raises:
        SizeMismatchError: The sizes differ.
    """
    if image.shape[:2] == mask.shape[:2]:
        return
    mask_name = "mask" if mask_source is None else describe("mask", mask_source)
    image_name = "image" if image_source is None else describe("image", image_source)
    turned = False
    if image_source is not None and mask.shape[:2] == image.shape[1::-1]:
        # This is only for the advice; a file that has vanished meanwhile must not hide the real error.
        with suppress(ImageError):
            turned = exif_turned(image_source)
    if turned:
        advice = (
            "the photo's EXIF tag turns it by a quarter and the mask fits the photo as it was before; "
            "turn the mask the same way, or make it from the turned photo"
        )
    else:
        advice = "give a mask that was made for this photo, at its size"
    raise SizeMismatchError(
        f"{mask_name} is {_size(mask)} but {image_name} is {_size(image)} (width x height): {advice}"
    )


def _size(array: Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _span(values: Array) -> str:
    if not np.isfinite(values).all():
        return "NaN or infinity"
    return f"{values.min():.6g} to {values.max():.6g}"


def _pixels(source: ImageSource, given: Given, max_pixels: int, to_array: Callable[[Image.Image], Array]) -> Array:
    """Return what was given as an array of any shape that has pixels, all of them finite numbers."""
    if isinstance(source, str | os.PathLike | bytes | Image.Image):
        values = decode(source, given, max_pixels, to_array)
    elif hasattr(source, "__array__"):
        try:
            values = np.asarray(source)
        except Exception as error:  # Whatever the foreign library raises, such as torch for tensors on a GPU.
            raise given.refuse(
                f"cannot become a NumPy array ({reason(error)}); try tensor.detach().cpu().numpy()"
            ) from error
    else:
        raise given.refuse("cannot be read; give a path, the bytes of a file, a Pillow image or an array")
    if values.dtype.kind not in "buif":
        raise given.refuse(f"has the type {values.dtype}, expected bool, integers or floats; convert it")
    if not values.size:
        raise given.refuse(f"has no pixels (shape {values.shape}), expected at least one; check what made it")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise given.refuse("has NaN or infinite values, expected finite ones; check what made it")
    return values


def _within_unit(values: Array) -> bool:
    return bool(values.min() >= -ROUNDING and values.max() <= 1 + ROUNDING)  # False for NaN


def _to_uint8(values: Array, given: Given) -> npt.NDArray[np.uint8]:
    """Bring values of any scale that `read_image` documents to 0-255."""
    if values.dtype.kind == "f" and not _within_unit(values):
        raise given.refuse(f"has floats from {_span(values)}, expected [0, 1]; divide by their full scale")
    if values.dtype.kind in "ui" and values.dtype != np.uint8:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise given.refuse(f"has values from {low} to {high}, expected 0-255 or 0-65535; rescale them")
        values = values.astype(np.uint16 if values.dtype == np.uint16 or high > 255 else np.uint8)
    return _scale_to_uint8(values)


def _scale_to_uint8(values: Array) -> npt.NDArray[np.uint8]:
    """Scale bool, uint8, uint16 or floats in [0, 1], each from its full scale, with rounding."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        wide = values.astype(np.result_type(values, np.float32))  # float16 has too few digits for the product
        return np.asarray(np.rint(np.clip(wide, 0, 1) * 255), np.uint8)
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return values


def _merge_channels(pixels: Array, given: Given) -> Array:
    """Find the one plane of `(H, W, C)` that is the mask; `read_mask` says how."""
    has_alpha = pixels.shape[2] in (2, 4)
    colour = pixels[..., :-1] if has_alpha else pixels
    alpha = pixels[..., -1]
    if has_alpha and (colour == colour[0, 0]).all() and (alpha.min() < alpha.max() or not alpha.any()):
        return alpha
    if (colour == colour[..., :1]).all():
        return colour[..., 0]
    painted: npt.NDArray[np.bool_] = np.any(colour, axis=2)
    if (colour[painted] == colour[painted][0]).all():
        return painted
    raise given.refuse("has several colours, expected grey or one colour on black; pick one object first")


def _two_values(values: Array, given: Given) -> npt.NDArray[np.bool_]:
    """Tell object from background where there is no doubt."""
    if values.dtype.kind == "f":
        if _within_unit(values):
            return np.asarray(values >= 0.5)
        if ((values == 0) | (values == 255)).all():
            return np.asarray(values != 0)
        raise given.refuse(
            f"has floats from {_span(values)}, expected probabilities in [0, 1]; "
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
    if threshold > 1 and 0 < high <= 1:
        raise given.refuse(
            f"stores values up to {high}, which the threshold {threshold} is far above; "
            "give one on the values as stored, or none"
        )
    return np.asarray(values >= threshold)
