"""Files and foreign objects to arrays.

Whatever a user has (a path, bytes, a Pillow image, an array or tensor of any common shape and type) becomes
a photo, `(H, W, 3)` uint8 RGB, or a mask, `(H, W)` bool, or one typed error. EXIF turns, palettes, alpha
channels and 16 bit end here; the rest of the package never sees them. `meaning` says what they stand for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from .arrays import as_numpy, is_array
from .errors import ImageError, MaskError, SizeMismatchError, reason
from .meaning import is_within_unit, mask_of, mask_values, span
from .pictures import Given, decode, describe, opened, orientation
from .rasters import Array, Raster

MAX_PIXELS = 200_000_000
"""Largest picture that is decoded unless the caller says otherwise: what the largest phone cameras make.

TIFF files stop at Pillow's own limit, which is a little lower.
"""


class SupportsArray(Protocol):
    """An array of any library that NumPy can read, such as a NumPy array or a torch tensor; see `arrays.as_numpy`."""

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
        source: A path, the bytes of an image file, a Pillow image in any mode, or an array or tensor `(H, W)`,
            `(H, W, C)` or `(C, H, W)`, alone in its batch `(1, …)` or in none, with C of 1, 3 (RGB) or 4 (RGBA);
            where both fit, channels last wins. Files and Pillow images are turned as their EXIF tag says. Scales:
            bool is black and white, uint8 is 0-255, uint16 is 0-65535, float is [0, 1]; other integers (and Pillow's
            mode I) are 0-255 if nothing is larger, else 0-65535.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.

    Returns:
        `(H, W, 3)` uint8, RGB, 0-255, contiguous and writable; the given array itself if it is that.

    Raises:
        ImageError: The photo cannot be read, is too large, or has a shape, type or values that make no photo.
    """
    given = Given(describe("image", source), ImageError)
    raster = _raster(source, given, max_pixels, channels=(1, 3, 4))
    pixels = raster.colours()
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] == 3):
        raise given.refuse(
            f"has shape {pixels.shape}, expected (H, W), (H, W, 3) or (H, W, 4); give one photo, channels last"
        )
    rgb = _to_uint8(pixels, given)
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
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

    What is transparent is no object: where some of a picture is transparent, at least half as opaque as the most
    opaque pixel is object, whatever the colours, and a threshold is on the opacity. Otherwise greys (R = G = B) give
    their grey, and one colour on black is object on background. A palette stores colours, and its order says nothing.
    `meaning` has all of the rule.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array or tensor `(H, W)`, `(H, W, 1)`,
            `(1, H, W)` or with 2 to 4 channels last (where both fit, channels last wins), alone in its batch `(1, …)`
            or in none. Masks are turned only by an EXIF tag of their own.
        threshold: Smallest value that is object, or None. At least 1 for integers.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.

    Returns:
        `(H, W)` bool, True on the object, contiguous and writable; the given array itself if it is that.

    Raises:
        MaskError: The mask cannot be read, is too large, has a shape or type that makes no mask, or needs a
            threshold (another threshold) to tell object from background.
    """
    given = Given(describe("mask", source), MaskError)
    return mask_of(_raster(source, given, max_pixels, channels=(1, 2, 3, 4)), given, threshold)


def read_mask_values(source: MaskSource, *, max_pixels: int = MAX_PIXELS) -> Array:
    """Read the values of a mask on which a threshold is: its greys, or the opacity of what is partly transparent.

    Args:
        source: As for `read_mask`.
        max_pixels: As for `read_mask`.

    Returns:
        `(H, W)` bool, integers or floats, as stored.

    Raises:
        MaskError: The mask cannot be read, is too large, or has a shape, type or colours that make no mask.
    """
    given = Given(describe("mask", source), MaskError)
    return mask_values(_raster(source, given, max_pixels, channels=(1, 2, 3, 4)), given)


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


def _raster(source: object, given: Given, max_pixels: int, *, channels: tuple[int, ...]) -> Raster:
    """Return what was given as a picture that has pixels, all of them finite numbers."""
    if isinstance(source, bytearray) or (isinstance(source, memoryview) and source.ndim == 1):
        source = bytes(source)
    if isinstance(source, str | os.PathLike | bytes | Image.Image):
        raster = decode(source, given, max_pixels)
    elif is_array(source) and not _is_list_of_names(source):
        try:
            values = as_numpy(source)
        except Exception as error:  # Whatever the foreign library raises, such as torch for tensors without data.
            raise given.refuse(f"cannot become a NumPy array ({reason(error)}); convert it to one") from error
        raster = Raster.of_array(_channels_last(values, channels))
    else:
        raise given.refuse("cannot be read; give a path, the bytes of a file, a Pillow image or an array")
    values = raster.values
    if values.dtype.kind not in "buif":
        raise given.refuse(f"has the type {values.dtype}, expected bool, integers or floats; convert it")
    if not values.size:
        raise given.refuse(f"has no pixels (shape {values.shape}), expected at least one; check what made it")
    for plane in (values, raster.alpha):
        if plane is not None and plane.dtype.kind == "f" and not np.isfinite(plane).all():
            raise given.refuse("has NaN or infinite values, expected finite ones; check what made it")
    return raster


def _is_list_of_names(source: object) -> bool:
    return isinstance(source, list | tuple) and any(isinstance(one, str | os.PathLike | bytes) for one in source)


def _channels_last(values: Array, channels: tuple[int, ...]) -> Array:
    """Take an array out of a batch of one, and put its channels last where they can only be first."""
    while values.ndim > 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3 or values.shape[2] in channels:
        return values
    if values.shape[0] == 1:
        return values[0]
    # Two to four planes of a mask may as well be masks of several objects.
    return np.moveaxis(values, 0, -1) if values.shape[0] in (3, 4) and 2 not in channels else values


def _to_uint8(values: Array, given: Given) -> npt.NDArray[np.uint8]:
    """Bring values of any scale that `read_image` documents to 0-255."""
    if values.dtype.kind == "f" and not is_within_unit(values):
        raise given.refuse(f"has floats from {span(values)}, expected [0, 1]; divide by their full scale")
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
