"""How small objects fare: held-out photos shrunk until their objects are so many pixels long.

    python -m benchmarks.quality.small_objects DATA [--sides 12,16,24,32,48,64] [--every 3]

DATA as for `quality/methods.py`. Around a shrunk photo its mirror image is drawn, so that an object has surroundings as
in a large photo. Coarse masks are shrunk ones of a network, and those of `common/coarse_kinds.py` made at the small
size.
"""

import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common.coarse_kinds import make
from benchmarks.common.tables import HARMED, aligned
from segrefiner import Refiner
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.imaging.reading import read_image, read_mask

KINDS = ("real", "polygon", "eroded", "dilated", "shifted", "missing", "perfect")
_SURROUNDINGS = 64


def shrunk(
    image: NDArray[np.uint8], masks: list[NDArray[np.bool_]], side: int
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Photo and masks, the first mask `side` pixels long, in their mirrored surroundings."""
    spans = [np.flatnonzero(masks[0].any(axis=axis)) for axis in (0, 1)]
    factor = side / max(span[-1] + 1 - span[0] for span in spans)
    size = max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor))
    around = max(_SURROUNDINGS, side)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    shares = [np.asarray(Image.fromarray(m.astype(np.float32)).resize(size, Image.Resampling.BOX)) for m in masks]
    return (
        np.pad(small, ((around, around), (around, around), (0, 0)), mode="symmetric"),
        [np.pad(share >= 0.5, around) for share in shares],
    )


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--sides", default="12,16,24,32,48,64", show_default=True, help="Lengths of the objects, in pixels.")
@click.option("--every", default=3, show_default=True, help="Take every so many photos.")
def main(data: Path, sides: str, every: int) -> None:
    """Print a table of gains, IoU / mBA, by size and kind."""
    refiner = Refiner.from_pretrained()
    lines = [["pixels", *KINDS, "harmed", "ms per mask"]]
    for side in map(int, sides.split(",")):
        gains: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        seconds = 0.0
        for path in sorted((data / "coarse_deeplab").glob("*.png"))[::every]:
            image, found = shrunk(
                read_image(data / "images" / f"{path.stem}.jpg"),
                [read_mask(data / "masks" / path.name), read_mask(path)],
                side,
            )
            truth, real = found
            coarse = {k: real if k == "real" else make(k, path.stem, image, truth, 0) for k in KINDS}
            coarse = {kind: mask for kind, mask in coarse.items() if truth.any() and mask.any()}
            started = time.perf_counter()
            results = list(refiner.many((image, mask) for mask in coarse.values()))
            seconds += time.perf_counter() - started
            for (kind, mask), result in zip(coarse.items(), results, strict=True):
                gain = [100 * (score(result.mask, truth) - score(mask, truth)) for score in (iou, mba)]
                gains[kind].append((gain[0], gain[1]))
        every_one = [gain for some in gains.values() for gain in some]
        means = [np.mean(some, axis=0) for some in gains.values()]
        harmed = 100 * np.mean([gain < -100 * HARMED for gain, _ in every_one])
        cells = [f"{mean[0]:+.1f} / {mean[1]:+.1f}" for mean in means]
        lines.append([f"{side}", *cells, f"{harmed:.1f} %", f"{1e3 * seconds / len(every_one):.0f}"])
        print(aligned([lines[0], lines[-1]]), flush=True)
    print("\n" + aligned(lines))


if __name__ == "__main__":
    main()
