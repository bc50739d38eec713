"""The README's picture: how the bundled model does with masks of four kinds.

    python -m benchmarks.quality.showcase DATA -o docs/before_after.jpg [--photos 11] [--only CCP,car208]

DATA as for `quality/methods.py`, with a strong network's masks in `coarse_isnet/`. Nobody chooses the photos: of each
kind the one is shown whose gain in IoU is the median, there where its coarse mask is most wrong. Label maps have the
object and its surroundings. All figures are printed, the one that is shown is marked. Pictures that are given away may
show photos of CCP and car208 only, whose terms allow that.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from benchmarks.common import street, thin_kinds
from benchmarks.common.cases import STRONG_FOLDER, Case, RefinedCase, cases, chosen
from benchmarks.common.coarse_kinds import REAL, STRONG, Mask, Photo
from benchmarks.common.options import OUTPUT
from segrefiner import Refiner, refine_labels
from segrefiner.data.layouts import PhotoFiles, find_photos, open_folder
from segrefiner.rendering.overlay import COARSE_COLOUR, REFINED_COLOUR

MAP = "street-8"
TITLES = {
    REAL: "a weak network's mask",
    "thin": "wires, spokes, leaves, drawn roughly",
    STRONG: "a strong network's mask",
    MAP: "a label map: person, rest",
}
PANEL, GAP, LINE = 300, 8, 20
_SHOWN = 0.5
"""Side of what is shown, as a share of the object's."""


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", type=OUTPUT, required=True, help="The picture.")
@click.option("--photos", default=11, show_default=True, help="How many of each kind.")
@click.option("--only", default="CCP,car208", show_default=True, help="Photos whose names start with one of these.")
@click.option("--seed", default=0, show_default=True, help="Of coarse masks that are made.")
def main(data: Path, output: Path, photos: int, only: str, seed: int) -> None:
    """Refine, and draw the median of each kind."""
    refiner = Refiner.from_pretrained()
    subjects = list(_subjects(data, photos, tuple(only.split(",")), seed))
    done = [_refined(refiner, case) for case in track(subjects, "refining", console=Console(stderr=True))]
    columns = []
    for kind, title in TITLES.items():
        found = sorted((one for one in done if one.case.kind == kind), key=lambda one: one.iou[1] - one.iou[0])
        if not found:
            raise click.ClickException(f"{data} has no such photo with a mask of the kind {kind}")
        median = found[len(found) // 2]
        print("\n".join(f"{_line(one)}{'  <- shown' if one is median else ''}" for one in found))
        columns.append(_column(title, median))
    gap = np.full((len(columns[0]), GAP, 3), 255, np.uint8)
    joined = [part for column in columns for part in (column, gap)][:-1]
    Image.fromarray(np.concatenate(joined, axis=1)).save(output, quality=85, optimize=True)
    print(output)


def _subjects(data: Path, count: int, prefixes: tuple[str, ...], seed: int) -> Iterator[Case]:
    """Cases of every kind."""
    photos = [photo for photo in find_photos(data) if photo.name.startswith(prefixes)]
    for kind in (REAL, STRONG):
        given = [photo for photo in photos if kind == STRONG or _has_weak(photo)]
        yield from cases(chosen(given, count), [kind], seed)
    source = open_folder(data)
    backgrounds = replace(source, photos=tuple(photos))
    for structure in thin_kinds.structures(backgrounds, count, seed):
        image, truth = structure.read()
        yield Case(structure.name, "thin", image, thin_kinds.make("thin", structure.name, image, truth, seed), truth)
    for case in cases(chosen(photos, count), ["perfect"], seed):
        coarse = street.make_map(MAP, case.name, case.truth.astype(np.uint8), seed)
        yield replace(case, kind=MAP, coarse=coarse == 1)


def _has_weak(photo: PhotoFiles) -> bool:
    """Whether the first of a photo's coarse masks is a weak network's."""
    return photo.coarse is not None and photo.coarse.parent.name != STRONG_FOLDER


def _refined(refiner: Refiner, case: Case) -> RefinedCase:
    if case.kind == MAP:
        mask = refine_labels(refiner, case.image, case.coarse.astype(np.uint8), ignore=[]).labels == 1
    else:
        mask = refiner(case.image, case.coarse).mask
    return RefinedCase.of(case, mask)


def _line(one: RefinedCase) -> str:
    """In columns, with both decimals that tell such cases apart."""
    figures = (f"{name} {a:6.2f} to {b:6.2f}" for name, (a, b) in (("IoU", one.iou), ("mBA", one.mba)))
    return f"{one.case.kind:9} {one.case.name:14} {', '.join(figures)}"


def _column(title: str, shown: RefinedCase) -> Photo:
    """A title, then the coarse and the refined mask above each other, with their figures."""
    case = shown.case
    rows, columns = _window(case.coarse ^ case.truth, case.truth | case.coarse)
    column = Image.new("RGB", (PANEL, 3 * LINE + 2 * PANEL + GAP), "white")
    draw, font = ImageDraw.Draw(column), ImageFont.load_default(size=15)
    draw.text((1, 0), title, fill="black", font=font)
    for index, (mask, colour, name) in enumerate(
        ((case.coarse, COARSE_COLOUR, "given"), (shown.mask, REFINED_COLOUR, "refined"))
    ):
        top = LINE + index * (PANEL + LINE + GAP)
        panel = _painted(case.image[rows, columns], mask[rows, columns], colour)
        column.paste(Image.fromarray(panel), (0, top))
        figures = f"{name}: IoU {shown.iou[index]:.1f}, mBA {shown.mba[index]:.1f}"
        if name == "refined" and np.array_equal(shown.mask, case.coarse):
            figures = "refined: unchanged"
        draw.text((1, top + PANEL), figures, fill="black", font=font)
    return np.asarray(column)


def _window(wrong: Mask, about: Mask) -> tuple[slice, slice]:
    """Rows and columns of a square with the most wrong pixels, half as long as the object."""
    spans = [np.flatnonzero(about.any(axis=axis)) for axis in (1, 0)]
    side = min(*wrong.shape, max(64, round(_SHOWN * max(int(np.ptp(span)) for span in spans))))
    # Means of squares that lie inside the photo, by their upper left corners.
    inside = ndimage.uniform_filter(wrong.astype(np.float64), side, origin=-(side // 2), mode="constant")
    inside = inside[: wrong.shape[0] - side + 1, : wrong.shape[1] - side + 1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return slice(int(y), int(y) + side), slice(int(x), int(x) + side)


def _painted(photo: Photo, mask: Mask, colour: tuple[int, int, int]) -> Photo:
    """The photo, darker outside of the mask, with a line of two pixels around the mask, so that thin parts are seen."""
    size = (PANEL, PANEL)
    picture = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    picture[~inside] *= 0.5
    picture[ndimage.binary_dilation(inside, iterations=2) & ~inside] = colour
    return picture.astype(np.uint8)


if __name__ == "__main__":
    main()
