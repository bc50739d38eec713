"""What it costs that the masks of a photo do not gain at each other's expense.

    python -m benchmarks.cost.instances [--masks 100] [--megapixels 2]

Touching discs of one photo are refined in turns as they are and separated. Printed are the processor's seconds of both,
the ratio, and the pixels that two masks have though no two coarse masks had them.
"""

import statistics
import time

import click
import numpy as np

from benchmarks.common.tables import aligned
from segrefiner import Refiner


def touching_discs(count: int, megapixels: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """A photo `(H, W, 3)` uint8 of discs of random colours in a square grid, and their masks, which miss a rim."""
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(count)))
    cell = int(np.sqrt(megapixels * 1e6)) // across
    rows, columns = np.ogrid[: cell * across, : cell * across]
    photo = np.full((cell * across, cell * across, 3), 90, np.uint8)
    masks = []
    for index in range(count):
        y, x = ((place + 0.5) * cell for place in divmod(index, across))
        distance = np.hypot(rows - y, columns - x)
        photo[distance < cell / 2] = rng.integers(0, 256, 3)
        masks.append(distance < 0.42 * cell)
    noise = rng.normal(0, 6, photo.shape)
    return (photo + noise).clip(0, 255).astype(np.uint8), masks


@click.command()
@click.option("--masks", "count", default=100, show_default=True)
@click.option("--megapixels", default=2.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(count: int, megapixels: float, rounds: int) -> None:
    """Print a table."""
    refiner = Refiner.from_pretrained()
    photo, masks = touching_discs(count, megapixels)
    next(iter(refiner.many([(photo, masks[0])])))  # warm-up
    seconds: dict[bool, list[float]] = {False: [], True: []}
    contested = {}
    for _ in range(rounds):
        for separate, times in seconds.items():
            started = time.process_time()
            taken = np.zeros(photo.shape[:2], np.int32)
            for result in refiner.instances(photo, masks, separate=separate):
                taken += result.mask
            times.append(time.process_time() - started)
            contested[separate] = int(np.count_nonzero(taken > 1))
    usual = statistics.median(seconds[False])
    lines = [["masks", "s", "x as they are", "pixels of two masks"]]
    for separate, name in ((False, "as they are"), (True, "separated")):
        taken_s = statistics.median(seconds[separate])
        lines.append([name, f"{taken_s:.2f}", f"{taken_s / usual:.3f}", f"{contested[separate]}"])
    print(aligned(lines))


if __name__ == "__main__":
    main()
