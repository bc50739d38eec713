"""Whether the network knows what it knows: its probabilities, and the gain that they predict, against the truth.

    python -m benchmarks.quality.calibration DATA [--photos 60] [--kinds real,…] [--plot calibration.svg]

DATA as for `quality/methods.py`. The answers are taken with contours drawn to edges, before anything is held back.
Printed are two tables: pixels near a contour by the probability that they got, with the share of them that the truth
has set; and masks by the gain in IoU that was predicted for them, with the gain that they had.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.common.cases import cases, chosen
from benchmarks.common.coarse_kinds import EVERY_KIND
from benchmarks.common.options import OUTPUT, names_of
from benchmarks.common.plots import panels
from benchmarks.common.tables import HARMED
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos
from segrefiner.evaluation.metrics import iou
from segrefiner.imaging.shapes.distances import contour_distance
from segrefiner.refinement.pipelines.coarse_to_fine import refine_masks
from segrefiner.refinement.pipelines.config import AcceptanceConfig, PipelineConfig

UNRESTRAINED = PipelineConfig(acceptance=AcceptanceConfig(keep_iou=0.0, trust=0.0, least_gain=-1.0))
NEAR = 10
"""Pixels this near to the coarse or the refined contour count; farther away nearly all are certain and right."""
PROBABILITIES = np.linspace(0, 1, 11)
GAINS = (-100.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 100.0)


def reliability(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Means per bin, and the expected calibration error.

    Args:
        counts: `(3, bins)`: pixels, the sum of their probabilities, how many of them the truth has set.

    Returns:
        `(2, bins)` the mean probability and the share that is set, NaN for an empty bin; and the mean over pixels of
        the distance between the two.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        means = counts[1:] / counts[0]
    return means, float(np.nansum(np.abs(means[0] - means[1]) * counts[0]) / counts[0].sum())


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--photos", default=60, show_default=True, help="How many, evenly spread; 0 for all.")
@click.option("--kinds", default="real,polygon,low-8,low-16,shifted,missing,perfect", show_default=True,
              callback=names_of(EVERY_KIND))  # fmt: skip
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
@click.option("--plot", type=OUTPUT, help="SVG of both.")
def main(data: Path, photos: int, kinds: list[str], model: str | None, seed: int, plot: Path | None) -> None:
    """Compare what the network believes with the truth."""
    refiner = Refiner.from_pretrained(model)
    refiner.pipeline = partial(refine_masks, config=UNRESTRAINED)
    counts = np.zeros((3, len(PROBABILITIES) - 1))
    gains = []
    console = Console(stderr=True)
    for photo in track(chosen(find_photos(data), photos), "refining", console=console):
        for case in cases([photo], kinds, seed):
            result = refiner(case.image, case.coarse, seed=seed)
            gains.append((result.report.predicted_gain, iou(result.mask, case.truth) - iou(case.coarse, case.truth)))
            near = _near(case.coarse) | _near(result.mask)
            probability, truth = result.probability[near], case.truth[near]
            which = np.clip(np.digitize(probability, PROBABILITIES) - 1, 0, counts.shape[1] - 1)
            for row, weights in enumerate((None, probability, truth)):
                counts[row] += np.bincount(which, weights, minlength=counts.shape[1])
    means, error = reliability(counts)
    table = 100 * np.array(gains)
    print(f"{len(table)} masks of {data}, model {refiner.name}, {refiner.steps} steps, kinds {', '.join(kinds)}\n")
    _print_pixels(means, counts[0], error)
    _print_gains(table)
    if plot is not None:
        _draw(plot, means, counts[0], table)
        print(f"\n{plot}")


def _print_pixels(means: NDArray[np.float64], pixels: NDArray[np.float64], error: float) -> None:
    print("| probability | pixels, % | mean probability | share set |\n| --- | --: | --: | --: |")
    for (low, high), (mean, share), count in zip(pairwise(PROBABILITIES), means.T, pixels, strict=True):
        print(f"| {low:.1f} to {high:.1f} | {100 * count / pixels.sum():.1f} | {mean:.3f} | {share:.3f} |")
    print(f"\nexpected calibration error {error:.3f}, within {NEAR} pixels of a contour\n")


def _print_gains(gains: NDArray[np.float64]) -> None:
    print("| predicted gain | masks | mean predicted | mean actual | harmed, % |\n| --- | --: | --: | --: | --: |")
    for low, high in pairwise(GAINS):
        part = gains[(gains[:, 0] >= low) & (gains[:, 0] < high)]
        if not len(part):
            continue
        span = f"below {high:g}" if low == GAINS[0] else f"{low:g} to {high:g}"
        harmed = 100 * np.mean(part[:, 1] < -100 * HARMED)
        print(f"| {span} | {len(part)} | {part[:, 0].mean():+.2f} | {part[:, 1].mean():+.2f} | {harmed:.0f} |")
    with np.errstate(invalid="ignore", divide="ignore"):  # Of gains that are all the same there is none.
        correlation = np.corrcoef(gains.T)[0, 1] if len(gains) > 1 else np.nan
    print(f"\nin points of IoU; correlation {correlation:.2f}")


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    given = torch.from_numpy(np.ascontiguousarray(mask))
    if given.all() or not given.any():
        return np.zeros_like(mask)
    distance: NDArray[np.float32] = contour_distance(given, torch.ones_like(given)).numpy()
    return distance <= NEAR


def _draw(path: Path, means: NDArray[np.float64], pixels: NDArray[np.float64], gains: NDArray[np.float64]) -> None:
    with panels(path, 4) as (left, right):
        left.plot([0, 1], [0, 1], color="#999", linewidth=1, label="perfect")
        left.plot(*means, marker="o", color="#1f5fa8", label="measured")
        left.bar(
            (PROBABILITIES[:-1] + PROBABILITIES[1:]) / 2,
            pixels / pixels.sum(),
            0.09,
            color="#ddd",
            label="share of pixels",
        )
        left.set(xlabel="probability", ylabel="share of pixels that the truth has set", title="Pixels near contours")
        left.legend()
        right.axhline(0, color="#999", linewidth=1)
        right.plot([0, gains.max()], [0, gains.max()], color="#999", linewidth=1)
        right.plot(gains[:, 0], gains[:, 1], ".", color="#1f5fa8", markersize=4)
        right.set_xscale("symlog", linthresh=1)
        right.set_yscale("symlog", linthresh=1)
        right.set(xlabel="predicted gain, points of IoU", ylabel="actual gain", title="Masks")


if __name__ == "__main__":
    main()
