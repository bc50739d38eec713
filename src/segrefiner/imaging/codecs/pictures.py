"""Picture files and Pillow images to arrays as they are stored: opened safely, decoded, turned upright.

Files are recognised by content, never by name. Only the formats in `FORMATS` are opened, so a hostile file
cannot reach Pillow's rarer decoders, one of which starts another program.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from ...errors import InputError, reason
from .decoder_process import within_limits
from .exif import exif_of
from .file_checks import check_file
from .png_chunks import without_side_data
from .rasters import Array, Raster, raster_of, stored_mode

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
                    size = check_file(stream, lambda problem: given.refuse(f"{problem}; save it again as PNG"))
                    with within_limits(size.pixels if size else None):
                        yield _identify(stream, given)
        except InputError:
            raise
        except MemoryError as error:
            raise given.refuse(
                "takes more memory than its pixels do; open it in an image editor and save it again as PNG"
            ) from error
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
            shown, stated = without_side_data(stream)
            # Of a JPEG with several pictures the first is wanted: their list, which may be damaged, is not parsed.
            picture = JpegImageFile(shown, "") if name == "JPEG" else factory(shown, "")
            if stated is not None:
                picture.info["exif"] = exif_of(stated.orientation)
                picture.info.pop("xmp", None)
            if stated is not None and stated.profile is not None:
                picture.info["icc_profile"] = stated.profile
            return picture
    if prefix.startswith(b"%PDF"):
        what = "is a PDF document"
    elif b"<svg" in prefix.lower():
        what = "is a vector drawing (SVG)"
    elif prefix[4:8] == b"ftyp" and prefix[8:11] in (b"hei", b"hev"):
        what = "is a HEIC photo"
    else:
        what = "is not an image file of a known kind"
    raise given.refuse(f"{what}, expected one of {', '.join(FORMATS)}; save it as PNG or JPEG")


def decode(source: Encoded, given: Given, max_pixels: int) -> Raster:
    """Return the pixels of a picture, upright; raise `given.error` before decoding if there are too many."""
    with opened(source, given) as picture:
        if picture.width * picture.height > max_pixels:
            raise given.refuse(
                f"has {picture.width}x{picture.height} pixels, more than the limit of {max_pixels}; "
                "make it smaller, or raise max_pixels if you trust it"
            )
        stored, profile = stored_mode(picture), picture.info.get("icc_profile")
        if _is_unreadable(picture):
            raise given.refuse("stores 16-bit colours plane by plane, which cannot be read; save it as PNG")
        picture.load()
        raster = raster_of(picture, stored, whole=None if picture is source else _sixteen_bits(source, given, stored))
        # Only after loading: Pillow turns TIFF files by itself then, and takes their tag away.
        raster = replace(raster, profile=profile if isinstance(profile, bytes) and profile else None)
        return raster.upright(orientation(picture))


_LOW_BYTES = {
    f"{colours};{order}": f"{colours};{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (
        ("16B", "16L"),
        ("16L", "16B"),
        ("16N", "16B" if sys.byteorder == "little" else "16L"),
    )
}
"""How Pillow must be told that colours of sixteen bits are stored so that it takes the lower eight for the upper."""


def _sixteen_bits(source: Encoded, given: Given, stored: str) -> Array | None:
    """Decode colours of sixteen bits whole, of which Pillow keeps the upper eight.

    Args:
        source: A file.
        given: What it is in messages.
        stored: Its `stored_mode`.

    Returns:
        `(H, W, C)` uint16, not turned, with opacity last if there is one; `None` for other files, and where it cannot
        be done.
    """
    if stored == "LA;16B":
        both = _decoded_as(source, given, "I;32B", mode="I").view(np.uint32)
        return np.stack([both >> 16, both & 0xFFFF], axis=-1).astype(np.uint16)
    if stored not in _LOW_BYTES:
        return None
    high = _decoded_as(source, given, stored).astype(np.uint16)
    return high << 8 | _decoded_as(source, given, _LOW_BYTES[stored])


def _decoded_as(source: Encoded, given: Given, stored: str, mode: str | None = None) -> Array:
    """Decode a file as if it stored its pixels in this way, by Pillow's raw mode."""
    with opened(source, given) as picture:
        if mode is not None:
            picture._mode = mode
        file: Any = picture
        file.tile = [
            tile._replace(args=stored if isinstance(tile.args, str) else (stored, *tile.args[1:])) for tile in file.tile
        ]
        picture.load()
        return np.asarray(picture)


def _is_unreadable(picture: Image.Image) -> bool:
    """Tell whether Pillow would take sixteen bits for two pixels of eight."""
    tags = getattr(picture, "tag_v2", None)
    return tags is not None and tags.get(284) == 2 and 16 in tags.get(258, ())


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8."""
    try:
        value = picture.getexif().get(0x0112, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:  # A broken EXIF block hides no pixels; viewers show such photos as they are stored.
        return 1
