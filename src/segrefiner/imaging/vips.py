"""Pictures too large to hold, read and written part by part with libvips."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, MaskError, MissingExtraError, OutputError, reason
from .boxes import Box
from .codecs.bit_depth import bits_note, to_uint8, used_bits
from .codecs.interpretation import mask_of
from .codecs.pictures import Given, describe, opened
from .codecs.rasters import Raster
from .colours import profile_of, to_srgb
from .files import atomic_write, check_output
from .ops import row_bands
from .reading import Photo

_KINDS = ("b-w", "srgb", "rgb", "grey16", "rgb16", "multiband")
"""Colour spaces, by libvips' names, that are read as they are stored."""
_COLOURS = 65536
"""Of a mask, at most."""
_COARSE, _CHANGED = 1, 2
_SMALL = 384
"""Pixels of the longer side in which photo and mask are compared as a whole, at most."""


def libvips() -> Any:
    """The package pyvips. Raises `MissingExtraError` where it, or the library that it needs, is not installed."""
    try:
        return importlib.import_module("pyvips")
    except (ImportError, OSError) as error:
        raise MissingExtraError.needed_by("reading pictures in windows", package="pyvips", extra="large") from error


@dataclass(frozen=True)
class LargePicture:
    """A picture file that is read part by part, turned as its EXIF tag says.

    Attributes:
        path: The file.
        given: What it is in messages, and the error that refuses it.
    """

    path: str
    given: Given

    @classmethod
    def photo(cls, path: str | PathLike[str]) -> LargePicture:
        """A photo. Raises `ImageError` if there is none, by the file's header."""
        return cls._checked(path, Given(describe("image", path), ImageError))

    @classmethod
    def mask(cls, path: str | PathLike[str]) -> LargePicture:
        """A mask. Raises `MaskError` if there is none, by the file's header."""
        return cls._checked(path, Given(describe("mask", path), MaskError))

    @classmethod
    def _checked(cls, path: str | PathLike[str], given: Given) -> LargePicture:
        # Pillow's check of the header keeps other files, and libvips' many other decoders, out.
        with opened(path, given):
            pass
        picture = cls(str(path), given)
        image = picture._opened("sequential")
        if image.interpretation not in _KINDS or image.format not in ("uchar", "ushort") or image.bands > 4:
            raise given.refuse(
                f"has {image.bands} channels {image.format} of the kind {image.interpretation}, expected grey or RGB "
                "of 8 or 16 bits, which is what can be read in windows; convert it"
            )
        return picture

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, upright."""
        image = self._opened("sequential")
        return (image.width, image.height) if _quarter(image) else (image.height, image.width)

    def strips(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """All rows from top to bottom, some at a time, and their pixels `(h, W, C)`, uint8 or uint16."""
        image = self._upright()
        region = libvips().Region.new(image)
        for rows in row_bands(image.height, image.width):
            yield rows, self._pixels(image, region, Box(0, rows.start, image.width, rows.stop))

    def parts(self, folder: Path) -> Callable[[Box], NDArray[np.uint8]]:
        """What reads the photo's pixels `(h, w, 3)` uint8 in a box, in sRGB.

        Args:
            folder: For a file of all pixels, where the photo's own format can only be read from its start.
        """
        image = self._upright()
        if not image.get("vips-loader").startswith("tiffload") or _quarter(self._opened("sequential")):
            with self._told():
                image.write_to_file(str(folder / "photo.v"))
            image = libvips().Image.new_from_file(str(folder / "photo.v"), revalidate=True)
        else:
            image = self._opened("random").autorot()
        region = libvips().Region.new(image)
        bits, (profile, _) = self.bits or 16, self._profile

        def part(box: Box) -> NDArray[np.uint8]:
            pixels = self._pixels(image, region, box)
            pixels = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
            rgb = to_uint8(pixels, self.given, bits)
            whole = np.require(np.broadcast_to(rgb, (*rgb.shape[:2], 3)), requirements=["C", "W"])
            return to_srgb(whole, profile)

        return part

    @cached_property
    def bits(self) -> int | None:
        """Of how many bits the full scale of a photo of sixteen bits is, if it is fewer."""
        if self._opened("sequential").format != "ushort":
            return None
        counts = np.zeros(65536, np.int64)
        for _, pixels in self.strips():
            # The last of two or four channels is opacity.
            counts += np.bincount(pixels[..., : 3 if pixels.shape[2] > 2 else 1].ravel(), minlength=65536)
        bits = used_bits(np.flatnonzero(counts))
        return bits if bits < 16 else None

    def small(self) -> Photo:
        """The whole photo, as small as photo and mask are compared, with what there is to say of it."""
        with self._told():
            image = self._upright()
            if image.format == "ushort":
                image = (image * (255 / (2 ** (self.bits or 16) - 1))).cast("uchar")
            image = image[:3] if image.bands > 2 else image[0].bandjoin([image[0]] * 2)
            pixels = np.asarray(image.thumbnail_image(_SMALL, size="down").numpy())
        said = (bits_note(self.bits) if self.bits else "", self._profile[1])
        notes = tuple(f"{self.given.name} {one}" for one in said if one)
        return Photo(pixels, self.orientation, self.given.name, notes)

    @property
    def orientation(self) -> int:
        """The EXIF orientation that is undone, 1 to 8."""
        image = self._opened("sequential")
        value = image.get("orientation") if image.get_typeof("orientation") else 1
        return int(value) if value in range(1, 9) else 1

    @cached_property
    def _profile(self) -> tuple[bytes | None, str]:
        """The photo's colour profile, and what is to be said of it."""
        image = self._opened("sequential")
        found = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
        return profile_of(None if found is None else bytes(found))

    def _pixels(self, image: Any, region: Any, box: Box) -> NDArray[Any]:
        with self._told():
            data = region.fetch(box.x0, box.y0, box.width, box.height)
        dtype = np.uint8 if image.format == "uchar" else np.uint16
        return np.frombuffer(data, dtype).reshape(box.height, box.width, image.bands)

    def _upright(self) -> Any:
        image = self._opened("sequential")
        # A quarter turn needs all rows for its first one.
        return (self._opened("random") if _quarter(image) else image).autorot()

    def _opened(self, access: str) -> Any:
        with self._told():
            # Not by its name, in which brackets would be options, and which libvips would remember. Without `fail_on`
            # what is missing of a file that was cut short is grey.
            source = libvips().Source.new_from_file(self.path)
            return libvips().Image.new_from_source(source, "", access=access, fail_on="error")

    def _told(self) -> _Told:
        return _Told(
            lambda error: self.given.refuse(
                f"cannot be read in windows ({reason(error)}); if it is whole, save it as TIFF, PNG or JPEG"
            )
        )


@dataclass(frozen=True)
class _Told:
    """Errors of libvips inside as one of ours."""

    refuse: Callable[[Exception], Exception]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        vips_error: type[Exception] = libvips().Error
        if isinstance(error, vips_error):
            raise self.refuse(error) from error


def _quarter(image: Any) -> bool:
    """Whether the EXIF tag of a picture as it is stored turns it by a quarter."""
    return image.get_typeof("orientation") != 0 and image.get("orientation") >= 5


class MaskFile:
    """A mask in a file of a byte for each pixel, and what changed of it.

    Attributes:
        box: Of the object's pixels; `None` where there are none.
        pixels: How many there are.

    Args:
        mask: The picture.
        threshold: As for `reading.read_mask`.
        path: Of the file, which must not exist.

    Raises:
        MaskError: As `reading.read_mask` does.
    """

    def __init__(self, mask: LargePicture, threshold: float | None, path: Path) -> None:
        self.path, (self.height, self.width) = path, mask.size
        self.box: Box | None = None
        self.pixels = 0
        is_object = _rule(mask, threshold)
        with open(path, "wb") as file:
            for rows, colours in mask.strips():
                strip = is_object(colours)
                file.write((strip * np.uint8(_COARSE)).tobytes())
                self.pixels += int(np.count_nonzero(strip))
                columns, inside = np.flatnonzero(strip.any(axis=0)), np.flatnonzero(strip.any(axis=1))
                if len(columns):
                    box = Box(int(columns[0]), int(inside[0]), int(columns[-1]) + 1, int(inside[-1]) + 1)
                    box = box.shift(0, rows.start)
                    self.box = self.box.union(box) if self.box else box

    def rows(self) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """The coarse mask's rows `(W,)` in which there is some of the object, with their numbers."""
        for strip in row_bands(self.height, self.width):
            mask = self.part(Box(0, strip.start, self.width, strip.stop))
            for i in np.flatnonzero(mask.any(axis=1)):
                yield strip.start + int(i), mask[i]

    def part(self, box: Box) -> NDArray[np.bool_]:
        """The coarse mask in a box, `(h, w)`."""
        return np.asarray(self._read(box) & _COARSE, np.bool_)

    def change(self, box: Box, refined: NDArray[np.bool_]) -> None:
        """Notes the pixels of a box in which a refined mask `(h, w)` differs from the coarse one."""
        stored = self._read(box)
        stored[(stored & _COARSE != 0) != refined] |= _CHANGED
        with open(self.path, "r+b", buffering=0) as file:
            for y, row in enumerate(stored, box.y0):
                file.seek(y * self.width + box.x0)
                file.write(row.tobytes())

    def small(self) -> NDArray[np.bool_]:
        """The whole coarse mask, `(h, w)`, of the size of `Picture.small`."""
        table = libvips().Image.new_from_array([[255 * (i & _COARSE) for i in range(4)]]).cast("uchar")
        stored = libvips().Image.rawload(str(self.path), self.width, self.height, 1)
        small = stored.maplut(table).thumbnail_image(_SMALL, size="down").numpy()
        return np.asarray(small.reshape(small.shape[:2]) >= 128)

    def _read(self, box: Box) -> NDArray[np.uint8]:
        stored = np.empty((box.height, box.width), np.uint8)
        with open(self.path, "rb", buffering=0) as file:
            for y, row in enumerate(stored, box.y0):
                file.seek(y * self.width + box.x0)
                file.readinto(row.data)
        return stored

    def save(self, target: str | PathLike[str]) -> None:
        """Writes the mask with its changes, 0 and 255, as PNG or as TIFF in tiles, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        vips = libvips()
        table = vips.Image.new_from_array([[255 * (i in (_COARSE, _CHANGED)) for i in range(4)]]).cast("uchar")
        stored = vips.Image.rawload(str(self.path), self.width, self.height, 1)
        picture = stored.maplut(table).copy(interpretation="b-w")
        # A TIFF of more bytes needs larger offsets, which not every program reads.
        options = {"tile": True, "tile_width": 512, "tile_height": 512, "compression": "deflate",
                   "bigtiff": self.width * self.height >= 2**31}  # fmt: skip

        def write(stream: BinaryIO) -> None:
            with _Told(lambda error: OutputError(f"output {str(target)!r} cannot be written ({reason(error)})")):
                if Path(target).suffix.lower() == ".png":
                    picture.pngsave(stream.name, compression=1)
                else:
                    picture.tiffsave(stream.name, **options)

        atomic_write(target, write)


def check_target(target: str | PathLike[str]) -> None:
    """Raises `OutputError` where `MaskFile.save` cannot write."""
    if Path(target).suffix.lower() not in (".png", ".tif", ".tiff"):
        raise OutputError(f"output {str(target)!r} must end in .png, .tif or .tiff; change the name")
    check_output(target, suffix=None)


def _rule(mask: LargePicture, threshold: float | None) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """What tells object `(h, W)` from background in the mask's pixels `(h, W, C)`: by all colours that there are."""
    codes = np.zeros(0, np.uint64)
    for _, pixels in mask.strips():
        codes = np.union1d(codes, _distinct(pixels))
        channels, dtype = pixels.shape[2], pixels.dtype
        if len(codes) > _COLOURS:
            raise mask.given.refuse(f"has more than {_COLOURS} colours, expected grey or one colour on black")
    bits = 8 * dtype.itemsize
    # Shifted and cut off by the conversion.
    colours = np.stack([codes >> np.uint64(bits * c) for c in range(channels)], axis=-1).astype(dtype)
    chosen = mask_of(Raster.of_array(colours[None]), mask.given, threshold)[0]
    if channels == 1:
        table = np.zeros(65536, np.bool_)
        table[codes.astype(np.intp)] = chosen
        return lambda pixels: table[pixels[..., 0]]
    return lambda pixels: chosen[np.searchsorted(codes, _codes(pixels))]


def _codes(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    """One number `(h, w)` for each colour of `(h, w, C)`, uint8 or uint16."""
    codes = np.zeros(pixels.shape[:2], np.uint64)
    for c in range(pixels.shape[2]):
        codes |= pixels[..., c].astype(np.uint64) << np.uint64(8 * pixels.itemsize * c)
    return codes


def _distinct(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    if pixels.shape[2] > 1:
        return np.unique(_codes(pixels))
    return np.flatnonzero(np.bincount(pixels.reshape(-1))).astype(np.uint64)
