"""Files in folders, and arrays and JSON to files that are whole or not there at all."""

import io
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import InputError, OutputError, reason
from .codecs.arrays import as_numpy
from .listing import SUFFIXES, Listing, list_pictures

Array: TypeAlias = npt.NDArray[Any]

Json: TypeAlias = dict[str, Any]


def write_png(
    path: str | os.PathLike[str],
    array: Array,
    *,
    bits: int = 8,
    palette: npt.NDArray[np.uint8] | None = None,
    profile: bytes | None = None,
) -> None:
    """Write a mask, probabilities, labels or a photo as a PNG, whole or not at all.

    Args:
        path: Where to, ending in `.png`. A file that is there is replaced.
        array: `(H, W)` bool, written as 0 and 255; `(H, W)` float in [0, 1], written as 0-255, rounded, so
            that 128 and more means 0.5 and more; `(H, W)` uint8 or uint16 grey; or `(H, W, 3)` RGB or `(H, W, 4)`
            RGBA, uint8.
        bits: 8 or 16 per pixel, of floats: 16 writes 0-65535, where 32768 and more means 0.5 and more. Of bool also 1.
        palette: `(N, 3)` uint8, RGB, or `(N, 4)` RGBA, of the values of `(H, W)` uint8.
        profile: ICC profile of the colours of a photo.

    Raises:
        OutputError: The file cannot be written, or the array is none of these.
    """
    check_output(path)
    picture, level = _picture(array, bits, palette, _named(path))
    atomic_write(path, lambda stream: picture.save(stream, format="PNG", compress_level=level, icc_profile=profile))


PICTURE_FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""What pictures to look at are written as, by the name's ending."""

_ENCODING: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 6},
    "WEBP": {"quality": 92, "method": 4},
    "JPEG": {"quality": 94, "subsampling": 0, "optimize": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_LARGEST_SIDE = {"WEBP": 16_383, "JPEG": 65_535}


def check_picture(path: str | os.PathLike[str], what: str, *, alpha: bool, size: tuple[int, int] | None = None) -> None:
    """Check that a picture to look at can be written here, before minutes of work are spent on it.

    Args:
        path: Where to, ending as one of `PICTURE_FORMATS`.
        what: What it is, in messages, such as "cut-out".
        alpha: Whether it has transparency.
        size: Its height and width, where they are known.

    Raises:
        OutputError: The ending names no such format, or one without transparency or for smaller pictures only; and
            what `check_output` raises.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURE_FORMATS:
        raise OutputError(f"{_named(path)} must end in {', '.join(PICTURE_FORMATS)}; change the name")
    format = PICTURE_FORMATS[suffix]
    if alpha and format == "JPEG":
        raise OutputError(f"{_named(path)}: a {what} is transparent and JPEG is not; end it in .png, .webp or .tiff")
    check_output(path, suffix=None)
    if size is not None and max(size) > _LARGEST_SIDE.get(format, max(size)):
        raise OutputError(
            f"{_named(path)}: a {what} of {size[1]}x{size[0]} pixels is too large for {format}, whose sides have at "
            f"most {_LARGEST_SIDE[format]}; end it in .png or .tiff"
        )


def write_picture(path: str | os.PathLike[str], array: Array, what: str, *, profile: bytes | None = None) -> None:
    """Write a picture to look at, whole or not at all, in the format that its name's ending says.

    PNG, TIFF and the transparency of WebP are exact; JPEG and the colours of WebP lose a little.

    Args:
        path: Where to, ending as one of `PICTURE_FORMATS`. A file that is there is replaced.
        array: `(H, W, 3)` RGB or `(H, W, 4)` RGBA, uint8.
        what: What it is, in messages.
        profile: ICC profile of its colours.

    Raises:
        OutputError: As `check_picture`, and where the file cannot be written.
    """
    check_picture(path, what, alpha=array.shape[2] == 4, size=array.shape[:2])
    picture = Image.fromarray(array)
    format = PICTURE_FORMATS[Path(path).suffix.lower()]
    options = _ENCODING[format] | ({} if profile is None else {"icc_profile": profile})
    # In memory first: some encoders go back in their file, and all raise errors of their own.
    stream = io.BytesIO()
    try:
        picture.save(stream, format=format, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise OutputError(f"{_named(path)} cannot be made ({reason(error)}); end it in .png") from error
    atomic_write(path, lambda file: file.write(stream.getbuffer()))


def png_bytes(
    array: Array,
    *,
    bits: int = 8,
    palette: npt.NDArray[np.uint8] | None = None,
    profile: bytes | None = None,
) -> bytes:
    """The content of the file that `write_png` would write, with the same arguments and errors."""
    picture, level = _picture(array, bits, palette, "PNG in memory")
    stream = io.BytesIO()
    picture.save(stream, format="PNG", compress_level=level, icc_profile=profile)
    return stream.getvalue()


def _picture(array: Array, bits: int, palette: npt.NDArray[np.uint8] | None, name: str) -> tuple[Image.Image, int]:
    """What to save, and how hard to compress it."""
    array = as_numpy(array)
    grey = array.ndim == 2 and (array.dtype.kind in "bf" or array.dtype in (np.uint8, np.uint16))
    colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not array.size or not (grey or colour):
        raise OutputError(
            f"{name}: a PNG cannot be made of {array.dtype} {array.shape}; "
            "give (H, W) bool, uint8, uint16 or float in [0, 1], or (H, W, 3 or 4) uint8"
        )
    if array.dtype.kind == "f":
        # Written so that NaN fails too.
        if not (array.min() >= 0 and array.max() <= 1):
            span = f"{array.min():.6g} to {array.max():.6g}"
            raise OutputError(f"{name}: floats must lie in [0, 1], got {span}; apply a sigmoid to logits")
        # float16 has too few digits for the product.
        wide = array.astype(np.result_type(array, np.float32 if bits == 8 else np.float64))
        array = np.rint(wide * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    elif array.dtype.kind == "b":
        array = array * np.uint8(255)
    picture = Image.fromarray(array)
    if bits == 1:
        picture = picture.convert("1", dither=Image.Dither.NONE)
    if palette is not None:
        picture.putpalette(palette.tobytes(), "RGB" if palette.shape[1] == 3 else "RGBA")
    # Masks are large runs of one value, which the fastest level packs nearly as well as the others.
    return picture, 1 if grey else 6


def check_output(path: str | os.PathLike[str], *, suffix: str | None = ".png") -> None:
    """Check that a file can be written here, before minutes of work are spent on its content.

    Args:
        path: Where to.
        suffix: How the name must end, in either case; None allows any name.

    Raises:
        OutputError: The suffix is wrong, there is no such folder, the path is a folder or a device, or
            writing is not permitted.
    """
    name = _named(path)
    if suffix is not None and Path(path).suffix.lower() != suffix:
        raise OutputError(f"{name} must end in {suffix}; change the name")
    try:
        target = Path(os.path.realpath(path))
        folder = target.parent
        if target.is_dir():
            raise OutputError(f"{name} is a folder, expected a file name; add one to the path")
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise OutputError(f"{name}: the folder {str(folder)!r} {what}; create it or choose another")
        if target.exists() and not target.is_file():
            # Replacing /dev/null by a picture would break the machine.
            raise OutputError(f"{name} is a device or pipe, expected a regular file; choose another path")
        # The file's own bits do not stop a replacement; who write-protects a file wants it kept all the same.
        for place, rights in ((folder, os.W_OK | os.X_OK), (target, os.W_OK)):
            if place.exists() and not os.access(place, rights):
                raise OutputError(f"{name}: {str(place)!r} is write-protected; choose another place")
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        raise OutputError(f"{name} cannot be written ({reason(error)}); choose another path") from error


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that nobody ever sees a part of it.

    The content goes to a temporary file in the same folder, which then takes the place of `path`. If
    anything fails, the temporary file is removed and what was at `path` stays. A symbolic link stays one and
    its target is replaced. The permissions are those of any new file.

    Args:
        path: Where to, with any suffix.
        write: Called once with the open binary stream.

    Raises:
        OutputError: The file cannot be written. Errors of `write` other than OSError pass through.
    """
    check_output(path, suffix=None)
    target = Path(os.path.realpath(path))
    # Not the `tempfile` module: its files are private (0600) and would stay so after the replacement.
    temporary = target.with_name(f".segrefiner-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{_named(path)} cannot be written ({reason(error)}); choose another path") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _named(path: str | os.PathLike[str]) -> str:
    # repr keeps a name with line breaks on one line.
    return f"output {str(path)!r}"


def pictures_below(folder: Path, *, without: Path | Collection[Path] | None = None) -> Listing:
    """Picture files below a folder, as `list_pictures` does. Raises `InputError` where there is none."""
    listing = list_pictures(folder, without=without)
    if not listing.pictures:
        reasons = Counter(entry.reason for entry in listing.left_out).most_common(3)
        left_out = "; ".join(f"{count}: {why}" for why, count in reasons)
        there = f" (left out: {left_out})" if left_out else ""
        raise InputError(f"{folder} holds no picture{there}: expected files that end in {', '.join(SUFFIXES)}")
    return listing
