"""Picture files and Pillow images to arrays as they are stored: opened safely, decoded, turned upright.

Files are recognised by content, never by name. Only the formats in `FORMATS` are opened, so a hostile file
cannot reach Pillow's rarer decoders, one of which starts another program.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import InputError, reason

Array: TypeAlias = npt.NDArray[Any]

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
"""Formats that are opened, by Pillow's names. AVIF needs a Pillow that was built with it."""


Encoded: TypeAlias = str | os.PathLike[str] | bytes | Image.Image


@dataclass(frozen=True)
class Given:
    """What the user gave: its name in messages, and the error that refuses it."""

    name: str
    error: type[InputError]

    def refuse(self, problem: str) -> InputError:
        """Make the error that says what is wrong with it."""
        return self.error(f"{self.name} {problem}")


def describe(kind: str, source: object) -> str:
    """Name what was given, in messages."""
    # repr keeps names with line breaks on one line and names that are not Unicode printable.
    if isinstance(source, str | os.PathLike):
        return f"{kind} {str(source)!r}"
    if isinstance(source, bytes):
        return f"{kind} ({len(source)} bytes in memory)"
    if isinstance(source, Image.Image):
        return f"{kind} (Pillow {source.mode}, {source.width}x{source.height})"
    if isinstance(source, np.ndarray):
        return f"{kind} (array {source.shape} {source.dtype})"
    return f"{kind} ({type(source).__name__})"


@contextmanager
def opened(source: Encoded, given: Given) -> Iterator[Image.Image]:
    """Yield a Pillow image of which only the header has been read; inside, every failure becomes typed."""
    with warnings.catch_warnings():
        # Odd files make Pillow warn about metadata and sizes, which is nothing a user can act on. The filters
        # belong to the whole process, so only Pillow is named: other threads keep their warnings, and threads
        # that leave in the wrong order leave at worst this one filter behind.
        warnings.filterwarnings("ignore", module="PIL")
        try:
            if isinstance(source, Image.Image):
                yield source
            else:
                with io.BytesIO(source) if isinstance(source, bytes) else _open_file(source, given) as stream:
                    yield _identify(stream, given)
        except InputError:
            raise
        except Exception as error:  # Decoders that are fed broken or hostile bytes raise anything at all.
            raise given.refuse(
                f"is damaged or of an unsupported kind ({reason(error)}); "
                "open it in an image editor and save it again as PNG"
            ) from error


def _open_file(path: str | os.PathLike[str], given: Given) -> BinaryIO:
    if os.path.isdir(path):
        raise given.refuse("is a folder, expected an image file; add the file's name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise given.refuse("is a device or pipe, expected an image file; save it to a file first")
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise given.refuse("does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise given.refuse(f"cannot be opened ({reason(error)}); check the path and its permissions") from error


def _identify(stream: BinaryIO, given: Given) -> Image.Image:
    """Parse the header with the one decoder that knows the first bytes.

    `Image.open(stream, formats=FORMATS)` would do the same, but it also applies Pillow's own pixel limit,
    which is below the largest phone cameras and can only be moved for the whole process. `max_pixels` does
    that work here.
    """
    prefix = stream.read(1024)
    if not prefix:
        raise given.refuse("is empty (0 bytes), expected an image file; copy or download it again")
    Image.init()
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[name]
        # Pillow's contract: true, false, or a sentence about why this build cannot.
        accepted = accepts is None or accepts(prefix[:16])
        if isinstance(accepted, str):
            raise given.refuse(f"cannot be opened ({accepted}); save it as PNG or JPEG")
        if accepted:
            stream.seek(0)
            return factory(stream, "")
    if prefix.startswith(b"%PDF"):
        what = "is a PDF document"
    elif b"<svg" in prefix.lower():
        what = "is a vector drawing (SVG)"
    elif prefix[4:8] == b"ftyp" and prefix[8:11] in (b"hei", b"hev"):
        what = "is a HEIC photo"
    else:
        what = "is not an image file of a known kind"
    raise given.refuse(f"{what}, expected one of {', '.join(FORMATS)}; save it as PNG or JPEG")


def decode(source: Encoded, given: Given, max_pixels: int, to_array: Callable[[Image.Image], Array]) -> Array:
    """Return the pixels of a picture as `to_array` takes them, turned upright; refused before decoding if too large."""
    with opened(source, given) as picture:
        if picture.width * picture.height > max_pixels:
            raise given.refuse(
                f"has {picture.width}x{picture.height} pixels, more than the limit of {max_pixels}; "
                "make it smaller, or raise max_pixels if you trust it"
            )
        picture.load()
        # Only after loading: Pillow turns TIFF files by itself then, and takes their tag away.
        return _TURNS[orientation(picture)](to_array(picture))


def photo_values(picture: Image.Image) -> Array:
    """Return `(H, W)` of any type, or `(H, W, 3 or 4)` uint8; never through Pillow's clipping of 16 bit."""
    if picture.mode == "I" and picture.format in ("PNG", "PPM"):
        return np.asarray(picture).astype(np.uint16)  # how Pillow holds 16-bit PPM, once also PNG
    if picture.mode in ("1", "L", "RGB", "RGBA", "F") or picture.mode.startswith("I"):
        return np.asarray(picture)
    if picture.mode in ("P", "PA"):
        return np.asarray(picture.convert("RGBA"))
    if picture.mode in ("La", "RGBa"):  # premultiplied
        picture = picture.convert(picture.mode.upper())
    return np.asarray(picture.convert("RGB"))


def mask_values(picture: Image.Image) -> Array:
    """Return `(H, W)` of any type, or `(H, W, C)` uint8 with 2 to 4 channels."""
    if picture.mode == "P":
        indices = np.asarray(picture)
        palette = np.zeros((256, 3), np.uint8)
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        used = palette[np.unique(indices)]
        all_grey = (used == used[:, :1]).all()
        return palette[:, 0][indices] if all_grey else indices
    if picture.mode in ("1", "L", "LA", "RGB", "RGBA", "F") or picture.mode.startswith("I"):
        return np.asarray(picture)
    return np.asarray(picture.convert("RGBA" if picture.mode in ("PA", "RGBa") else "RGB"))


_TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda array: array,
    2: np.fliplr,
    3: lambda array: np.rot90(array, 2),
    4: np.flipud,
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What makes a picture upright, by its EXIF orientation."""


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8."""
    try:
        value = picture.getexif().get(0x0112, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # A broken EXIF block hides no pixels; viewers show such photos as they are stored.
        return 1
