"""Photos too large to hold: their objects are refined one after the other, each with what is around it.

The mask is unpacked into a file of a byte for each pixel, in which its objects are found row by row. Of the photo only
an object's area is read, all that any of its views covers. Refined labels go into that file, which at last is written
as a picture. Memory grows with the largest object and with the photo's width, not with its area.
Parts of a mask that are not far apart for the mask's extent are one object: all of what is between them is read.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.boxes import Box
from ..imaging.reading import check_fits, check_same_size, warn_of
from ..imaging.vips import LargePicture, MaskFile, check_target
from ..model.diffusion import OnProgress, silent
from .options import PLAIN, OptionFields, Options
from .pipelines.canvas import PhotoRegion
from .pipelines.coarse_to_fine import default_pipeline
from .pipelines.config import DEFAULT
from .pipelines.tasks import MaskTask, PhotoPart
from .pipelines.views import gather_parts, object_area, part_gap, worth_refining
from .report import Report

if TYPE_CHECKING:
    from .refiner import Refiner


def refine_large(
    refiner: "Refiner",
    image: str | PathLike[str],
    mask: str | PathLike[str],
    target: str | PathLike[str],
    options: Options = PLAIN,
    *,
    threshold: float | None = None,
    on_progress: OnProgress = silent,
    **changed: Unpack[OptionFields],
) -> list[Report]:
    """Refines the mask of a photo of any size, without ever holding all of either.

    The mask is the one that a call of the refiner gives, up to rounding. Temporary files take a byte for each pixel
    and, unless the photo is a TIFF, three more.

    Args:
        refiner: With the default pipeline.
        image: The photo's file: grey or RGB of 8 or 16 bits. TIFF is the quickest.
        mask: The coarse mask's file.
        target: Refined mask: a PNG, or a TIFF in compressed tiles. Replaced only when the new file is complete.
        options: How the mask is refined.
        threshold: As in a call of the refiner.
        on_progress: Called after each network evaluation.
        changed: Fields of `Options` that are to be others.

    Returns:
        What changed, for each object in reading order but specks among very many; shares are of the whole photo's
        pixels. None of an empty or full mask, which is written as it is.

    Raises:
        InputError: A file or number is not as described.
        OutputError: The target cannot be written.
        MissingExtraError: pyvips is not installed.

    >>> from segrefiner.refinement.large_photos import refine_large
    >>> reports = refine_large(refiner, "photo.png", "coarse.png", "refined.tif")
    >>> len(reports), Path("refined.tif").exists()
    (1, True)
    """
    options = options.changed(**changed)
    check_target(target)
    if refiner.pipeline is not default_pipeline:
        raise InputError("pictures are read in windows for the default pipeline alone; use that one")
    photo, coarse = _opened(image, mask)
    reports = []
    with TemporaryDirectory(prefix="segrefiner-") as folder:
        store = MaskFile(coarse, threshold, Path(folder) / "mask")
        objects = [] if store.pixels == math.prod(coarse.size) else find_large_objects(store)
        notes = _notes(photo, store, objects, mask)
        warn_of(notes)
        parts = _parts(objects, coarse.size, options.max_shift)
        jobs = _mask_tasks(refiner, photo, store, parts, options.seed, Path(folder))
        results = refiner.run(jobs, options, on_progress=on_progress)
        for part, result in zip(parts, results, strict=True):
            store.change(part.window.box, result.mask)
            reports.append(replace(result.report, warnings=notes))
        store.save(target)
    return reports


def _notes(photo: LargePicture, store: MaskFile, objects: list[Box], mask: str | PathLike[str]) -> tuple[str, ...]:
    """What there is to say of the pair before it is refined."""
    notes = check_fits(photo.small(), store.small(), mask_source=mask) if objects else ()
    specks = len(objects) - len(worth_refining(objects))
    return (*notes, f"{specks} specks among {len(objects)} objects are left as they are") if specks else notes


def _opened(image: str | PathLike[str], mask: str | PathLike[str]) -> tuple[LargePicture, LargePicture]:
    """The photo and its mask, still undecoded. Raises `InputError` where they are none, or their sizes differ."""
    photo, coarse = LargePicture.photo(image), LargePicture.mask(mask)
    # Of one element each: only their shapes are looked at.
    shapes = (np.broadcast_to(np.uint8(0), size) for size in ((*photo.size, 3), coarse.size))
    check_same_size(*shapes, image_source=image, mask_source=mask)
    return photo, coarse


def find_large_objects(mask: MaskFile) -> list[Box]:
    """`views.find_objects`, row by row."""
    if mask.box is None:
        return []
    return gather_parts(joined(mask.rows(), mask.width, part_gap(mask.box, DEFAULT)), DEFAULT)


def joined(rows: Iterable[tuple[int, NDArray[np.bool_]]], width: int, gap: int) -> list[Box]:
    """Boxes of a mask's parts: what is no farther apart than a gap, in both directions, is of one part.

    What lies in the last `gap` rows matters by its columns alone: there, neighbouring columns no farther apart than the
    gap are of one part, and of several pixels in a column the last one says all.

    Args:
        rows: Numbers of the rows and the rows `(width,)`, downwards; those without a pixel may be left out.
        width: Of the mask.
        gap: In pixels.
    """
    last = np.full(width, -gap - 1)  # Row of each column's last pixel, and the part that it is of.
    owner = np.zeros(width, np.int64)
    boxes: list[Box] = []
    united: list[int] = []  # A part that each part belongs to, itself if to no other.

    def root(part: int) -> int:
        while united[part] != part:
            united[part] = part = united[united[part]]
        return part

    for y, row in rows:
        here = np.flatnonzero(row)
        owner[here[last[here] < y - gap]] = -1
        last[here] = y
        near = np.flatnonzero(last >= y - gap)
        for columns in np.split(near, np.flatnonzero(np.diff(near) > gap) + 1):
            new = columns[row[columns]]
            if not len(new):
                continue
            box = Box(int(new[0]), y, int(new[-1]) + 1, y + 1)
            parts = {root(int(part)) for part in np.unique(owner[columns]) if part >= 0}
            if not parts:
                parts = {len(boxes)}
                boxes.append(box)
                united.append(len(united))
            first = min(parts)
            for part in parts:
                box, united[part] = box.union(boxes[part]), first
            boxes[first], owner[columns] = box, first
    return [box for i, box in enumerate(boxes) if united[i] == i]


def _parts(objects: list[Box], size: tuple[int, int], max_shift: float | None) -> list[PhotoPart]:
    """What is read for each of the objects."""
    areas = [object_area(box, *size, DEFAULT) for box in objects]
    corners = np.array([(a.x0, a.y0, a.x1, a.y1) for a in areas]).reshape(-1, 4)
    parts = []
    for chosen in worth_refining(objects):
        area = areas[chosen]
        beside = (corners[:, :2] < (area.x1, area.y1)) & (corners[:, 2:] > (area.x0, area.y0))
        near = np.flatnonzero(beside.all(axis=1)).tolist()
        # Contours outside of the area count as well; none is farther than the object's own.
        margin = 0 if max_shift is None else math.ceil(min(max_shift, area.width + area.height)) + 1
        window = PhotoRegion(area.grow(margin).clip(*size), size)
        parts.append(PhotoPart(window, tuple(objects[i] for i in near), near.index(chosen)))
    return parts


def _mask_tasks(
    refiner: "Refiner", photo: LargePicture, mask: MaskFile, parts: list[PhotoPart], seed: int, folder: Path
) -> Iterator[MaskTask]:
    if not parts:
        return
    pixels = photo.parts(folder)
    for part in parts:
        image = torch.from_numpy(pixels(part.window.box)).to(refiner.device).permute(2, 0, 1)
        yield MaskTask(image, torch.from_numpy(mask.part(part.window.box)), seed, part=part)
