"""Training folders of composites: cut-outs and procedural thin structures on photos, each drawn by seed and number."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ...errors import ImageError, InputError
from ...imaging.codecs.pictures import Given, decode, describe
from ...imaging.files import atomic_write, write_png
from ...imaging.listing import SUFFIXES
from ...imaging.reading import MAX_PIXELS
from ..settings_record import begin_folder
from ..sources import Source
from ..worker_pool import in_processes
from .layers import (
    Colours,
    Layer,
    blend,
    cast_shadow,
    check_cutout,
    crop_background,
    develop,
    edge_blur,
    match_light,
    match_sharpness,
    paint_structure,
    place_cutout,
    soften,
    visible,
)
from .thin_structures import KINDS, SMALLEST, draw_structure

CUTOUT, THIN = "cutout", "thin"
"""How the names of composites begin."""

SHAPES = ((4, 3), (3, 4), (1, 1), (3, 2), (2, 3), (16, 9))
_TONES = {"leaves": "plant", "branches": "wood", "vessels": "tint"}
_BEFORE_OBJECTS = ("branches", "fences", "leaves", "wires")
_LEAST_VISIBLE, _LEAST_PIXELS = 0.35, 150
_ATTEMPTS = 8
_CALM_CROPS = 4
_MOST_BLUR, _MOST_BLUR_OF_THIN = 1.4, 0.6
"""In pixels; more would dissolve legs, and lines of one pixel."""


@dataclass(frozen=True)
class Materials:
    """What composites are made of.

    Attributes:
        photos: Backgrounds; what their masks show is not asked for.
        cutouts: Files with alpha; without any, thin structures are drawn.
        size: Long side of the composites in pixels.
        seed: Seed of every draw, together with the composite's number.
    """

    photos: Source
    cutouts: tuple[Path, ...]
    size: int = 480
    seed: int = 0

    @property
    def prefix(self) -> str:
        """How names begin."""
        return CUTOUT if self.cutouts else THIN

    def name(self, index: int) -> str:
        """The name of a composite; names of thin structures end in their kind."""
        return f"{CUTOUT}_{index:06d}" if self.cutouts else f"{THIN}_{index:06d}_{KINDS[index % len(KINDS)]}"


def find_cutouts(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder, sorted by name. Raises `InputError` where there are none, or one has no alpha."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of cut-outs: expected pictures with alpha, such as PNG or WebP")
    found = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))
    if not found:
        raise InputError(f"{folder} holds no cut-out: expected files that end in {', '.join(SUFFIXES)}")
    for path in found:
        read_cutout(path)
    return found


def read_cutout(path: Path) -> NDArray[np.uint8]:
    """A cut-out, `(H, W, 4)` uint8, RGBA. Raises `InputError` where it cannot be read or shows no object's outline."""
    given = Given(describe("cut-out", path), ImageError)

    raster = decode(path, given, MAX_PIXELS)
    colours, alpha = raster.colours(), raster.alpha
    if raster.palette is not None:
        alpha = np.pad(raster.palette[:, 3], (0, 256 - len(raster.palette)))[raster.values]
    if colours.dtype != np.uint8:
        raise given.refuse("has more than eight bits a channel, expected eight; convert it")
    if colours.ndim == 2:
        colours = np.repeat(colours[..., None], 3, axis=2)
    pixels = colours if alpha is None else np.dstack([colours, alpha])
    check_cutout(pixels, given.name)
    return pixels


def make_composite(materials: Materials, index: int) -> tuple[bytes, NDArray[np.bool_]]:
    """One composite.

    Args:
        materials: Backgrounds, cut-outs and seed.
        index: Number of the composite, from 0; the same number gives the same composite.

    Returns:
        The JPEG file, and the exact mask `(H, W)` bool, not empty.

    Raises:
        InputError: A photo or a cut-out cannot be read.
    """
    # The prefix's length tells the draws of cut-outs from those of thin structures.
    random = default_rng([materials.seed, len(materials.prefix), index])
    wide, tall = SHAPES[random.integers(len(SHAPES))]
    height, width = (round(side * materials.size / max(wide, tall)) for side in (tall, wide))
    draw = _cutout_scene if materials.cutouts else _thin_scene
    background, layers, wanted = draw(materials, index, height, width, random)
    for layer in layers:
        if random.random() < 0.2:
            background = cast_shadow(background, layer, random)
    image = blend(background, layers, linear=random.random() < 0.5)
    truth = visible(layers, wanted)
    if not truth.any():
        raise InputError(f"{materials.name(index)} would show nothing: expected cut-outs of more than a few pixels")
    return develop(image, random), truth


Scene = tuple[Colours, Sequence[Layer], int]


def _cutout_scene(materials: Materials, index: int, height: int, width: int, random: Generator) -> Scene:
    """One cut-out that is asked for, now and then with another object before or behind it."""
    files = materials.cutouts
    background = crop_background(_photo(materials, random), height, width, random)
    which = int(default_rng([materials.seed, index // len(files)]).permutation(len(files))[index % len(files)])
    cutout = read_cutout(files[which])
    sharpness = min(edge_blur(background), _MOST_BLUR)
    if random.random() < 0.15:  # A shallow depth of field: only the object is in focus.
        background = soften(background, random.uniform(0.8, 3))
    wanted = place_cutout(cutout, height, width, random)

    def another(centre: tuple[float, float] | None) -> Layer:
        other = cutout if random.random() < 0.3 else read_cutout(files[random.integers(len(files))])
        placed = place_cutout(other, height, width, random, centre=centre, extent=(0.15, 0.7))
        return match_sharpness(match_light(placed, background, random), background, random, blur=sharpness)

    behind = [another(_near_contour(wanted, random))] if random.random() < 0.2 else []
    matched = match_sharpness(match_light(wanted, background, random), background, random, blur=sharpness)
    if random.random() < 0.35:
        for _ in range(_ATTEMPTS):
            if random.random() < 0.7:
                front = another(_near_contour(wanted, random))
            else:
                kind = str(random.choice(_BEFORE_OBJECTS))
                below = blend(background, [*behind, matched])
                coverage = draw_structure(kind, height, width, random)
                painted = paint_structure(coverage, below, random, tone=_TONES.get(kind, "any"))
                front = match_sharpness(painted, background, random, blur=min(sharpness, _MOST_BLUR_OF_THIN))
            layers = [*behind, matched, front]
            if _enough(layers, len(behind)):
                return background, layers, len(behind)
    return background, [*behind, matched], len(behind)


def _thin_scene(materials: Materials, index: int, height: int, width: int, random: Generator) -> Scene:
    """Thin structures of the kind whose turn it is, now and then partly hidden by leaves or branches."""
    kind = KINDS[index % len(KINDS)]
    photo = _photo(materials, random)
    crops = [crop_background(photo, height, width, random) for _ in range(_CALM_CROPS if random.random() < 0.7 else 1)]
    background = min(crops, key=lambda crop: float(np.abs(np.diff(crop, axis=0)).mean()))
    if kind == "vessels" and random.random() < 0.6:  # Tissue has no sharp edges but those of its vessels.
        tissue = np.array([1.0, random.uniform(0.4, 1), random.uniform(0.25, 1)], np.float32)
        background = soften(background, random.uniform(6, 20)) * 0.6 * tissue + 0.2 * tissue
    elif random.random() < 0.15:
        background = soften(background, random.uniform(0.8, 3))
    texture = crop_background(_photo(materials, random), height, width, random)
    coverage = draw_structure(kind, height, width, random)
    painted = paint_structure(coverage, background, random, tone=_TONES.get(kind, "any"), texture=texture)
    sharpness = min(edge_blur(background), _MOST_BLUR_OF_THIN)
    wanted = match_sharpness(painted, background, random, blur=sharpness)
    if random.random() < 0.2:
        for _ in range(_ATTEMPTS):
            front_kind = str(random.choice(["leaves", "branches"]))
            below = blend(background, [wanted])
            painted = paint_structure(
                draw_structure(front_kind, height, width, random), below, random, tone=_TONES[front_kind]
            )
            layers = [wanted, match_sharpness(painted, background, random, blur=sharpness)]
            if _enough(layers, 0):
                return background, layers, 0
    return background, [wanted], 0


def _photo(materials: Materials, random: Generator) -> NDArray[np.uint8]:
    return materials.photos.read(int(random.integers(len(materials.photos)))).image


def _near_contour(layer: Layer, random: Generator) -> tuple[float, float] | None:
    """A point `(x, y)` near an object's contour, where another object hides a part of it."""
    rows, columns = np.nonzero((layer.coverage > 0.02) & (layer.coverage < 0.98))
    if not len(rows):
        return None
    which = random.integers(len(rows))
    return float(columns[which]), float(rows[which])


def _enough(layers: Sequence[Layer], wanted: int) -> bool:
    """Whether what is asked for is still to be seen."""
    shown, whole = int(visible(layers, wanted).sum()), int((layers[wanted].coverage >= 0.5).sum())
    return shown >= max(_LEAST_PIXELS, _LEAST_VISIBLE * whole)


def write_composites(
    materials: Materials,
    folder: Path,
    *,
    count: int,
    workers: int = 2,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[int, list[tuple[int, str]]]:
    """Writes `images/NAME.jpg` and `masks/NAME.png` of every composite that is not there yet.

    Args:
        materials: Backgrounds, cut-outs and seed.
        folder: Folder of the composites; a file in it keeps seed and size, so that it never holds two kinds of draws.
        count: How many composites the folder shall hold.
        workers: Processes; 0 works in this one.
        progress: Wraps the iteration over the results.

    Returns:
        How many were written, and the numbers of those that could not be made with the reasons.

    Raises:
        InputError: The size is too small, or the folder holds composites of other settings.
        OutputError: A file cannot be written; those before it stay.
    """
    if materials.size < 2 * SMALLEST:
        raise InputError(f"the size is {materials.size}, expected at least {2 * SMALLEST} pixels")
    settings = {
        "seed": materials.seed,
        "size": materials.size,
        "photos": len(materials.photos),
        "cutouts": len(materials.cutouts),
    }
    begin_folder(folder, f"{materials.prefix}.json", settings, "composites", ("images", "masks"))
    written, failures = 0, []
    for index, outcome in progress(in_processes(partial(_write_one, materials, folder), range(count), workers)):
        written += outcome is True
        if isinstance(outcome, str):
            failures.append((index, outcome))
    return written, failures


def _write_one(materials: Materials, folder: Path, index: int) -> tuple[int, bool | str]:
    """Whether a composite was written (it may be there), or why it could not be made."""
    name = materials.name(index)
    image, mask = folder / "images" / f"{name}.jpg", folder / "masks" / f"{name}.png"
    if image.is_file() and mask.is_file():
        return index, False
    try:
        picture, truth = make_composite(materials, index)
    except InputError as error:
        return index, str(error)
    atomic_write(image, lambda file: file.write(picture))
    write_png(mask, truth)
    return index, True
