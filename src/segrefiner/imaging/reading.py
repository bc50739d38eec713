"""Files and foreign objects to arrays.

Whatever a user has (a path, bytes, a Pillow image, an array or tensor of any common shape and type) becomes
a photo, `(H, W, 3)` uint8 RGB, or a mask, `(H, W)` bool, or one typed error. EXIF turns, palettes, alpha
channels and 16 bit end here; the rest of the package never sees them. `codecs.interpretation` says what they
stand for.
"""

from __future__ import annotations

import os
import warnings
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError, InputWarning, MaskError, SizeMismatchError, reason
from .codecs.arrays import as_numpy, is_array
from .codecs.bit_depth import bits_note, levels_note, to_uint8, used_bits
from .codecs.interpretation import mask_of, mask_values
from .codecs.pictures import Given, decode, describe, opened, orientation
from .codecs.rasters import Array, Raster
from .colours import profile_of, to_srgb

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


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that has been read, and what there is to say of how it was read.

    Attributes:
        pixels: `(H, W, 3)` uint8, RGB, 0-255, upright, contiguous and writable.
        orientation: The EXIF orientation that was undone, 1 to 8.
        name: What messages call it.
        notes: What was guessed, one sentence each.
        profile: ICC profile of the colours of `pixels`; `None` for sRGB.
    """

    pixels: npt.NDArray[np.uint8]
    orientation: int = 1
    name: str = "image"
    notes: tuple[str, ...] = ()
    profile: bytes | None = None

    def srgb(self) -> npt.NDArray[np.uint8]:
        """Return the pixels in the colours that the network knows: the same array where they are sRGB already."""
        return to_srgb(self.pixels, self.profile)

    def parts(self) -> tuple[Any, ...]:
        """Return what `from_parts` takes: an array and JSON types."""
        profile = None if self.profile is None else b64encode(self.profile).decode()
        return self.pixels, self.orientation, self.name, self.notes, profile

    @classmethod
    def from_parts(cls, parts: Sequence[Any]) -> Photo:
        """Put together what has come from another process, whose notes may be a list."""
        pixels, orientation, name, notes, profile = parts
        return cls(pixels, orientation, name, tuple(notes), None if profile is None else b64decode(profile))

    @cached_property
    def small(self) -> npt.NDArray[np.uint8]:
        """The photo in the size in which masks are compared with it."""
        from .orientation import reduced

        return reduced(self.pixels)


def read_photo(source: ImageSource | Photo, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Photo:
    """Read a photo, with what there is to say of how it was read.

    Alpha is dropped, not composited: a photo with alpha is mostly somebody's earlier cut-out with the photo
    still whole underneath, and compositing would draw the edge of that cut-out into the photo, where the
    refiner would follow it. Pixels keep the values that are stored, beside the colour profile that says what they look
    like; one that cannot be used is left out, and a note says so. Of an animated file the first frame counts.

    Sixteen bits that hold a photo of 8, 10, 12 or 14 bits as it came from a camera are taken for that many, and a note
    says so.

    Args:
        source: A path, the bytes of an image file, a Pillow image in any mode, or an array or tensor `(H, W)`,
            `(H, W, C)` or `(C, H, W)`, alone in its batch `(1, …)` or in none, with C of 1, 3 (RGB) or 4 (RGBA);
            where both fit, channels last wins. Files and Pillow images are turned as their EXIF tag says. Scales:
            bool is black and white, uint8 is 0-255, uint16 is 0-65535, float is [0, 1]; other integers (and Pillow's
            mode I) are 0-255 if nothing is larger, else 0-65535. A photo that has been read comes back.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.
        name: What messages call it, if not by the source.

    Returns:
        The photo; its pixels are the given array itself if it is `(H, W, 3)` uint8, contiguous and writable.

    Raises:
        ImageError: The photo cannot be read, is too large, or has a shape, type or values that make no photo.

    >>> from segrefiner.imaging.reading import read_photo
    >>> photo = read_photo("photo.jpg")
    >>> photo.pixels.shape, photo.pixels.dtype, photo.notes
    ((96, 128, 3), dtype('uint8'), ())
    """
    if isinstance(source, Photo):
        return source
    photo, profile = _read_values(source, max_pixels, name)
    usable, unused = profile_of(profile)
    notes = (*photo.notes, f"{photo.name} {unused}") if unused else photo.notes
    return replace(photo, profile=usable, notes=notes)


def _read_values(source: ImageSource, max_pixels: int, name: str | None) -> tuple[Photo, bytes | None]:
    """A photo's values as they are stored, and what its file holds as a colour profile."""
    given = Given(describe("image", source) if name is None else name, ImageError)
    raster = _raster(source, given, max_pixels, channels=(1, 3, 4))
    pixels = raster.colours()
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] == 3):
        raise given.refuse(
            f"has shape {pixels.shape}, expected (H, W), (H, W, 3) or (H, W, 4); give one photo, channels last"
        )
    bits = _bits(raster, pixels, given)
    rgb = to_uint8(pixels, given, bits or 16)
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[..., None], 3, axis=2)
    note = bits_note(bits) if bits and bits != raster.bits else ""
    if pixels.dtype.kind == "f":
        note = levels_note(pixels)
    notes = (f"{given.name} {note}",) if note else ()
    return Photo(np.require(rgb, requirements=["C", "W"]), raster.orientation, given.name, notes), raster.profile


def read_image(source: ImageSource | Photo, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a photo's pixels as they are stored, whatever its colour profile.

    Args:
        source: As for `read_photo`.
        max_pixels: As for `read_photo`.

    Returns:
        `(H, W, 3)` uint8, RGB, 0-255, contiguous and writable; the given array itself if it is that.

    Raises:
        ImageError: As `read_photo` does.

    Warns:
        InputWarning: Something had to be guessed.

    >>> from segrefiner.imaging.reading import read_image
    >>> pixels = read_image("photo.jpg")
    >>> pixels.shape, pixels.dtype
    ((96, 128, 3), dtype('uint8'))
    """
    if isinstance(source, Photo):
        return source.pixels
    photo, _ = _read_values(source, max_pixels, None)
    warn_of(photo.notes)
    return photo.pixels


def warn_of(notes: tuple[str, ...]) -> None:
    """Say by `InputWarning` what had to be guessed, where nothing else will."""
    for note in notes:
        warnings.warn(note, InputWarning, stacklevel=3)


def _bits(raster: Raster, pixels: Array, given: Given) -> int | None:
    """Of how many bits the full scale of a photo of sixteen is, if it is fewer."""
    if raster.truncated and pixels.max() < 64:
        raise given.refuse(
            "has colours of 16 bits and none above a quarter of the scale, of which only eight bits can be read here; "
            "save it with 8 bits"
        )
    if raster.bits or pixels.dtype.kind not in "ui" or pixels.dtype == np.uint8:
        return raster.bits
    is_wide = pixels.dtype == np.uint16 or pixels.max() > 255
    # Such a file says what its largest value is, and Pillow scales by that.
    if not is_wide or raster.format == "PPM":
        return None
    bits = used_bits(pixels)
    return bits if bits < 16 else None


def read_mask(
    source: MaskSource, *, threshold: float | None = None, max_pixels: int = MAX_PIXELS, name: str | None = None
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
    `codecs.interpretation` has all of the rule.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array or tensor `(H, W)`, `(H, W, 1)`,
            `(1, H, W)` or with 2 to 4 channels last (where both fit, channels last wins), alone in its batch `(1, …)`
            or in none. Masks are turned only by an EXIF tag of their own.
        threshold: Smallest value that is object, or None. At least 1 for integers.
        max_pixels: Files and Pillow images with more pixels are refused before they are decoded.
        name: What messages call it, if not by the source.

    Returns:
        `(H, W)` bool, True on the object, contiguous and writable; the given array itself if it is that.

    Raises:
        MaskError: The mask cannot be read, is too large, has a shape or type that makes no mask, or needs a
            threshold (another threshold) to tell object from background.

    >>> from segrefiner.imaging.reading import read_mask
    >>> scores = np.array([[0.2, 0.7], [0.9, 0.4]])
    >>> read_mask(scores, threshold=0.6).tolist()
    [[False, True], [True, False]]
    """
    given = Given(describe("mask", source) if name is None else name, MaskError)
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


def check_fits(
    photo: Photo,
    mask: Array,
    *,
    mask_source: MaskSource | None = None,
) -> tuple[str, ...]:
    """Check that photo and mask belong together: that they have one size and, of a photo that was turned, one side up.

    Args:
        photo: From `read_photo`.
        mask: `(H, W)` bool, from `read_mask`.
        mask_source: Where the mask came from, for messages.

    Returns:
        What cannot be told and has to be said, one sentence each: the photo's own notes, and whether its mask may have
        been made before an EXIF tag turned it.

    Raises:
        SizeMismatchError: The sizes differ.
        MaskError: The mask plainly fits the photo as it is stored, before its EXIF tag turns it.
    """
    mask_name = "mask" if mask_source is None else describe("mask", mask_source)
    if photo.pixels.shape[:2] != mask.shape[:2]:
        turned = photo.orientation >= 5 and mask.shape[:2] == photo.pixels.shape[1::-1]
        raise _mismatch(photo.pixels, photo.name, mask, mask_name, turned)
    if photo.orientation == 1:
        return photo.notes
    from .orientation import is_certain, preference

    ratio = preference(photo.small, mask, photo.orientation)
    tag = f"EXIF tag (orientation {photo.orientation})"
    if not is_certain(ratio):
        note = (
            f"{photo.name} is turned by its {tag}, and it cannot be told whether the mask was made before or after: "
            "it was taken as made after"
        )
        return (*photo.notes, note)
    if ratio < 1:
        raise MaskError(
            f"{mask_name} fits {photo.name} as it is stored, before its {tag} turns it; turn the mask the same way, or "
            "remove the tag if the photo is upright without it"
        )
    return photo.notes


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
    raise _mismatch(image, image_name, mask, mask_name, turned)


def _mismatch(image: Array, image_name: str, mask: Array, mask_name: str, turned: bool) -> SizeMismatchError:
    if turned:
        advice = (
            "the photo's EXIF tag turns it by a quarter and the mask fits the photo as it was before; "
            "turn the mask the same way, or make it from the turned photo"
        )
    else:
        advice = "give a mask that was made for this photo, at its size"
    return SizeMismatchError(
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
