"""Files of the page's visitors to arrays, with errors that name a file as the visitor does.

Like all that meets foreign files, this runs in the server's decoding processes, without PyTorch or OpenCV.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, MaskError, printable
from ...formats.documents import Instance
from ...formats.masks import decode_mask
from ...formats.recognition import read as read_annotations
from ...imaging import reading
from ...imaging.codecs.decoder_process import within_limits
from ...imaging.codecs.file_checks import check_file
from ...imaging.codecs.pictures import Given, decode, describe
from ...imaging.label_files import LabelMap, background_label, read_labels
from ...imaging.reading import read_mask, read_mask_values

Mask = NDArray[np.bool_]

OBJECTS = 24
"""That are refined at once, at most: each takes its time, and others wait."""

_LONGEST_LABEL = 60

T = TypeVar("T")


def declared_pixels(paths: Sequence[Path], most: int) -> int:
    """How many pixels files have by their headers; the most that one may have for each that does not say.

    Raises:
        InputError: A file is one of those that take more to decode than their pixels do.
    """
    total = 0
    for path in paths:
        with open(path, "rb") as stream:
            size = check_file(stream, partial(_refused, path.name))
        total += size.pixels if size else most
    return total


def _refused(name: str, problem: str) -> InputError:
    return InputError(f"{name} {problem}; save it again as PNG")


def read_photo(path: Path, max_pixels: int) -> tuple[Any, ...]:
    """The parts of the `reading.Photo` in a visitor's file. Raises `InputError`, which names it as the visitor does."""
    name = f"photo {path.name!r}"
    return _named(path, lambda: reading.read_photo(path, max_pixels=max_pixels, name=name)).parts()


def is_annotations(paths: Sequence[Path]) -> bool:
    """Whether files are one of annotations. Raises `InputError` for one among others."""
    found = [path for path in paths if path.suffix.lower() == ".json"]
    if found and len(paths) > 1:
        raise InputError(f"{found[0].name} is a file of annotations among others: give it alone, or masks alone")
    return bool(found)


def annotated_objects(path: Path, photo: str, max_pixels: int) -> list[str]:
    """The names of the objects that an annotation file has of a photo. Raises `InputError`.

    Args:
        path: Of the file, COCO, LabelMe or another JSON of `segrefiner.formats`.
        photo: Name of the photo's file.
        max_pixels: That a photo may have.
    """
    with within_limits(max_pixels):
        return [_label(instance) for instance in _instances(path, photo)]


def _instances(path: Path, photo: str) -> tuple[Instance, ...]:
    """Objects of the photo of this name; of the only photo, whatever it is called."""
    contents = _named(path, lambda: read_annotations(path).contents)
    photos = [one for one in contents.photos if one.instances]
    if len(photos) > 1:
        wanted = _plain(photo)
        photos = [one for one in photos if any(_plain(name) == wanted for name in one.names)]
    if not photos:
        failed = next(iter(contents.failures.values()), "")
        raise InputError(
            f"{path.name} has no mask of a photo called {photo!r}" + (f" ({failed})" if failed else "")
            + ": give the photo's own file, under its own name"
        )  # fmt: skip
    if len(photos) > 1:
        raise InputError(f"{path.name} has several photos called {photo!r}: give a file with one of them")
    return photos[0].instances


def _plain(name: str) -> str:
    """A photo's name without folder and ending, as the page writes it."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in stem).lower()


def _label(instance: Instance) -> str:
    return printable(instance.label)[:_LONGEST_LABEL] or "object"


def _annotated(
    path: Path, photo: str, chosen: Sequence[int], size: tuple[int, int], mask_pixels: int
) -> tuple[list[str], list[Mask]]:
    """Names and masks of the chosen objects of a photo."""
    instances = _instances(path, photo)
    if not chosen or max(chosen) >= len(instances):
        raise InputError("no object is chosen: choose at least one of those in the file")
    picked = [instances[index] for index in sorted(set(chosen))]
    _check_count(len(picked), size[0] * size[1], mask_pixels)
    masks = []
    for instance in picked:
        try:
            masks.append(decode_mask(instance.mask, size)[0])
        except MaskError as error:
            raise MaskError(f"{path.name}, {instance.name}: {error}") from error
    return [_label(instance) for instance in picked], masks


def read_objects(
    paths: Sequence[Path],
    size: tuple[int, int],
    max_pixels: int,
    *,
    mask_pixels: int = 4 << 30,
    photo_name: str = "",
    chosen: Sequence[int] = (),
) -> tuple[list[str], list[Mask]]:
    """The objects in mask files: one of each file, or of a single file that holds several all or the chosen ones.

    Args:
        paths: Of masks, of one label map, or of one file of annotations.
        size: Height and width of the photo, which must be theirs.
        max_pixels: Files with more pixels are refused before they are decoded.
        mask_pixels: Of all masks together.
        photo_name: By which the photo's annotations are found.
        chosen: Which of its annotations are wanted, counted from 0.

    Returns:
        Names, of annotations their labels, and masks `(H, W)` bool.

    Raises:
        InputError: A file is no mask, does not fit the photo, or there are too many objects.
    """
    if is_annotations(paths):
        with within_limits(min(mask_pixels, OBJECTS * size[0] * size[1])):
            return _annotated(paths[0], photo_name, chosen, size, mask_pixels)
    label_map = _named(paths[0], partial(_label_map, paths[0], max_pixels)) if len(paths) == 1 else None
    if label_map is not None:
        labels, background = label_map.labels, background_label(label_map)
        values = [value for value in np.unique(labels).tolist() if value != background]
        _check_count(len(values), labels.size, mask_pixels)
        names, masks = [f"label {value}" for value in values], [labels == value for value in values]
    else:
        _check_count(len(paths), size[0] * size[1], mask_pixels)
        names = [path.stem for path in paths]
        masks = [_named(path, partial(_mask, path, max_pixels)) for path in paths]
    photo = np.broadcast_to(np.uint8(0), (*size, 3))
    for name, mask in zip(names, masks, strict=True):
        reading.check_same_size(photo, mask, mask_source=name)
    return names, masks


def read_layers(paths: Sequence[Path], max_pixels: int) -> list[NDArray[np.uint8]]:
    """The opacity of what was painted, `(h, w)` uint8, from files that the canvas made of it. Raises `MaskError`."""
    return [_layer(path, max_pixels) for path in paths]


def _layer(path: Path, max_pixels: int) -> NDArray[np.uint8]:
    given = Given(describe("layer", path), MaskError)
    raster = _named(path, lambda: decode(path, given, max_pixels))
    opaque = np.full(raster.values.shape[:2], 255, np.uint8)
    return opaque if raster.alpha is None else np.asarray(raster.alpha, np.uint8)


def _named(path: Path, read: Callable[[], T]) -> T:
    """What a reader gives; its error names the file without the server's folder."""
    try:
        return read()
    except InputError as error:
        raise type(error)(str(error).replace(f"{path.parent}{os.sep}", "")) from error


def _mask(path: Path, max_pixels: int) -> Mask:
    """A mask of two values, or a soft one cut in its middle."""
    try:
        return read_mask(path, max_pixels=max_pixels)
    except MaskError:
        half = 32768.0 if read_mask_values(path, max_pixels=max_pixels).dtype == np.uint16 else 128.0
        return read_mask(path, threshold=half, max_pixels=max_pixels)


def _label_map(path: Path, max_pixels: int) -> LabelMap | None:
    """A file that is a label map; of a soft mask, whose values between are thin edges, none."""
    try:
        label_map = read_labels(path, max_pixels=max_pixels)
    except MaskError:
        return None
    labels = label_map.labels
    values = np.unique(labels).tolist()
    if not 3 <= len(values) <= 256:
        return None
    from scipy import ndimage  # Only few files come to this.

    inner = ndimage.minimum_filter(labels, 3) == ndimage.maximum_filter(labels, 3)
    return label_map if 2 * len(np.unique(labels[inner])) > len(values) else None


def _check_count(count: int, pixels: int, mask_pixels: int) -> None:
    if count > OBJECTS:
        raise InputError(f"{count} objects are too many for the page, which takes {OBJECTS}: use the command line")
    if count * pixels > mask_pixels:
        raise InputError(
            f"{count} objects of {pixels / 1e6:.1f} megapixels are more than the {mask_pixels / 1e6:g} that the page "
            "takes: give fewer of them, or use the command line"
        )


def apart(names: list[str]) -> list[str]:
    """Names that differ: those that come again are numbered."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]
