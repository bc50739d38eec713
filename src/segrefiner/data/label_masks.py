"""Training masks from label maps: whole classes, and single ones of their connected parts."""

import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError, MaskError, SizeMismatchError
from ..imaging.files import write_png
from ..imaging.label_files import read_labels
from ..imaging.reading import check_fits, read_photo, warn_of
from .layouts import PhotoFiles, find_label_maps
from .settings_record import begin_folder

Mask = NDArray[np.bool_]

LEAST_SHARE = 0.0006
"""Of a photo, that a mask shows; less is a speck."""

_ATTEMPTS = 10


def choose_masks(labels: NDArray[Any], count: int, random: Generator, ignore: Collection[int] = ()) -> list[Mask]:
    """Chooses classes and connected parts of them. Each label is as likely as any other, however small it is.

    Args:
        labels: `(H, W)` integers.
        count: How many at most; a map of few labels gives fewer.
        random: The source of every draw.
        ignore: Labels that are never shown: they are background of every mask.

    Returns:
        Different masks, `(H, W)` bool, each of at least `LEAST_SHARE` of the pixels.
    """
    least = LEAST_SHARE * labels.size
    values, sizes = np.unique(labels, return_counts=True)
    present = [int(v) for v, size in zip(values, sizes, strict=True) if size >= least and int(v) not in ignore]
    chosen: list[Mask] = []
    for _ in range(count * _ATTEMPTS if present else 0):
        mask: Mask = labels == present[random.integers(len(present))]
        if random.random() < 0.5:
            parts, _ = ndimage.label(mask, np.ones((3, 3)))
            areas = np.bincount(parts.ravel())[1:]
            # Their roots, so that neither the largest nor the many specks are all that is seen.
            weights = np.where(areas >= least, np.sqrt(areas), 0)
            if not weights.any():
                continue
            mask = np.asarray(parts == 1 + random.choice(len(areas), p=weights / weights.sum()))
        if not any(np.array_equal(mask, other) for other in chosen):
            chosen.append(mask)
        if len(chosen) == count:
            break
    return chosen


def write_label_masks(
    folder: Path,
    target: Path,
    *,
    prefix: str,
    count: int = 5,
    ignore: Collection[int] = (),
    seed: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[int, int, list[tuple[int, str]]]:
    """Writes a training folder of masks of classes and their parts: `PREFIX_NAME_0`, `PREFIX_NAME_1` and so on.

    A photo is linked once for each of its masks, or copied where that is impossible.

    Args:
        folder: `images/NAME.jpg` and `labels/NAME.png`.
        target: Where to; a file in it keeps the settings.
        prefix: Letters, by which the data set is told from others.
        count: Masks of each photo, at most.
        ignore: Labels that are never shown.
        seed: With a photo's name, of its draws.
        progress: Wraps the iteration over the photos.

    Returns:
        How many masks were written, how many were there, and the numbers of the photos that gave none with the reasons.

    Raises:
        InputError: A part of the folder is missing, the prefix is not of letters, or the target has other settings.
        OutputError: A file cannot be written.
    """
    if not prefix.isalpha():
        raise InputError(f"the prefix is {prefix!r}, expected letters alone, such as street")
    photos = find_label_maps(folder)
    settings = {"seed": seed, "count": count, "ignore": sorted(ignore)}
    begin_folder(target, f"{prefix}.json", settings, "masks", ("images", "masks"))
    written, kept, failures = 0, 0, []
    for index, photo in enumerate(progress(photos)):
        try:
            masks = _masks_of(photo, count, default_rng([seed, zlib.crc32(photo.name.encode())]), ignore)
        except InputError as error:
            failures.append((index, str(error)))
            continue
        for number, mask in enumerate(masks):
            name = f"{prefix}_{photo.name}_{number}"
            image, path = target / "images" / f"{name}{photo.image.suffix}", target / "masks" / f"{name}.png"
            if image.is_file() and path.is_file():
                kept += 1
                continue
            _link(photo.image, image)
            write_png(path, mask)
            written += 1
    return written, kept, failures


def _masks_of(photo: PhotoFiles, count: int, random: Generator, ignore: Collection[int]) -> list[Mask]:
    labels, read = read_labels(photo.mask).labels, read_photo(photo.image)
    image = read.pixels
    if labels.shape != image.shape[:2]:
        raise SizeMismatchError(
            f"{photo.mask} is {labels.shape[1]}x{labels.shape[0]} but its photo is "
            f"{image.shape[1]}x{image.shape[0]}: expected the same size"
        )
    masks = choose_masks(labels, count, random, ignore)
    if not masks:
        raise MaskError(f"{photo.mask} shows nothing: all its labels are ignored, or specks")
    warn_of(tuple(dict.fromkeys(note for mask in masks for note in check_fits(read, mask, mask_source=photo.mask))))
    return masks


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # Another disk, or a file system without links.
        shutil.copyfile(source, target)
