"""Label maps of street scenes before and after `refine_labels`, by the measures of semantic and panoptic segmentation.

    python -m benchmarks.quality.label_maps STREET [--scenes 12] [--kinds ...] [--model ...] [--pictures DIR]

STREET has images/ and labels/ with CamVid's eleven classes (`common/street.py`). Printed, for each kind of coarse map:
mIoU and the class that loses most; the share of right pixels within three of a border of the truth; panoptic quality
(Kirillov et al., arXiv 1801.00868), where each connected part of a car, pedestrian or bicyclist is a segment, and
each other class of a scene is one; and seconds for each frame. With `--pictures` each frame is drawn with its errors
before and after.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.common.options import names_of
from benchmarks.common.street import CLASSES, KINDS, THINGS, VOID, Labels, MapFiles, find_maps, make_map, parts
from benchmarks.common.tables import aligned
from segrefiner import Refiner, SegRefinerError, refine_labels

_BAND = 3
"""Pixels from a border of the truth within which its accuracy is measured."""

_LEAST = 25
"""Pixels below which a connected part is no segment."""


@dataclass
class Scores:
    """Sums over the scenes of one kind of map."""

    both: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    either: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    right: int = 0
    near: int = 0
    matched: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(CLASSES)))
    segments: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(CLASSES)))
    seconds: list[float] = field(default_factory=list)

    def add(self, labels: Labels, truth: Labels) -> None:
        """Counts one scene."""
        scored = truth != VOID
        for label in range(len(CLASSES)):
            found, true = (labels == label) & scored, truth == label
            self.both[label] += int(np.count_nonzero(found & true))
            self.either[label] += int(np.count_nonzero(found | true))
            ious = matched_ious(segments_of(found, label), segments_of(true, label))
            self.matched[label] += sum(ious)
            counts = len(segments_of(found, label)) + len(segments_of(true, label))
            self.segments[label] += counts / 2  # Those found, half of those missed and half of the false ones.
        band = near_border(truth) & scored
        self.right += int(np.count_nonzero((labels == truth) & band))
        self.near += int(np.count_nonzero(band))

    @property
    def ious(self) -> NDArray[np.float64]:
        """IoU of each class over all scenes, in percent; NaN for one that no scene shows."""
        return 100 * _ratio(self.both, self.either)

    @property
    def panoptic_quality(self) -> float:
        """The mean over classes, in percent."""
        return float(100 * np.nanmean(_ratio(self.matched, self.segments)))

    @property
    def border_accuracy(self) -> float:
        """In percent."""
        return 100 * self.right / self.near


def _ratio(above: NDArray[np.generic], below: NDArray[np.generic]) -> NDArray[np.float64]:
    numbers = below.astype(np.float64)
    return np.divide(above, numbers, out=np.full(len(numbers), np.nan), where=numbers > 0)


def segments_of(mask: NDArray[np.bool_], label: int) -> list[NDArray[np.bool_]]:
    """The segments of a class: its connected parts where it is of things, else all of it."""
    if label in THINGS:
        return parts(mask, _LEAST)
    return [mask] if mask.any() else []


def matched_ious(found: list[NDArray[np.bool_]], true: list[NDArray[np.bool_]]) -> list[float]:
    """The IoUs over one half, of which a segment can have one at most."""
    ious = [np.count_nonzero(a & b) / np.count_nonzero(a | b) for a in found for b in true]
    return [iou for iou in ious if iou > 0.5]


def near_border(labels: Labels) -> NDArray[np.bool_]:
    """Pixels within `_BAND` of a pixel with another label."""
    differ = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    differ[1:] |= down
    differ[:-1] |= down
    differ[:, 1:] |= right
    differ[:, :-1] |= right
    square = np.ones((2 * _BAND - 1,) * 2, bool)
    grown: NDArray[np.bool_] = ndimage.binary_dilation(differ, square)
    return grown


def picture(photo: NDArray[np.uint8], truth: Labels, maps: list[Labels]) -> Image.Image:
    """The photo, then each map's errors on it: red where a pixel is wrong."""
    rows = [photo]
    for labels in maps:
        shown = photo // 2
        shown[(labels != truth) & (truth != VOID)] = (255, 40, 40)
        rows.append(shown)
    return Image.fromarray(np.concatenate(rows, axis=1))


def measure(
    refiner: Refiner, scenes: list[MapFiles], kind: str, seed: int, pictures: Path | None
) -> tuple[Scores, Scores]:
    """The scores of the coarse and of the refined maps of a kind."""
    before, after = Scores(), Scores()
    for scene in scenes:
        photo, truth = scene.read()
        coarse = make_map(kind, scene.name, truth, seed)
        started = time.perf_counter()
        refined = refine_labels(refiner, photo, coarse, ignore=[VOID], seed=seed).labels.astype(np.uint8)
        after.seconds.append(time.perf_counter() - started)
        before.add(coarse, truth)
        after.add(refined, truth)
        if pictures:
            picture(photo, truth, [coarse, refined]).save(pictures / f"{kind}_{scene.name}.png")
    return before, after


def table(found: dict[str, tuple[Scores, Scores]]) -> str:
    """Kinds down."""
    lines = [["kind", "mIoU", "gain", "loses most", "border", "gain", "PQ", "gain", "s a frame"]]
    for kind, (before, after) in found.items():
        gains = after.ious - before.ious
        worst = int(np.nanargmin(gains))
        changes = (
            (float(np.nanmean(before.ious)), float(np.nanmean(after.ious))),
            (before.border_accuracy, after.border_accuracy),
            (before.panoptic_quality, after.panoptic_quality),
        )
        cells = [cell for old, new in changes for cell in (f"{old:.2f}", f"{new - old:+.2f}")]
        cells.insert(2, f"{CLASSES[worst]} {gains[worst]:+.2f}")
        lines.append([kind, *cells, f"{np.median(after.seconds):.2f}"])
    by_class = [["class", *found]]
    for label, name in enumerate(CLASSES):
        cells = [f"{b.ious[label]:.2f} {a.ious[label] - b.ious[label]:+.2f}" for b, a in found.values()]
        by_class.append([name, *cells])
    return f"{aligned(lines)}\n\n{aligned(by_class)}"


@click.command()
@click.argument("street", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--scenes", default=12, show_default=True, help="How many, evenly spread; 0 for all.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, callback=names_of(KINDS))
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Draw each frame into this folder.")
def main(street: Path, scenes: int, kinds: list[str], model: str | None, seed: int, pictures: Path | None) -> None:
    """Refine coarse label maps of street scenes, and compare with the truth."""
    try:
        refiner, maps = Refiner.from_pretrained(model), find_maps(street)
        if scenes:
            places = np.linspace(0, len(maps) - 1, min(scenes, len(maps))).round().astype(int)
            maps = [maps[place] for place in places]
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
        found: dict[str, tuple[Scores, Scores]] = {}
        for kind in kinds:
            found[kind] = measure(refiner, maps, kind, seed, pictures)
    except SegRefinerError as error:
        raise click.ClickException(str(error)) from error
    print(table(found))


if __name__ == "__main__":
    main()
