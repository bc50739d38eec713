"""What batches that several masks share change in the results, and what it costs to have none.

    python -m benchmarks.cost.batches DATA [--masks 200] [--group 8] [--dtype auto] [--longest 96]

DATA has images/ and coarse masks in coarse_SOMETHING/. The masks go, a group at a time, through a refiner that shares
batches among them, through one that does not, and one by one; the order of the three changes from group to group.
Printed are the differences of the first two from the masks one by one, and what each takes as a multiple of the first.
CPU seconds are steadier where other programs run; work that one thread does while others wait counts less in them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.common.tables import aligned
from segrefiner import Refiner, Result
from segrefiner.imaging.reading import read_image, read_mask

Pair = tuple[np.ndarray, np.ndarray]


def pairs(data: Path, longest: int | None) -> Iterator[Pair]:
    for folder in sorted(data.glob("coarse_*")):
        for path in sorted(folder.glob("*.png")):
            for photo in (data / "images").glob(f"{path.stem}.*"):
                picture, mask = (Image.fromarray(a) for a in (read_image(photo), read_mask(path)))
                if longest is not None:
                    size = [round(side * longest / max(picture.size)) for side in picture.size]
                    picture, mask = picture.resize(size), mask.resize(size)
                yield np.asarray(picture), np.asarray(mask)


@dataclass
class Tally:
    """Of one way: wall and CPU seconds, masks that differ, the largest difference, and pixels of another label."""

    seconds: np.ndarray = field(default_factory=lambda: np.zeros(2))
    masks: int = 0
    difference: float = 0.0
    pixels: int = 0

    def compare(self, results: list[Result], alone: list[Result]) -> None:
        """Adds what these results differ by from those of the masks one by one."""
        for one, other in zip(results, alone, strict=True):
            difference = float(np.abs(one.probability - other.probability).max())
            self.masks += difference > 0
            self.difference = max(self.difference, difference)
            self.pixels += int((one.mask != other.mask).sum())


def timed(refine: Callable[[list[Pair]], list[Result]], given: list[Pair]) -> tuple[list[Result], np.ndarray]:
    wall, cpu = time.perf_counter(), time.process_time()
    results = refine(given)
    return results, np.array([time.perf_counter() - wall, time.process_time() - cpu])


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--masks", default=200, show_default=True, help="How many.")
@click.option("--group", default=8, show_default=True, help="Masks that are refined together.")
@click.option("--dtype", default="auto", show_default=True)
@click.option("--longest", type=int, help="Shrink photos to this many pixels: small objects have one view each.")
def main(data: Path, masks: int, group: int, dtype: str, longest: int | None) -> None:
    """Refine coarse masks of DATA together and alone."""
    shared, invariant = (Refiner.from_pretrained(dtype=dtype, batch_invariant=own) for own in (False, True))
    ways: dict[str, Callable[[list[Pair]], list[Result]]] = {
        "shared batches": lambda given: list(shared.many(given)),
        "one object a batch": lambda given: list(invariant.many(given)),
        "one by one": lambda given: [invariant(*pair) for pair in given],
    }
    tallies = {way: Tally() for way in ways}
    count, pixels, every = 0, 0, islice(pairs(data, longest), masks)
    for number, given in enumerate(iter(lambda: list(islice(every, group)), [])):
        found = {}
        for way in (list(ways) * 2)[number % 3 :][:3]:
            found[way], seconds = timed(ways[way], given)
            if number:  # The first group warms up.
                tallies[way].seconds += seconds
        for way, tally in tallies.items():
            tally.compare(found[way], found["one by one"])
        count, pixels = count + len(given), pixels + sum(mask.size for _, mask in given)
    print(f"{count} masks, {pixels:,} pixels, {str(invariant.dtype).removeprefix('torch.')}, groups of {group}\n")
    head = ["", "masks that differ", "largest difference", "pixels of another label", "x seconds", "x CPU seconds"]
    lines, first = [head], tallies["shared batches"].seconds
    for way, tally in tallies.items():
        differences = [str(tally.masks), f"{tally.difference:.4f}", str(tally.pixels)]
        lines.append([way, *differences, *(f"{ratio:.3f}" for ratio in tally.seconds / first)])
    print(aligned(lines))


if __name__ == "__main__":
    main()
