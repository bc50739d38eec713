"""Quality of the masks of a data folder before and after refinement.

    python -m benchmarks.quality.before_after DATA [--coarse coarse_deeplab] [--steps N] [--model …] [--masks FOLDER]
    [--align]

DATA has images/, masks/ (the truth) and a folder of coarse masks; `--coarse masks` refines the truth itself.
Prints mean IoU and mBA over the photos that have a coarse mask, and the share of masks that
lost over half an IoU point.
"""

import csv
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.common.cases import offsets_of, photo_and_truth
from benchmarks.common.tables import HARMED
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.imaging.reading import read_mask


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--coarse", default="coarse_deeplab", show_default=True, help="Folder of coarse masks below DATA.")
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--dtype", default="auto", show_default=True)
@click.option("--steps", type=click.IntRange(1, 6), help="Diffusion steps.  [default: what suits the model best]")
@click.option("--every", default=1, show_default=True, help="Take every n-th photo only.")
@click.option("--rows", type=click.Path(path_type=Path), help="CSV of every photo's figures.")
@click.option("--masks", type=click.Path(path_type=Path), help="Folder for the refined masks, for `evaluate`.")
@click.option("--align", is_flag=True, help="Take away what the true masks of a data set are off by.")
def main(
    data: Path,
    coarse: str,
    model: str | None,
    dtype: str,
    steps: int | None,
    every: int,
    rows: Path | None,
    masks: Path | None,
    align: bool,
) -> None:
    """Refine every coarse mask of DATA and compare with the truth."""
    refiner = Refiner.from_pretrained(model, dtype=dtype)
    table, names, offsets = [], [], offsets_of(data, align)
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    for photo in find_photos(data)[::every]:
        path = data / coarse / f"{photo.name}.png"
        if not path.exists():
            continue
        image, truth = photo_and_truth(photo, offsets)
        given = truth if path == photo.mask else read_mask(path)
        refined = refiner(image, given, steps=steps).mask
        if masks is not None:
            Image.fromarray(refined).save(masks / f"{photo.name}.png")
        names.append(photo.name)
        table.append([iou(given, truth), iou(refined, truth), mba(given, truth), mba(refined, truth)])
    seconds = time.perf_counter() - started
    figures = 100 * np.array(table)
    before, after, mba_before, mba_after = figures.mean(axis=0)
    harmed = 100 * np.mean(figures[:, 1] < figures[:, 0] - 100 * HARMED)
    run = f"model {refiner.name}, steps {steps or refiner.steps}, {seconds:.0f} s in all"
    print(f"{len(figures)} masks of {data / coarse}, {run}")
    print(f"IoU {before:.2f} -> {after:.2f} ({after - before:+.2f})")
    print(f"mBA {mba_before:.2f} -> {mba_after:.2f} ({mba_after - mba_before:+.2f})")
    print(f"lost over half an IoU point: {harmed:.1f} %")
    if rows is not None:
        with rows.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "iou_before", "iou_after", "mba_before", "mba_after"])
            writer.writerows([name, *(f"{v:.3f}" for v in row)] for name, row in zip(names, figures, strict=True))


if __name__ == "__main__":
    main()
