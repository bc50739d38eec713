"""How the cost of the default model grows: with the masks of one photo, and with its megapixels.

    python -m benchmarks.cost.growth [--megapixels 0.25,1,4,16,100]

Photo and masks are files; decoding is counted, writing is not. Masks are the first of a hundred on one photo: a mask
among many costs its share of one of the same size alone, and of the one object of a photo that has just one and is as
large. The object of growing photos fills the same share of each.
"""

import tempfile
import time
from pathlib import Path

import click
from PIL import Image

from benchmarks.common.scenes import scene
from benchmarks.common.tables import aligned
from segrefiner import Refiner


def files(folder: Path, megapixels: float, objects: int) -> tuple[Path, list[Path]]:
    """A synthetic photo and its coarse masks, as files."""
    made = scene(megapixels, objects)
    Image.fromarray(made.image).save(folder / "photo.jpg", quality=92)
    paths = [folder / f"mask{i}.png" for i in range(objects)]
    for path, mask in zip(paths, made.coarse, strict=True):
        Image.fromarray(mask).save(path, compress_level=1)
    return folder / "photo.jpg", paths


def seconds(refiner: Refiner, image: Path, masks: list[Path], rounds: int) -> tuple[float, int]:
    """Of the fastest round, and the views that the network saw."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        views = sum(result.report.evaluations for result in refiner.many((image, mask) for mask in masks))
        times.append(time.perf_counter() - started)
    return min(times), views


@click.command()
@click.option("--megapixels", default="0.25,1,4,16,100", show_default=True)
@click.option("--crowd", default=2.0, show_default=True, help="Megapixels of the photo with a hundred objects.")
def main(megapixels: str, crowd: float) -> None:
    """Print two tables."""
    refiner = Refiner.from_pretrained()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        single = files(Path(other), crowd, 1)
        seconds(refiner, *single, 2)  # warm-up
        usual, _ = seconds(refiner, *single, 5)
        image, masks = files(Path(folder), crowd, 100)
        lines, alone = [["masks", "s", "ms per mask", "x one of them alone", "x a photo's one object", "views"]], 0.0
        for count in (1, 3, 10, 30, 100):
            taken, views = seconds(refiner, image, masks[:count], 5 if count < 30 else 2)
            alone = alone or taken
            each = taken / count
            ratios = [f"{each / alone:.2f}", f"{each / usual:.2f}"]
            lines.append([f"{count}", f"{taken:.2f}", f"{1e3 * each:.1f}", *ratios, f"{views}"])
        print(f"A photo's one object: {usual:.2f} s\n\n" + aligned(lines) + "\n")
    lines, first = [["megapixels", "s", "s per megapixel", "x first", "views"]], 0.0
    for size in map(float, megapixels.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            image, masks = files(Path(folder), size, 1)
            taken, views = seconds(refiner, image, masks, 3 if size < 50 else 1)
            first = first or taken / size
            lines.append(
                [f"{size:g}", f"{taken:.2f}", f"{taken / size:.3f}", f"{taken / size / first:.2f}", f"{views}"]
            )
    print(aligned(lines))


if __name__ == "__main__":
    main()
