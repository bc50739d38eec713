"""Coarse masks made beforehand, for whole data sets: in parallel, continued after a stop, with a sheet to look at."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Generator

from ...errors import InputError
from ...imaging.files import write_png
from ...imaging.shapes.distances import signed_distance
from ..settings_record import begin_folder
from ..sources import Sample, Source, evenly
from ..worker_pool import in_processes
from .grabcut import grabcut_coarse
from .masks import CoarseConfig, coarse_mask, low_resolution
from .published import published_coarse

Mask = NDArray[np.bool_]

SETTINGS_NAME = "coarse.json"
KINDS = ("published", "ours", "low-resolution", "grabcut")
LONGEST = 1024
"""Larger masks are made at this long side and enlarged: what dilation by ten pixels spoils depends on the size."""

SHEET_PHOTOS = 24
_COLUMNS, _CELL = 6, 256
_OURS = CoarseConfig(perfect=0.0, real=0.0, slight=0.0, blobs=0.15)


def make_coarse(image: NDArray[np.uint8], mask: Mask, kind: str, seed: int) -> Mask:
    """A coarse mask `(H, W)` bool of a truth `(H, W)` bool, not empty.

    Args:
        image: `(H, W, 3)` uint8, RGB, the photo, which "grabcut" alone looks at.
        mask: The truth.
        kind: "published" (the paper's), "ours" (wobbling contours, as the bundled model was trained on),
            "low-resolution" (a network's mask of 1/8 to 1/32 of the size) or "grabcut" (an interactive tool's).
        seed: Seed of every draw.

    Raises:
        MissingExtraError: "grabcut" needs OpenCV, which is not installed.
    """
    if kind == "grabcut":
        made = grabcut_coarse(image, mask, seed)
        return made if made.any() else mask.copy()
    return _from_truth(mask, kind, seed)


def _from_truth(mask: Mask, kind: str, seed: int) -> Mask:
    height, width = mask.shape
    shrink = LONGEST / max(height, width)
    if shrink < 1:
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        coarse = _from_truth(np.asarray(Image.fromarray(mask).convert("L").resize(small)) >= 128, kind, seed)
        enlarged: Mask = np.asarray(Image.fromarray(coarse).convert("L").resize((width, height))) >= 128
        return enlarged if enlarged.any() else mask.copy()
    if kind == "published":
        return published_coarse(mask, np.random.default_rng(seed))
    # The module for training works on squares.
    side = max(32, height, width)
    padded = np.full((side, side), -float(side), np.float32)
    padded[:height, :width] = np.clip(signed_distance(mask), -side, side)
    distance = torch.from_numpy(padded)[None, None]
    generator = Generator().manual_seed(seed)
    if kind == "ours":
        made = coarse_mask(distance, generator, _OURS)
    else:
        factor = side // int(torch.randint(8, 33, (1,), generator=generator))
        even = -(-side // factor) * factor - side if factor else 0
        whole = torch.nn.functional.pad((distance > 0).float(), (0, even, 0, even))
        made = low_resolution(whole, max(1, factor), generator)
    result: Mask = made[0, 0, :height, :width].numpy() > 0
    return result if result.any() else mask.copy()


def write_coarse(
    source: Source,
    folder: Path,
    *,
    kind: str = "published",
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[int, list[tuple[int, str]]]:
    """Writes a coarse mask `NAME.png` for every photo that has none in the folder yet.

    Args:
        source: The photos.
        folder: Folder of the masks; `coarse.json` in it keeps kind and seed.
        kind: "published", "ours", "low-resolution" or "grabcut", as `make_coarse` makes them.
        seed: Seed of the draws, together with a photo's number.
        workers: Processes; 0 works in this one.
        progress: Wraps the iteration over the photos' results.

    Returns:
        How many were written, and the numbers of the photos that could not be read with the reasons.

    Raises:
        InputError: There is no such kind, or the folder holds masks of another one.
        OutputError: A mask cannot be written; those before it stay.
    """
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    begin_folder(folder, SETTINGS_NAME, {"kind": kind, "seed": seed}, "coarse masks")
    work = partial(_write_one, source, folder, kind, seed)
    written, failures = 0, []
    for index, outcome in progress(in_processes(work, range(len(source)), workers)):
        written += outcome is True
        if isinstance(outcome, str):
            failures.append((index, outcome))
    return written, failures


def _write_one(source: Source, folder: Path, kind: str, seed: int, index: int) -> tuple[int, bool | str]:
    """Whether a mask was written (it may be there), or why it could not be made."""
    try:
        sample = source.read(index)
    except InputError as error:
        return index, str(error)
    path = folder / f"{sample.name}.png"
    if path.is_file():
        return index, False
    write_png(path, make_coarse(sample.image, sample.mask, kind, seed + index))
    return index, True


def coarse_sheet(source: Source, folder: Path) -> NDArray[np.uint8]:
    """Photos, evenly chosen, in one picture: what their coarse masks miss in blue, what they have too much in red.

    Returns:
        `(H, W, 3)` uint8.
    """
    indices = evenly(len(source), SHEET_PHOTOS)
    rows = -(-len(indices) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _CELL, rows * _CELL), "white")
    for place, index in enumerate(indices):
        try:
            cell = _cell(source.read(index), folder)
        except InputError:
            continue
        sheet.paste(cell, (place % _COLUMNS * _CELL + 3, place // _COLUMNS * _CELL + 3))
    return np.asarray(sheet)


def _cell(sample: Sample, folder: Path) -> Image.Image:
    from ...imaging.reading import read_mask

    path = folder / f"{sample.name}.png"
    coarse = read_mask(path) if path.is_file() else sample.mask
    tint = sample.image.astype(np.float32)
    for wrong, colour in ((coarse & ~sample.mask, (230, 40, 40)), (sample.mask & ~coarse, (40, 90, 255))):
        tint[wrong] = 0.3 * tint[wrong] + 0.7 * np.array(colour, np.float32)
    cell = Image.fromarray(tint.astype(np.uint8))
    cell.thumbnail((_CELL - 6, _CELL - 6))
    agreement = (coarse & sample.mask).sum() / (coarse | sample.mask).sum()
    ImageDraw.Draw(cell).text((4, 4), f"IoU {agreement:.2f}", fill="white", stroke_width=2, stroke_fill="black")
    return cell
