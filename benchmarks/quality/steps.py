"""Quality against the number of diffusion steps, for both samplers.

    python -m benchmarks.quality.steps DATA [--photos 60] [--kinds real,…] [--plot steps.svg]

DATA as for `quality/methods.py`. Printed is one line for each number of steps and sampler: mean gains in IoU and mBA
over all masks, the share that lost over half an IoU point, and seconds per mask.
"""

import time
from functools import partial
from pathlib import Path

import click
import numpy as np
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
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.model.diffusion import NUM_TIMESTEPS
from segrefiner.refinement.pipelines.coarse_to_fine import refine_masks
from segrefiner.refinement.pipelines.config import PipelineConfig, Sampler

STEPS = range(1, NUM_TIMESTEPS + 1)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--photos", default=60, show_default=True, help="How many, evenly spread; 0 for all.")
@click.option("--kinds", default="real", show_default=True, callback=names_of(EVERY_KIND))
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
@click.option("--plot", type=OUTPUT, help="SVG of the curves.")
def main(data: Path, photos: int, kinds: list[str], model: str | None, seed: int, plot: Path | None) -> None:
    """Refine with every number of steps and both samplers."""
    refiner = Refiner.from_pretrained(model)
    samplers = list(Sampler)
    rows: dict[tuple[Sampler, int], list[list[float]]] = {(s, n): [] for s in samplers for n in STEPS}
    for photo in track(chosen(find_photos(data), photos), "refining", console=Console(stderr=True)):
        for case in cases([photo], kinds, seed):
            before = iou(case.coarse, case.truth), mba(case.coarse, case.truth)
            for sampler, steps in rows:
                refiner.pipeline = partial(refine_masks, config=PipelineConfig(sampler=sampler))
                started = time.perf_counter()
                mask = refiner(case.image, case.coarse, seed=seed, steps=steps).mask
                seconds = time.perf_counter() - started
                gains = iou(mask, case.truth) - before[0], mba(mask, case.truth) - before[1]
                rows[sampler, steps].append([100 * gains[0], 100 * gains[1], 100.0 * (gains[0] < -HARMED), seconds])
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    masks = len(rows[samplers[0], 1])
    print(f"{masks} masks of {data}, model {refiner.name}, kinds {', '.join(kinds)}\n")
    print("| sampler | steps | IoU | mBA | harmed, % | seconds per mask |\n| --- | --: | --: | --: | --: | --: |")
    for (sampler, steps), (gain, boundary, harmed, seconds) in means.items():
        print(f"| {sampler.value} | {steps} | {gain:+.2f} | {boundary:+.2f} | {harmed:.1f} | {seconds:.2f} |")
    if plot is not None:
        _draw(plot, {s: np.array([means[s, n] for n in STEPS]) for s in samplers})
        print(f"\n{plot}")


def _draw(path: Path, curves: dict[Sampler, NDArray[np.float64]]) -> None:
    with panels(path, 3.5) as axes:
        for column, (panel, title) in enumerate(zip(axes, ("IoU", "mBA"), strict=True)):
            for (sampler, values), style in zip(curves.items(), ("o-", "s--"), strict=True):
                panel.plot(list(STEPS), values[:, column], style, label=sampler.value)
            panel.set(xlabel="diffusion steps", ylabel="points gained", title=title)
            panel.legend()


if __name__ == "__main__":
    main()
